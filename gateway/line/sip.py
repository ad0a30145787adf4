"""A SIP line: pjsua2 with four calls and no opinions.

It takes INVITEs that the edge has signed, answers when the hall says so, and moves PCM between RTP and the
hall's ticks. It is forked by the zygote (`gateway.line.zygote`) and imports little, so that it stays small.

Threads: the loop's (ours: RPC, timers, everything asked of pjsua2), pjsua2's worker (SIP; its callbacks only
note what happened and hand it to the loop) and the bridge's clock (`gateway.line.bridge`).

A call's object is dropped in the loop's thread, some time after pjsua2 has let go of the call, and by
`SipCall.let_go`; never by the garbage collector, which is off here.
"""

from __future__ import annotations

import gc
import hmac
import os
import re
import secrets
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import pjsua2 as pj

from gateway.config import failure
from gateway.config.notes import named, note
from gateway.errors import LineError, RpcError
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.envelope import Handled, told
from gateway.ipc.hello import Hello, LineCall, LineFacts, TickHello
from gateway.ipc.line_messages import (
    AnswerCall,
    CallConfirmed,
    CallLeft,
    CallStarted,
    DialDigits,
    DropCall,
    KeyPressed,
    KeyWay,
    LineQuality,
    MediaTurned,
    ReferCall,
    RingCall,
    RtpMoved,
    ShowCaller,
    StopLine,
    TransferOutcome,
)
from gateway.ipc.line_signature import signature
from gateway.ipc.line_wire import FIRST_RETRY_S, LAST_RETRY_S, Wire
from gateway.ipc.poll_loop import Loop
from gateway.line.bridge import Bridge
from gateway.line.event_tap import EventTap
from gateway.line.line_plan import CODECS, RTP_PORTS, LinePlan
from gateway.line.sipcall import LineAccount, SipCall, check_call_layout, op, reason_of

HALL_GRACE_S: Final = 5.0
"""How long calls stay up, silent, without their hall."""
GOODBYE_S: Final = 1.0
"""How long a stopping line waits for the answers to its BYEs."""
WATCH_S: Final = 1.0
"""Between two looks at where the RTP comes from."""
REST_S: Final = 5.0
"""How long an ended call's object is kept: pjsua2's worker may be on its way into a callback of it."""
FRAME_NS: Final = 20_000_000
FLOOD_CALLS: Final = 24
FLOOD_S: Final = 0.6
"""A line takes so many INVITEs in so long; the next ones wait. pjsua2 has places for 64 sockets (two a call),
keeps that of a closed one for 500 ms, and aborts when it needs one more."""


def header(message: str, *names: str) -> str | None:
    """The first value of a SIP message's header, given its long and short name."""
    head = message.split("\r\n\r\n", 1)[0]
    found = re.search(rf"^(?:{'|'.join(map(re.escape, names))})[ \t]*:[ \t]*(.*?)[ \t]*$", head, re.I | re.M)
    return found.group(1).strip() if found else None


class SipLine:
    """One line process. `run` returns when it has been told to stop and its calls are gone."""

    def __init__(self, plan: LinePlan) -> None:
        self.plan = plan
        self.loop = Loop()
        self.event_tap = EventTap()
        self._calls: dict[str, SipCall] = {}
        self._graveyard: list[SipCall] = []
        self._taken: list[SipCall | None] = [None] * plan.capacity
        self._numbers = secrets.randbelow(1 << 30)
        self._invited_at: deque[float] = deque(maxlen=FLOOD_CALLS)
        self._ticks: socket.socket | None = None
        self._ticks_retry_s = FIRST_RETRY_S
        self._hall_gone = 0
        self._stopping = False
        self._zygote = os.getppid()
        self._endpoint = pj.Endpoint()
        self._start_library()
        self._bridge = Bridge(plan.rate_hz, plan.capacity)
        self._account = self._open_account()
        self._front = Wire(self.loop, plan.runtime.front, self._hello, self._for_front())
        self._hall = Wire(
            self.loop,
            plan.runtime.hall(plan.hall),
            self._hello,
            self._for_hall(),
            opened=self._hall_opened,
            lost=self._hall_lost,
        )

    # -- start and end -----------------------------------------------------------------------------------

    def _start_library(self) -> None:
        self._endpoint.libCreate()
        config = pj.EpConfig()
        config.logConfig.level = config.logConfig.consoleLevel = 1
        agent, media = config.uaConfig, config.medConfig
        agent.maxCalls = self.plan.capacity
        agent.threadCnt = 1
        agent.mainThreadOnly = False
        agent.userAgent = "voicegate"
        media.clockRate = media.sndClockRate = self.plan.rate_hz
        media.channelCount = 1
        media.audioFramePtime = 20
        media.ptime = 0  # as the caller asks; 20 ms of one who does not
        media.maxMediaPorts = 2 * self.plan.capacity + 8
        media.threadCnt = 1
        media.quality = 8  # below 5 the resampler cuts 3.2 kHz
        media.noVad = True
        media.ecTailLen = 0
        # the default jitter buffer loses audio at 60 ms of jitter
        media.jbInit = media.jbMinPre = 20
        media.jbMaxPre, media.jbMax = 60, 200
        media.sndAutoCloseTime = -1  # a clock that stops when idle would start again out of step
        self._endpoint.libInit(config)
        for codec in self._endpoint.codecEnum2():
            self._endpoint.codecSetPriority(codec.codecId, 0)
        for rank, name in enumerate(CODECS[self.plan.kind]):
            self._endpoint.codecSetPriority(f"{name}/1", 250 - rank)
        transport = pj.TransportConfig()
        transport.boundAddress = "127.0.0.1"
        transport.port = self.plan.sip_port
        try:
            made = self._endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
        except pj.Error as error:
            raise LineError(f"cannot listen on UDP 127.0.0.1:{self.plan.sip_port}: {error.reason}") from None
        self.sip_port = int(self._endpoint.transportGetInfo(made).localName.rsplit(":", 1)[1])
        self._endpoint.libStart()
        self._start_clock()

    def _start_clock(self) -> None:
        """Starts the bridge's clock on a multiple of 20 ms of the machine's: all lines tick together, and the
        hall serves them in one batch instead of one line at a time."""
        time.sleep((FRAME_NS - time.monotonic_ns() % FRAME_NS) / 1e9)
        self._endpoint.audDevManager().setNullDev()

    def _open_account(self) -> LineAccount:
        config = pj.AccountConfig()
        config.idUri = f"sip:{self.plan.name}@127.0.0.1:{self.sip_port}"
        config.mediaConfig.srtpUse = pj.PJMEDIA_SRTP_DISABLED  # TLS and SRTP end at the edge
        config.mediaConfig.srtpSecureSignaling = 0
        transport = config.mediaConfig.transportConfig
        first = self.plan.rtp_port or 16384 + 2 * secrets.randbelow(20000)
        transport.port = first
        transport.portRange = RTP_PORTS
        transport.randomizePort = True
        if self.plan.media_address not in ("", "0.0.0.0"):  # noqa: S104  # compared, not bound
            transport.boundAddress = self.plan.media_address
        transport.publicAddress = self.plan.public_address
        account = LineAccount(self)
        account.create(config, True)
        check_call_layout(account)
        return account

    def run(self) -> None:
        signal.signal(signal.SIGTERM, lambda *_: self.loop.call(self.stop))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to interpret
        self._front.connect()
        self._hall.connect()
        self._open_ticks()
        self.loop.later(WATCH_S, self._watch)
        note("info", "line.up", kind=self.plan.kind, sip_port=self.sip_port, hall=self.plan.hall)
        self.loop.run()

    def stop(self) -> None:
        """BYE to every call, then the end; asked by the front, by SIGTERM, by the parent's death."""
        if self._stopping:
            return
        self._stopping = True
        crashed = os.getppid() != self._zygote  # and we go with it
        why = End.LINE_DIED if crashed else End.GATEWAY_STOPPED
        for call in list(self._calls.values()):
            self._hang_up(call, CallEnding(why))
        self.loop.later(GOODBYE_S, self.loop.stop)
        self._stop_if_empty()

    def _stop_if_empty(self) -> None:
        if self._stopping and not self._calls:
            self.loop.later(0.05, self.loop.stop)  # the last BYE's answer may still be on its way

    # -- calls -------------------------------------------------------------------------------------------

    def invited(self, account: LineAccount, pj_id: int, message: str) -> None:
        """An INVITE came (pjsua2's worker). Signed: it waits for the hall. Else: 403."""
        if len(self._invited_at) == FLOOD_CALLS:
            time.sleep(max(0.0, self._invited_at[0] + FLOOD_S - time.monotonic()))
        self._invited_at.append(time.monotonic())
        call_id = header(message, "X-VG-Call") or ""
        said = header(message, "X-VG-Auth") or ""
        right = signature(self.plan.token, call_id, header(message, "Call-ID", "i") or "")
        self._numbers = (self._numbers + 1) & 0xFFFFFFFF
        call = SipCall(self, account, pj_id, call_id, self._numbers)
        index = self._taken.index(None) if None in self._taken else None
        if not call_id or not hmac.compare_digest(said.encode(), right.encode()):
            status, why = pj.PJSIP_SC_FORBIDDEN, "not signed by the edge"
        elif self._stopping or call_id in self._calls:
            status, why = pj.PJSIP_SC_SERVICE_UNAVAILABLE, "stopping, or there already"
        elif index is None:
            status, why = pj.PJSIP_SC_BUSY_HERE, "no slot"
        else:
            call.take_slot(self._bridge.slots[index])
            self._taken[index] = call
            self.loop.call(self._started, call)
            return
        call.end_as(CallEnding(End.REFUSED, why))
        self.loop.call(self._refuse, call, int(status))  # pjsua2 aborts when a call ends within this callback
        note("warning", "line.refused", call_id=call_id, status=int(status), why=why)

    def _refuse(self, call: SipCall, status: int) -> None:
        if not call.over:
            self._graveyard.append(call)
            try:
                call.answer(op(status))
            except pj.Error as error:  # cancelled meanwhile
                note("info", "line.refused_late", call_id=call.call_id, error=error.reason)

    def free(self, call: SipCall) -> None:
        if call.slot is not None and self._taken[call.slot.index] is call:
            self._taken[call.slot.index] = None

    def _started(self, call: SipCall) -> None:
        if not call.over:
            self._calls[call.call_id] = call
            note("info", "call.started", call_id=call.call_id, codec=call.codec)
            self._tell_started(call, resumed=False)
            if not self._hall.up:
                self._hall_grace()

    def _tell_started(self, call: SipCall, *, resumed: bool) -> None:
        assert call.slot is not None  # noqa: S101  # for mypy: a call that is told has its slot
        self._hall.tell(
            CallStarted(
                call_id=call.call_id,
                call=call.number,
                slot=call.slot.index,
                codec=call.codec,
                resumed=resumed,
                confirmed=call.confirmed,
            )
        )

    def confirmed(self, call: SipCall, at: float) -> None:
        self._hall.tell(CallConfirmed(call.call_id, call.codec, at))

    def turned(self, call: SipCall, sending: bool, receiving: bool) -> None:
        self._hall.tell(MediaTurned(call.call_id, sending, receiving))

    def dtmf(self, call: SipCall, digit: str, way: KeyWay) -> None:
        self._hall.tell(KeyPressed(call.call_id, digit, way))

    def transferred(self, call: SipCall, status: int, reason: str) -> None:
        """The transfer's target answered, or not: after a 2xx our part is over."""
        self._hall.tell(TransferOutcome(call.call_id, status, reason))
        if 200 <= status < 300:
            self._hang_up(call, CallEnding(End.TRANSFERRED))

    def ended(self, call: SipCall, how: CallEnding) -> None:
        if self._calls.get(call.call_id) is call:  # one that was refused may bear a living call's name
            del self._calls[call.call_id]
        if call.slot is not None:
            note("info", "call.left", call_id=call.call_id, codec=call.codec, saw=how)
            if call.packets:
                self._hall.tell(
                    LineQuality(call.call_id, call.codec, call.packets, call.lost, call.jitter_ms)
                )
            for peer in (self._hall, self._front):
                peer.tell(CallLeft(call.call_id, how))
        if call in self._graveyard:
            self._graveyard.remove(call)
        call.leave_slot()
        self.loop.later(REST_S, call.let_go)
        self._stop_if_empty()

    def _hang_up(self, call: SipCall, how: CallEnding, status: int | None = None) -> None:
        if call.over:
            return
        call.end_as(how)
        try:
            call.hangup(
                op(status or (pj.PJSIP_SC_OK if call.answered else pj.PJSIP_SC_TEMPORARILY_UNAVAILABLE))
            )
        except pj.Error as error:
            note("info", "line.hangup_late", call_id=call.call_id, error=error.reason)

    def _call(self, call_id: str) -> SipCall:
        call = self._calls.get(call_id)
        if call is None or call.over:
            raise RpcError(f"no call {call_id} on {self.plan.name}")
        return call

    # -- what the hall and the front ask -------------------------------------------------------------------

    def _for_hall(self) -> list[Handled[Wire, object]]:
        return [
            AnswerCall.handled_at_once_by(self._answer),
            RingCall.handled_at_once_by(self._ring),
            DropCall.handled_at_once_by(self._drop),
            ReferCall.handled_at_once_by(self._refer),
            DialDigits.handled_at_once_by(self._dial),
            ShowCaller.handled_at_once_by(lambda _, shown: None),  # a telephone has no screen
        ]

    def _for_front(self) -> list[Handled[Wire, object]]:
        return [
            DropCall.handled_at_once_by(self._drop),
            StopLine.handled_at_once_by(lambda _, asked: self.loop.call(self.stop)),
        ]

    def _answer(self, _: Wire, asked: AnswerCall) -> None:
        call = self._call(asked.call_id)
        if not call.answered:
            self._pj(call, call.accept)

    def _ring(self, _: Wire, asked: RingCall) -> None:
        call = self._call(asked.call_id)
        if not call.answered:
            self._pj(call, lambda: call.answer(op(pj.PJSIP_SC_RINGING)))

    def _drop(self, _: Wire, asked: DropCall) -> None:
        self._hang_up(self._call(asked.call_id), asked.how, asked.status)

    def _refer(self, _: Wire, asked: ReferCall) -> None:
        call = self._call(asked.call_id)
        self._pj(call, lambda: call.xfer(asked.target, pj.CallOpParam(True)))

    def _dial(self, _: Wire, asked: DialDigits) -> None:
        if not re.fullmatch(r"[0-9A-D*#]{1,32}", asked.digits):
            raise RpcError(f"{asked.digits!r} cannot be dialled: 1 to 32 of 0-9, A-D, *, #")
        call = self._call(asked.call_id)
        self._pj(call, lambda: call.dialDtmf(asked.digits))

    def _pj(self, call: SipCall, action: Callable[[], Any]) -> None:
        """pjsua2 raises when the call has just been cancelled, or cannot do this now."""
        try:
            action()
        except pj.Error as error:
            raise RpcError(f"call {call.call_id}: {error.reason}") from None

    # -- the house -----------------------------------------------------------------------------------------

    def _hello(self) -> Hello:
        plan = self.plan
        calls = tuple(
            LineCall(call.call_id, call.number, call.slot.index)
            for call in self._calls.values()
            if call.slot is not None
        )
        facts = LineFacts(plan.kind, plan.rate_hz, plan.hall, plan.capacity, calls, self.sip_port)
        return Hello("line", plan.name, plan.token, line=facts)

    def _hall_opened(self) -> None:
        self._hall_gone += 1  # whoever waits to give up waits in vain
        for call in self._calls.values():
            self._tell_started(call, resumed=True)

    def _hall_lost(self) -> None:
        self._close_ticks()
        self._hall_grace()

    def _hall_grace(self) -> None:
        self._hall_gone += 1
        self.loop.later(HALL_GRACE_S, self._give_up, self._hall_gone)

    def _give_up(self, gone: int) -> None:
        if gone == self._hall_gone and not self._hall.up:
            for call in list(self._calls.values()):
                note("warning", "line.hall_lost", call_id=call.call_id, hall=self.plan.hall)
                self._hang_up(call, CallEnding(End.HALL_DIED), pj.PJSIP_SC_SERVICE_UNAVAILABLE)

    def _open_ticks(self) -> None:
        if self._ticks is not None:
            return
        ticks = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        ticks.setblocking(False)
        hello = TickHello(self.plan.name, self.plan.rate_hz, self.plan.token)
        try:
            ticks.connect(str(self.plan.runtime.ticks(self.plan.hall)))
            ticks.send(told(hello))
        except OSError:
            ticks.close()
            self.loop.later(self._ticks_retry_s, self._open_ticks)
            self._ticks_retry_s = min(2 * self._ticks_retry_s, LAST_RETRY_S)
            return
        self._ticks_retry_s = FIRST_RETRY_S
        self._ticks = ticks
        self._bridge.find_hall(ticks)
        self.loop.watch(ticks.fileno(), 0, lambda _: self._close_ticks())  # a hang-up only: the clock reads

    def _close_ticks(self) -> None:
        if self._ticks is None:
            return
        self._bridge.lose_hall()
        self.loop.forget(self._ticks.fileno())
        self._ticks.close()
        self._ticks = None
        if not self._stopping:
            self.loop.later(self._ticks_retry_s, self._open_ticks)

    def _watch(self) -> None:
        """Once a second: RTP that suddenly comes from elsewhere is somebody else's, or a phone that moved. A
        caller from whom nothing comes is gone."""
        now, gone_s = time.monotonic(), self.plan.rtp_timeout_s
        for call in list(self._calls.values()):
            if call.confirmed and not call.over:
                try:
                    was = call.moved_from()
                    silent_s = call.silent_s(now)
                except pj.Error:
                    continue
                if gone_s and silent_s >= gone_s:
                    note("warning", "line.caller_gone", call_id=call.call_id, silent_s=round(silent_s, 1))
                    self._hang_up(call, CallEnding(End.SOUND_STOPPED, f"{gone_s:g} s"))
                    continue
                if was is not None:
                    note("warning", "line.rtp_moved", call_id=call.call_id, was=was, now=call.source)
                    self._hall.tell(RtpMoved(call.call_id, was, call.source))
        if dropped := self._bridge.take_dropped():
            note("warning", "line.ticks_dropped", count=dropped)
        self.loop.later(WATCH_S, self._watch)


def serve(plan: LinePlan) -> None:
    """A forked line's life. Never returns: a pj object that outlives the library would abort at exit."""
    named(plan.name)
    gc.disable()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # pjlib chats there before it can be told not to
    os.close(nowhere)
    sys.setswitchinterval(0.0005)
    code = 0
    try:
        SipLine(plan).run()
    except Exception as error:
        text = reason_of(error) if isinstance(error, pj.Error) else ""
        failure.tell(plan.runtime.failure(plan.name), error, text)
        code = 1
    os._exit(code)
