"""The targets that a line calls for its callers, and how each is joined to its caller.

A caller has one target at most. Once the target's sound is there the two hear each other, inside this process
(`MediaPass.join`): the hall has no part in that sound.
"""

from __future__ import annotations

import secrets
import time
from typing import Final, Protocol

import structlog

from gateway.edge.dialogs.transaction import Served
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.message import from_tag, to_tag
from gateway.edge.grammar.sip_message import Request
from gateway.errors import RpcError
from gateway.ipc import tick
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.envelope import Tell
from gateway.line.target_bridge import GONE_S
from gateway.rtp.agreement import Agreement, Describer
from gateway.rtp.described_audio import CodecName
from gateway.rtp.dialogs.bridged_caller import BridgedCaller
from gateway.rtp.dialogs.caller import TargetCall
from gateway.rtp.dialogs.line_wire import LineWire
from gateway.rtp.dialogs.pulse import Pulse
from gateway.rtp.line_plan import LinePlan
from gateway.rtp.media.call_media import CallMedia
from gateway.rtp.media.media_pass import MediaPass
from gateway.rtp.media.socket_pair import SocketPair
from gateway.rtp.media.source_latch import Stream
from model.tasks import failed

MOST_RING_S: Final = 180.0
QUALITY_EVERY_S: Final = 10
"""Between two words to the hall on how a call sounds."""

log = structlog.get_logger("rtp")


class CallWithTarget(Protocol):
    """The caller's call, as its target's sees it."""

    call_id: str
    number: int
    slot: int
    media: CallMedia | None


class TargetHouse(Protocol):
    """The line, as its targets see it."""

    def sockets(self) -> SocketPair:
        """A new pair. Raises `LineError` when there is none."""

    def target_rings(self, call_id: str, status: int, early: bool) -> None:
        """See `TargetOwner.rings`."""

    def target_came(self, call_id: str, status: int, reason: str) -> None:
        """The target's final answer."""

    def tell_hall(self, message: Tell) -> None:
        """Tells the hall, if it is there."""

    def free_slot(self, caller: CallWithTarget) -> None:
        """A caller on a browser's line has its target no more, and its slot is free."""

    def target_left(self, call_id: str, how: CallEnding) -> None:
        """The target had the caller, and the two are together no more."""


class Targets:
    """All of a line's."""

    def __init__(
        self,
        plan: LinePlan,
        house: TargetHouse,
        wire: LineWire,
        media_pass: MediaPass,
        codecs: tuple[CodecName, ...],
    ) -> None:
        self._plan = plan
        self._house = house
        self._wire = wire
        self._pass = media_pass
        self._codecs = codecs
        self._by_call: dict[str, TargetCall] = {}
        self._by_sip_call: dict[str, TargetCall] = {}
        self._by_media: dict[CallMedia, TargetCall] = {}
        self._callers: dict[TargetCall, CallWithTarget] = {}
        self._pairs: dict[TargetCall, SocketPair] = {}
        self._pulses: dict[TargetCall, Pulse] = {}

    def of(self, call_id: str) -> TargetCall | None:
        """The target of a caller's call."""
        return self._by_call.get(call_id)

    def has(self, call_id: str) -> bool:
        """Whether a target has that caller."""
        call = self._by_call.get(call_id)
        return call is not None and call.up

    def call(self, caller: CallWithTarget, target: str, within_s: float, flow: Flow) -> None:
        """Calls a target for `caller`; `flow` leads to the edge.

        Raises `RpcError` where the caller has one already, or no sound yet; `LineError` without sockets.
        """
        bridged = isinstance(caller, BridgedCaller)
        if caller.media is None and not bridged:
            raise RpcError(f"call {caller.call_id} has no sound yet")
        if caller.call_id in self._by_call:
            raise RpcError(f"call {caller.call_id} has a target already")
        first = self._codecs[0] if caller.media is None else caller.media.agreed.codec
        sockets = self._house.sockets()
        codecs = (first, *(codec for codec in self._codecs if codec != first))
        described = Describer(
            self._plan.media_address or "127.0.0.1", sockets.port, codecs, secrets.randbits(31)
        )
        call = TargetCall(self, self._wire, caller.call_id, target, described, flow, self._plan.token)
        self._by_call[caller.call_id] = self._by_sip_call[call.sip_call_id] = call
        self._callers[call], self._pairs[call], self._pulses[call] = caller, sockets, Pulse()
        log.info("target.called", call_id=caller.call_id, target=target)
        call.dial(min(within_s, MOST_RING_S))

    def caller_left(self, call_id: str) -> None:
        """The caller's call is over: so is its target's."""
        call = self._by_call.get(call_id)
        if call is not None:
            call.give_up(487, "the caller hung up")

    def press(self, call_id: str, digit: str) -> bool:
        """A caller pressed a key; True when it is its target's, and nobody else's."""
        call = self._by_call.get(call_id)
        if call is None or not call.up:
            return False
        if call.media is not None and call.media.agreed.event is not None:
            call.media.sender.keys.dial(digit)
        return True

    def tell_qualities(self, second: int) -> None:
        """Tells how targets sound, as `Callees.tell_qualities` does of callers."""
        for call, caller in self._callers.items():
            if call.up and (caller.number + second) % QUALITY_EVERY_S == 0:
                self._tell_quality(call, last=False)

    def _tell_quality(self, call: TargetCall, *, last: bool) -> None:
        media = call.media
        if media is None or not call.up:
            return
        if (quality := media.quality(call.call_id, last=last, target=call.target)) is not None:
            self._house.tell_hall(quality)

    def watch(self, now: float, gone_s: float) -> None:
        """Ends calls from whose target nothing has come for so long; 0: never."""
        for call in list(self._by_call.values()):
            media, pulse = call.media, self._pulses[call]
            awaited = media is not None and call.up and media.agreed.sending and media.agreed.receiving
            counts = (media.receiver.received, media.rtcp.reports) if media is not None and awaited else None
            caller = self._callers[call]
            if isinstance(caller, BridgedCaller) and caller.silent_s(now) >= GONE_S:
                log.warning("target.caller_gone", call_id=call.call_id)
                call.hang_up(CallEnding(End.SOUND_STOPPED, f"{GONE_S:g} s"))
            elif pulse.silent_s(counts, now) >= gone_s > 0:
                log.warning("target.gone", call_id=call.call_id)
                call.hang_up(CallEnding(End.TRANSFERRED, "no sound came from the target any more"))

    # ── SIP ──────────────────────────────────────────────────────────────────────────────────────────

    def take(self, served: Served) -> bool:
        """A request within a dialog; False when it is none of ours."""
        call = self._by_sip_call.get(served.request.call_id)
        if call is None or call.key != _key(served.request):
            return False
        call.take(served)
        return True

    def acknowledged(self, ack: Request) -> None:
        """An ACK within a dialog."""
        call = self._by_sip_call.get(ack.call_id)
        if call is not None and call.key == _key(ack):
            call.acknowledged(ack)

    # ── what a call to a target needs of its line (`TargetOwner`) ────────────────────────────────────

    def media_up(self, call: TargetCall, agreed: Agreement) -> CallMedia:
        """See `TargetOwner`."""
        caller = self._callers[call]
        plan, theirs = self._plan, caller.media
        if isinstance(caller, BridgedCaller):
            theirs = self._bridged(call, caller)
        assert theirs is not None  # noqa: S101  # `call` asked for it, and a call's sound stays until its end
        media = CallMedia(
            caller.number,
            plan.capacity + caller.slot,
            self._pairs.pop(call),
            agreed,
            plan.rate_hz,
            self._pass.arrival,
            self,
        )
        self._by_media[media] = call
        self._pass.add(media)
        self._pass.join(theirs, media)
        return media

    def _bridged(self, call: TargetCall, caller: BridgedCaller) -> CallMedia:
        """The sound of a caller on a browser's line, which begins now."""
        rate_hz, arrival = self._plan.rate_hz, self._pass.arrival
        media = CallMedia(caller.number, caller.slot, caller.sockets, caller.agreed, rate_hz, arrival, self)
        caller.media = media
        self._by_media[media] = call
        self._pass.add(media)
        return media

    def rings(self, call: TargetCall, status: int, early: bool) -> None:
        """See `TargetOwner`."""
        self._house.target_rings(call.call_id, status, early)

    def answered(self, call: TargetCall) -> None:
        """See `TargetOwner`."""
        log.info("target.answered", call_id=call.call_id, target=call.target)
        self._house.target_came(call.call_id, 200, "OK")

    def refused(self, call: TargetCall, status: int, reason: str) -> None:
        """See `TargetOwner`."""
        self._forget(call)
        log.info("target.refused", call_id=call.call_id, target=call.target, status=status, reason=reason)
        self._house.target_came(call.call_id, status, reason)

    def ended(self, call: TargetCall, how: CallEnding) -> None:
        """See `TargetOwner`."""
        self._forget(call)
        log.info("target.left", call_id=call.call_id, target=call.target, saw=how)
        self._house.target_left(call.call_id, how)

    def _forget(self, call: TargetCall) -> None:
        caller = self._callers.pop(call)
        del self._by_call[call.call_id], self._by_sip_call[call.sip_call_id], self._pulses[call]
        if (pair := self._pairs.pop(call, None)) is not None:
            pair.close()
        if (media := call.media) is not None:
            media.report(int(time.monotonic() / tick.FRAME_S), bye=True)
            if caller.media is not None:
                self._pass.part(caller.media)
            self._pass.remove(media)
            del self._by_media[media]
            self._tell_quality(call, last=True)
        if isinstance(caller, BridgedCaller):
            self._unbridge(caller)

    def _unbridge(self, caller: BridgedCaller) -> None:
        if caller.media is not None:
            self._pass.remove(caller.media)
            del self._by_media[caller.media]
        else:
            caller.sockets.close()
        self._house.free_slot(caller)

    # ── what a target's sound tells (`MediaOwner`) ───────────────────────────────────────────────────

    def pressed(self, media: CallMedia, digit: str) -> None:
        """See `MediaOwner`. The caller's telephone is told of the key."""
        caller = self._callers[self._by_media[media]]
        if caller.media is not None and caller.media.agreed.event is not None:
            caller.media.sender.keys.dial(digit)

    def moved(self, media: CallMedia, was: Stream, now: Stream) -> None:
        """See `MediaOwner`. The latch has judged it; nobody else need know."""

    def broke(self, media: CallMedia, error: Exception) -> None:
        """See `MediaOwner`."""
        call = self._by_media[media]
        failed("rtp.sound", error, call_id=call.call_id)
        call.hang_up(CallEnding(End.OUR_ERROR))


def _key(request: Request) -> tuple[str, str, str]:
    return request.call_id, from_tag(request), to_tag(request)
