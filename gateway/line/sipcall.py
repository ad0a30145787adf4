"""A SIP call as pjsua2 tells of it, and where calls arrive.

Callbacks run in pjsua2's worker: they note what happened and hand it to the line's loop, nothing else.
"""

from __future__ import annotations

import ctypes
import struct
import time
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

import pjsua2 as pj

from gateway.config.notes import note
from gateway.errors import LineError
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.line_messages import KeyWay
from gateway.ipc.poll_loop import Loop
from gateway.line.bridge import CallAudio, SlotPort
from gateway.line.event_tap import EventTap, Tap
from gateway.line.pulse import Pulse
from gateway.line.telephone_event import EVENT, offering_events

F = TypeVar("F", bound=Callable[..., None])

_CALL: Final = struct.Struct("<8xQi")
"""pj::Call on a 64-bit machine: its table of methods, its account, its id."""
_ID_AT: Final = _CALL.size - 4


def guarded(callback: F) -> F:
    """pjsua2 prints an exception of a callback and goes on; we log it instead."""

    def run(*args: Any) -> None:
        try:
            callback(*args)
        except Exception as error:
            call_id = getattr(args[0], "call_id", None)
            about = {} if call_id is None else {"call_id": call_id}
            note("error", "line.callback_failed", callback=callback.__name__, error=reason_of(error), **about)

    return run  # type: ignore[return-value]  # same arguments, same None


def check_call_layout(account: pj.Account) -> None:
    """Raises `LineError` unless pj::Call lies in memory as `_CALL` says."""
    call = pj.Call(account)
    found = _CALL.unpack(ctypes.string_at(int(call.this), _CALL.size))
    if found != (int(account.this), pj.PJSUA_INVALID_ID):
        raise LineError("this pjsua2 build lays out its calls differently; voicegate knows 2.15.1")


def reason_of(error: BaseException) -> str:
    return str(error.reason) if isinstance(error, pj.Error) else f"{type(error).__name__}: {error}"


class CallOwner(Protocol):
    """The line, as a call of it sees it. All but `invited` and `free` run in the loop's thread."""

    loop: Loop
    event_tap: EventTap

    def invited(self, account: LineAccount, pj_id: int, message: str) -> None:
        """An INVITE came; `message` is its text. Runs in pjsua2's worker."""

    def free(self, call: SipCall) -> None:
        """The call's slot may be used again. Runs in pjsua2's worker."""

    def confirmed(self, call: SipCall, at: float) -> None:
        """The caller's ACK came at `at` (monotonic seconds)."""

    def turned(self, call: SipCall, sending: bool, receiving: bool) -> None:
        """The direction of the call's media changed: a hold, or its end."""

    def dtmf(self, call: SipCall, digit: str, way: KeyWay) -> None:
        """The caller pressed a key, and it came this way."""

    def transferred(self, call: SipCall, status: int, reason: str) -> None:
        """The target of a transfer gave its final answer."""

    def ended(self, call: SipCall, how: CallEnding) -> None:
        """pjsua2 has let go of the call."""


class SipCall(pj.Call):  # type: ignore[misc]  # pjsua2 ships no types
    """One call of the line, from its INVITE to its end."""

    def __init__(self, line: CallOwner, account: pj.Account, pj_id: int, call_id: str, number: int) -> None:
        super().__init__(account, pj_id)
        self.line = line
        self.call_id = call_id
        self.number = number
        self.slot: SlotPort | None = None
        self.audio: CallAudio | None = None
        self.codec: str | None = None
        self.answered = False
        self.confirmed = False
        self.over = False
        self.ending: CallEnding | None = None
        """How it ends, once we end it ourselves."""
        self.direction: tuple[bool, bool] = (False, False)
        self.source = ""
        """Where its RTP comes from."""
        self.pulse = Pulse()
        self.taps: dict[int, Tap] = {}
        """On its media transports, by their index."""
        self.media_index = 0
        """Of its audio among the sections of its SDP: a phone may offer video first."""
        self.packets, self.lost, self.jitter_ms = 0, 0, 0.0
        """Of what was heard, in the streams that are over."""

    def take_slot(self, slot: SlotPort) -> None:
        """The line has a place for it."""
        self.slot = slot
        self.audio = CallAudio(self.number)

    def leave_slot(self) -> None:
        """Its place is somebody else's."""
        self.slot = self.audio = None

    def end_as(self, how: CallEnding) -> None:
        """We end it; the first reason stays."""
        self.ending = self.ending or how

    def accept(self) -> None:
        """Answers it: 200 OK. Raises `pj.Error`."""
        self.answer(op(pj.PJSIP_SC_OK))
        self.answered = True

    def moved_from(self) -> str | None:
        """Looks up where its RTP comes from; returns where it came from before, None if that is the same.

        Raises `pj.Error`.
        """
        was, now = self.source, str(self.getMedTransportInfo(self.media_index).srcRtpName)
        self.source = now or was
        return was if was and now and now != was else None

    def silent_s(self, now: float) -> float:
        """Seconds for which nothing has come from the caller, although sound should go both ways.

        Raises `pj.Error`.
        """
        if self.direction != (True, True):
            return self.pulse.silent_s(None, now)
        rtcp = self.getStreamStat(self.media_index).rtcp
        return self.pulse.silent_s((int(rtcp.rxStat.pkt), int(rtcp.txStat.updateCount)), now)

    def let_go(self) -> None:
        """Makes the object harmless once pjsua2 has let go of the call; nothing may be asked of it then.

        pjsua2 gives an ended call's id to the next one, and the destructor of pj::Call hangs up whichever
        call has its id by then.
        """
        ctypes.c_int.from_address(int(self.this) + _ID_AT).value = pj.PJSUA_INVALID_ID
        while self.taps:  # each knows the call: nobody else would part them, with the collector off
            self.line.event_tap.forget(self.taps.popitem()[1])

    @guarded
    def onCallState(self, _: Any) -> None:
        info = self.getInfo()
        if info.state == pj.PJSIP_INV_STATE_CONFIRMED and not self.confirmed:
            self.confirmed = True
            self.line.loop.call(self.line.confirmed, self, time.monotonic())
        elif info.state == pj.PJSIP_INV_STATE_DISCONNECTED and not self.over:
            self.over = True
            if self.slot is not None:  # free at once: the next INVITE may come before the loop's turn
                self.slot.clear()
            status = int(info.lastStatusCode)
            if self.ending is not None:
                how = self.ending
            elif status == pj.PJSIP_SC_OK:
                how = CallEnding(End.CALLER)
            elif status == pj.PJSIP_SC_REQUEST_TIMEOUT and self.answered and not self.confirmed:
                how = CallEnding(End.UNACKNOWLEDGED)
            elif status == pj.PJSIP_SC_REQUEST_TERMINATED:
                how = CallEnding(End.CANCELLED)
            else:
                how = CallEnding(End.FAILED, f"{status} {info.lastReason}")
            self.line.free(self)
            self.line.loop.call(self.line.ended, self, how)

    @guarded
    def onStreamDestroyed(self, prm: Any) -> None:
        # the last moment at which its counters can be read; a re-INVITE ends one stream and begins another
        heard = self.getStreamStat(int(prm.streamIdx)).rtcp.rxStat
        self.packets += int(heard.pkt)
        self.lost += int(heard.loss) + int(heard.discard)
        self.jitter_ms = round(heard.jitterUsec.mean / 1000, 1)

    @guarded
    def onCallMediaState(self, _: Any) -> None:
        if self.over or self.slot is None:
            return
        info = self.getInfo()
        active = (pj.PJSUA_CALL_MEDIA_ACTIVE, pj.PJSUA_CALL_MEDIA_REMOTE_HOLD, pj.PJSUA_CALL_MEDIA_LOCAL_HOLD)
        found = [m for m in info.media if m.type == pj.PJMEDIA_TYPE_AUDIO and m.status in active]
        if not found or self.audio is None:
            if not found:
                self._turn_to(False, False)
            return
        media = found[0]
        self.media_index = int(media.index)
        self.codec = str(self.getStreamInfo(self.media_index).codecName)
        self.slot.carry(self.audio)
        sending = bool(media.dir & pj.PJMEDIA_DIR_ENCODING)
        receiving = bool(media.dir & pj.PJMEDIA_DIR_DECODING)
        if media.audioConfSlot != pj.PJSUA_INVALID_ID:
            stream = self.getAudioMedia(-1)  # pjsua2 counts here by its own list, which leaves video out
            if sending:
                self.slot.startTransmit(stream)
            if receiving:
                stream.startTransmit(self.slot)
        self._turn_to(sending, receiving)

    def _turn_to(self, sending: bool, receiving: bool) -> None:
        if self.audio is not None:
            self.audio.turn_to(sending, receiving)
        if self.direction != (sending, receiving):
            self.direction = (sending, receiving)
            if self.confirmed:  # what a call begins with is not a hold, nor the end of one
                self.line.loop.call(self.line.turned, self, sending, receiving)

    @guarded
    def onDtmfDigit(self, prm: Any) -> None:
        way: KeyWay = "info" if prm.method == pj.PJSUA_DTMF_METHOD_SIP_INFO else "event"
        self.line.loop.call(self.line.dtmf, self, str(prm.digit), way)

    def _stray(self, digit: str) -> None:
        self.line.loop.call(self.line.dtmf, self, digit, "event")

    @guarded
    def onCreateMediaTransport(self, prm: Any) -> None:
        self.taps[prm.mediaIdx] = self.line.event_tap.tap(int(prm.mediaTp), self._stray)

    @guarded
    def onStreamPreCreate(self, prm: Any) -> None:
        """Before a stream attaches to its transport: which payload types pjmedia takes keys on."""
        info = prm.streamInfo
        if info.type != pj.PJMEDIA_TYPE_AUDIO:
            return
        ours, theirs = int(info.audRxEventPt), int(info.audTxEventPt)
        if self.audio is not None:
            self.audio.expect_tones(ours < 0 or theirs < 0)
        if (tap := self.taps.get(prm.streamIdx)) is not None:
            types = {theirs if theirs >= 0 else EVENT} - {ours, int(info.rxPt), int(info.txPt)}
            tap.listen_for(types)

    @guarded
    def onCallSdpCreated(self, prm: Any) -> None:
        if not prm.remSdp.wholeSdp:
            prm.sdp.wholeSdp = offering_events(prm.sdp.wholeSdp)

    @guarded
    def onCallTransferRequest(self, prm: Any) -> None:
        prm.statusCode = pj.PJSIP_SC_DECLINE  # 202 and a new call would be pjsua2's own answer

    @guarded
    def onCallReplaceRequest(self, prm: Any) -> None:
        prm.statusCode = pj.PJSIP_SC_FORBIDDEN

    @guarded
    def onCallTransferStatus(self, prm: Any) -> None:
        if prm.finalNotify:
            prm.cont = False
            self.line.loop.call(self.line.transferred, self, int(prm.statusCode), str(prm.reason))


class LineAccount(pj.Account):  # type: ignore[misc]
    """Where INVITEs arrive."""

    def __init__(self, line: CallOwner) -> None:
        super().__init__()
        self._line = line

    @guarded
    def onIncomingCall(self, prm: Any) -> None:
        self._line.invited(self, int(prm.callId), str(prm.rdata.wholeMsg))


def op(status: int) -> pj.CallOpParam:
    param = pj.CallOpParam(True)
    param.statusCode = status
    param.opt.audioCount = 1
    param.opt.videoCount = 0
    return param
