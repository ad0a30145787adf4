"""A line's calls: INVITEs that the edge has signed become calls, and each request finds its call.

What calls and their sound tell (`CalleeOwner`, `MediaOwner`) goes on to the hall and the front from here.
"""

from __future__ import annotations

import hmac
import itertools
import secrets
import time
from collections.abc import Iterator
from typing import Final, Protocol

import structlog

from gateway.edge.dialogs.transaction import Served
from gateway.edge.flows.transport import Flow, plain_host
from gateway.edge.grammar.header import reason
from gateway.edge.grammar.message import from_tag, to_tag, transaction_key
from gateway.edge.grammar.responses import response
from gateway.edge.grammar.sdes import SrtpRule
from gateway.edge.grammar.sip_message import Request
from gateway.errors import LineError, RpcError
from gateway.ipc import tick
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.envelope import Tell
from gateway.ipc.line_messages import (
    CallConfirmed,
    CallLeft,
    CallStarted,
    KeyPressed,
    KeyWay,
    MediaTurned,
    MoveWay,
    RtpMoved,
    TargetRings,
    TransferOutcome,
)
from gateway.ipc.line_signature import signature
from gateway.rtp.agreement import Agreement, Describer
from gateway.rtp.described_audio import NoAgreement
from gateway.rtp.dialogs.bridged_caller import BridgedCaller
from gateway.rtp.dialogs.callee import Callee
from gateway.rtp.dialogs.line_wire import LOOPBACK, LineWire
from gateway.rtp.dialogs.pulse import Pulse
from gateway.rtp.dialogs.session_timer import SessionTimer, too_short
from gateway.rtp.dialogs.targets import QUALITY_EVERY_S, CallWithTarget, Targets
from gateway.rtp.line_plan import CODECS, PORTS_A_CALL, LinePlan
from gateway.rtp.media.call_media import CallMedia
from gateway.rtp.media.media_pass import MediaPass
from gateway.rtp.media.socket_pair import SocketPair, Source
from gateway.rtp.media.source_latch import Stream
from model.tasks import failed

_RULES: Final[dict[str, SrtpRule]] = {"required": "required", "optional": "optional", "off": "off"}
"""What `X-VG-SRTP` may say; it is signed."""

log = structlog.get_logger("rtp")


class LineHouse(Protocol):
    """The line, as its calls see it."""

    def tell_hall(self, message: Tell) -> None:
        """Tells the hall, if it is there."""

    def tell_both(self, message: Tell) -> None:
        """Tells the hall and the front, as far as they are there."""

    def expect_hall(self) -> None:
        """Somebody calls: if there is no hall, it has only so long to come."""


class Callees:
    """All calls of a line. `open` first; then calls come by themselves."""

    def __init__(self, plan: LinePlan, media_pass: MediaPass, house: LineHouse) -> None:
        self.by_call: dict[str, Callee] = {}
        """by our id"""
        self.closed = False
        """no new calls: the line is stopping"""
        self._plan = plan
        self._pass = media_pass
        self._house = house
        self._by_dialog: dict[tuple[str, str, str], Callee] = {}
        self._by_invite: dict[Served, Callee] = {}
        self._by_media: dict[CallMedia, Callee] = {}
        self._pairs: dict[Callee, SocketPair] = {}
        """of calls whose sound is not up yet"""
        self._pulses: dict[Callee, Pulse] = {}
        self._free = list(range(plan.capacity - 1, -1, -1))
        self._numbers = itertools.count(secrets.randbelow(1 << 30))
        self._ports = self._port_pairs()
        self._codecs = CODECS[plan.kind]
        self._wire = LineWire(plan.sip_port, self._request)
        self.targets = Targets(plan, self, self._wire, media_pass, self._codecs)
        self._bridged: set[str] = set()
        """callers on browsers' lines who have a target here"""

    def _port_pairs(self) -> Iterator[int]:
        """Even ports of the line's block, round and round: each as long as possible after it was used."""
        size = PORTS_A_CALL * self._plan.capacity
        first = self._plan.rtp_port or 16_384 + 2 * secrets.randbelow((40_000 - size) // 2)
        return itertools.cycle(range(first + first % 2, first + size, 2))

    async def open(self) -> None:
        """Raises `LineError` when the SIP port is taken."""
        await self._wire.open()

    async def stop(self, why: End, within_s: float) -> None:
        """BYE to every call, or 480; no new ones. Waits so long for the answers."""
        self.closed = True
        for callee in list(self.by_call.values()):
            callee.hang_up(CallEnding(why))
        for call_id in list(self._bridged):
            self.targets.caller_left(call_id)
        await self._wire.falls_quiet(within_s)

    async def close(self) -> None:
        """After the last call."""
        await self._wire.close()

    @property
    def sip_port(self) -> int:
        """Where the edge reaches us."""
        return self._wire.port

    def named(self, call_id: str) -> Callee:
        """Raises `RpcError` for a call that we do not have."""
        callee = self.by_call.get(call_id)
        if callee is None:
            raise RpcError(f"no call {call_id} on {self._plan.name}")
        return callee

    def tell_started(self, callee: Callee, *, resumed: bool) -> None:
        """Tells the hall of a call. `resumed`: it is another hall than the one that had it."""
        self._house.tell_hall(
            CallStarted(
                call_id=callee.call_id,
                call=callee.number,
                slot=callee.slot,
                codec=callee.codec,
                resumed=resumed,
                confirmed=callee.confirmed,
                handed_over=self.targets.has(callee.call_id),
            )
        )

    def silent_s(self, callee: Callee, now: float) -> float:
        """Seconds for which nothing has come from the caller, although sound should go both ways."""
        media, pulse = callee.media, self._pulses[callee]
        if media is None or not callee.confirmed or not (media.agreed.sending and media.agreed.receiving):
            return pulse.silent_s(None, now)
        return pulse.silent_s((media.receiver.received, media.rtcp.reports), now)

    # ── SIP ──────────────────────────────────────────────────────────────────────────────────────────

    def _request(self, request: Request, flow: Flow) -> None:
        key = transaction_key(request, flow)
        if request.method == "ACK":
            self._acknowledged(request, self._wire.transactions.find((key[0], key[1], "INVITE")))
            return
        if (served := self._wire.transactions.find(key)) is not None:
            served.repeated()
            return
        served = self._wire.transactions.serve(request, flow, key)
        if served is None:
            flow.send(bytes(response(request, flow, 503)))
        elif request.method == "CANCEL":
            invite = self._wire.transactions.find((key[0], key[1], "INVITE"))
            served.answer(response(request, flow, 481 if invite is None else 200))
            if invite is not None and (callee := self._by_invite.get(invite)) is not None:
                callee.cancelled()
        elif to_tag(request):
            found = self._by_dialog.get((request.call_id, from_tag(request), to_tag(request)))
            if found is not None:
                found.take(served)
            elif not self.targets.take(served):
                served.answer(response(request, flow, 481))
        elif request.method == "INVITE":
            self._invited(served)
        else:
            served.answer(response(request, flow, 405))

    def _acknowledged(self, ack: Request, invite: Served | None) -> None:
        if invite is not None and invite.final >= 300:
            invite.acknowledged()
        elif (found := self._by_dialog.get((ack.call_id, from_tag(ack), to_tag(ack)))) is not None:
            found.acknowledged(ack)
        else:
            self.targets.acknowledged(ack)

    def _invited(self, served: Served) -> None:
        """An INVITE. Signed: it waits for the hall. Else: 403."""
        request = served.request
        served.answer(response(request, served.flow, 100))
        call_id = request.headers.get("X-VG-Call") or ""
        said = request.headers.get("X-VG-Auth") or ""
        srtp = request.headers.get("X-VG-SRTP") or "off"
        right = signature(self._plan.token, call_id, request.call_id, srtp)
        if not call_id or not hmac.compare_digest(said.encode(), right.encode()):
            self._refuse(served, 403, call_id, "not signed by the edge")
        elif request.headers.get("Replaces") is not None:
            self._refuse(served, 403, call_id, "it would take a call over")
        elif self.closed or call_id in self.by_call:
            self._refuse(served, 503, call_id, "stopping, or there already")
        elif not self._free:
            self._refuse(served, 486, call_id, "no slot")
        elif SessionTimer.too_short(request):
            log.info("line.refused", call_id=call_id, status=422, why="its session is too short")
            served.answer(too_short(served))
        else:
            self._open(served, call_id)

    def _refuse(self, served: Served, status: int, call_id: str, why: str) -> None:
        log.warning("line.refused", call_id=call_id, status=status, why=why)
        extra = {"Reason": reason(status, why)} if status == 488 else None
        served.answer(response(served.request, served.flow, status, extra))

    def _open(self, served: Served, call_id: str) -> None:
        plan, body = self._plan, served.request.body.decode(errors="replace")
        address = plan.media_address
        try:
            sockets = self.sockets()
        except LineError as error:
            self._refuse(served, 503, call_id, str(error))
            return
        said = address or LOOPBACK
        rule = _RULES[served.request.headers.get("X-VG-SRTP") or "off"]
        describer = Describer(said, sockets.port, self._codecs, secrets.randbits(31), rule)
        try:
            answer = describer.answer(body) if body else None
        except NoAgreement as error:
            sockets.close()
            self._refuse(served, 488, call_id, str(error))
            return
        except Exception:
            sockets.close()
            raise
        number = next(self._numbers) & 0xFFFFFFFF
        callee = Callee(self, self._wire, served, call_id, number, self._free.pop(), describer, answer)
        self.by_call[call_id] = self._by_dialog[callee.key] = self._by_invite[served] = callee
        self._pairs[callee], self._pulses[callee] = sockets, Pulse()
        log.info("call.started", call_id=call_id, slot=callee.slot)
        self.tell_started(callee, resumed=False)
        self._house.expect_hall()

    def sockets(self) -> SocketPair:
        """See `TargetHouse`."""
        pairs = PORTS_A_CALL * self._plan.capacity // 2
        return SocketPair.open(self._plan.media_address, itertools.islice(self._ports, pairs))

    # ── a target for a caller (`TargetHouse`) ────────────────────────────────────────────────────────

    def call_target(self, call_id: str, target: str, within_s: float) -> None:
        """Calls a target of the dialplan for a caller. Raises `RpcError` and `LineError`."""
        callee = self.named(call_id)
        self.targets.call(callee, target, within_s, callee.flow)

    def bridge_target(self, call_id: str, target: str, within_s: float, port: int) -> int:
        """The same for a caller on a browser's line, whose sound is at that port of this host; our own port.

        It takes a slot, as a caller does. Raises `RpcError` and `LineError`.
        """
        if "OPUS" not in self._codecs:
            raise RpcError(f"{self._plan.name} has no Opus")
        edge = self._edge()
        if self.closed or not self._free or edge is None:
            raise RpcError(f"{self._plan.name} has no room for call {call_id}")
        sockets = SocketPair.open(LOOPBACK, (2 * secrets.randbelow(8_000) + 45_000 for _ in range(64)))
        try:
            caller = BridgedCaller(call_id, self._free[-1], sockets, port)
            self._bridged.add(call_id)
            self.targets.call(caller, target, within_s, edge)
        except (RpcError, LineError):
            self._bridged.discard(call_id)
            sockets.close()
            raise
        self._free.pop()
        return sockets.port

    def _edge(self) -> Flow | None:
        """To the edge as it is now; None: nobody knows where it is."""
        try:
            port = int(self._plan.runtime.edge_port.read_text())
        except (OSError, ValueError):
            return None
        return self._wire.flow(port)

    def drop_bridged(self, call_id: str) -> None:
        """The hall wants no target for it any more, and no word of it."""
        self._bridged.discard(call_id)
        self.targets.caller_left(call_id)

    def bridges(self, call_id: str) -> bool:
        """Whether a target is called here for that caller, who is on a browser's line."""
        return call_id in self._bridged

    def free_slot(self, caller: CallWithTarget) -> None:
        """See `TargetHouse`."""
        self._free.append(caller.slot)

    def target_rings(self, call_id: str, status: int, early: bool) -> None:
        """See `TargetHouse`."""
        self._house.tell_hall(TargetRings(call_id, status, early))

    def target_came(self, call_id: str, status: int, reason: str) -> None:
        """See `TargetHouse`."""
        if call_id in self.by_call or call_id in self._bridged:
            self._house.tell_hall(TransferOutcome(call_id, status, reason))
        if status >= 300:
            self._bridged.discard(call_id)

    def tell_hall(self, message: Tell) -> None:
        """See `TargetHouse`."""
        self._house.tell_hall(message)

    def target_left(self, call_id: str, how: CallEnding) -> None:
        """See `TargetHouse`."""
        if (callee := self.by_call.get(call_id)) is not None:
            callee.hang_up(how)
        elif call_id in self._bridged:
            self._bridged.discard(call_id)
            self._house.tell_hall(CallLeft(call_id, how))

    # ── what a call needs of its line (`CalleeOwner`) ────────────────────────────────────────────────

    def media_up(self, callee: Callee, agreed: Agreement) -> CallMedia:
        """See `CalleeOwner`."""
        rate_hz = self._plan.rate_hz
        pair = self._pairs.pop(callee)
        media = CallMedia(callee.number, callee.slot, pair, agreed, rate_hz, self._pass.arrival, self)
        self._by_media[media] = callee
        self._pass.add(media)
        return media

    def confirmed(self, callee: Callee) -> None:
        """See `CalleeOwner`."""
        self._house.tell_hall(CallConfirmed(callee.call_id, callee.codec, time.monotonic()))
        suite = callee.media.srtp.suite if callee.media is not None and callee.media.srtp else None
        log.info("call.confirmed", call_id=callee.call_id, codec=callee.codec, srtp=suite)

    def turned(self, callee: Callee, sending: bool, receiving: bool) -> None:
        """See `CalleeOwner`."""
        self._house.tell_hall(MediaTurned(callee.call_id, sending, receiving))

    def pressed_by(self, callee: Callee, digit: str, way: KeyWay) -> None:
        """See `CalleeOwner`."""
        if way == "info":  # a key that was pressed before it may still wait in its socket
            self._pass.catch_up()
        if self.targets.press(callee.call_id, digit):
            return
        self._house.tell_hall(KeyPressed(callee.call_id, digit, way))

    def transferred(self, callee: Callee, status: int, reason: str) -> None:
        """See `CalleeOwner`. After a 2xx our part is over."""
        self._house.tell_hall(TransferOutcome(callee.call_id, status, reason))
        if 200 <= status < 300:
            callee.hang_up(CallEnding(End.TRANSFERRED))

    def ended(self, callee: Callee, how: CallEnding) -> None:
        """See `CalleeOwner`."""
        if self.by_call.get(callee.call_id) is callee:
            del self.by_call[callee.call_id]
            self.targets.caller_left(callee.call_id)
        self._by_dialog.pop(callee.key, None)
        for invite in [invite for invite, one in self._by_invite.items() if one is callee]:
            del self._by_invite[invite]
        self._pulses.pop(callee, None)
        if (pair := self._pairs.pop(callee, None)) is not None:
            pair.close()
        if (media := callee.media) is not None:
            self._close_media(callee, media)
        self._free.append(callee.slot)
        log.info("call.left", call_id=callee.call_id, codec=callee.codec, saw=how)
        self._house.tell_both(CallLeft(callee.call_id, how))

    def _close_media(self, callee: Callee, media: CallMedia) -> None:
        media.report(int(time.monotonic() / tick.FRAME_S), bye=True)
        if media.srtp is not None and media.srtp.refused:
            log.info("srtp.refused", call_id=callee.call_id, packets=media.srtp.refused)
        self._pass.remove(media)
        del self._by_media[media]
        self._tell_quality(callee, media, last=True)

    def _tell_quality(self, callee: Callee, media: CallMedia, *, last: bool) -> None:
        if (quality := media.quality(callee.call_id, last=last)) is not None:
            self._house.tell_hall(quality)

    def tell_qualities(self, second: int) -> None:
        """Tells how calls sound: of each once in `QUALITY_EVERY_S`, not of all in the same second."""
        for callee in self.by_call.values():
            turn = (callee.number + second) % QUALITY_EVERY_S == 0
            if turn and callee.confirmed and callee.media is not None:
                self._tell_quality(callee, callee.media, last=False)
        self.targets.tell_qualities(second)

    # ── what a call's sound tells (`MediaOwner`) ─────────────────────────────────────────────────────

    def pressed(self, media: CallMedia, digit: str) -> None:
        """See `MediaOwner`."""
        self.pressed_by(self._by_media[media], digit, "event")

    def moved(self, media: CallMedia, was: Stream, now: Stream) -> None:
        """See `MediaOwner`."""
        way: MoveWay = "described" if now.source == media.latch.described else "followed"
        if now.source == was.source:
            way = "stream"
        before, after = _written(was.source), _written(now.source)
        ssrcs = f"0x{was.ssrc:08x}", f"0x{now.ssrc:08x}"
        self._house.tell_hall(RtpMoved(self._by_media[media].call_id, before, after, way, *ssrcs))

    def broke(self, media: CallMedia, error: Exception) -> None:
        """See `MediaOwner`."""
        callee = self._by_media[media]
        failed("rtp.sound", error, call_id=callee.call_id)
        callee.hang_up(CallEnding(End.OUR_ERROR))


def _written(source: Source) -> str:
    host, port = plain_host(source[0]), source[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
