"""A line for telephones, which has as many calls as it is told to.

INVITEs that the edge has signed become calls; it answers SIP itself (`gateway.rtp.dialogs.callee`), tells the
hall of them, and has the sound of all its calls in one pass (`gateway.rtp.media.media_pass`). A process has
one line at 8 kHz and one at 16 (`gateway.rtp.sip_process`).

The clock is the machine's monotonic one in whole ticks, which all lines share (`gateway.rtp.line_clock`). At
a tick what the hall answered to the one before goes out, and the sound of the callers goes to the hall; what
the hall answers later is sent when it comes.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import time
from typing import Final

import structlog

from gateway.errors import LineError, RpcError
from gateway.ipc import tick
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.hello import LineCall, LineFacts
from gateway.ipc.line_messages import (
    AnswerCall,
    BridgeTarget,
    CallTarget,
    DialDigits,
    DropCall,
    ProgressCall,
    ReferCall,
    RingCall,
    ShowCaller,
)
from gateway.ipc.rpc import Peer
from gateway.line.joined_house import Handling, JoinedHouse
from gateway.rtp.dialogs.callees import Callees
from gateway.rtp.line_clock import LineClock
from gateway.rtp.line_plan import LinePlan
from gateway.rtp.media.media_pass import MediaPass
from gateway.rtp.media.socket_pair import Arrival
from model.tasks import Tasks, failed

GOODBYE_S: Final = 1.0
"""How long a stopping line waits for the answers to its BYEs."""
WATCH_S: Final = 1.0
MOST_KEYS: Final = 32
"""That are dialled at once."""
REPORT_EVERY: Final = 10
"""Ticks between two looks at which RTCP reports are due."""

log = structlog.get_logger("rtp")


class RtpLine:
    """One line. `run` returns after `stop`, with every call ended."""

    def __init__(self, plan: LinePlan) -> None:
        self.plan = plan
        self._parent = os.getppid()
        self.ticks_dropped = 0
        self._clock = LineClock(self._tick, self._send)
        self._pass = MediaPass(plan.rate_hz, 2 * plan.capacity, Arrival())  # each may have a target
        self._house = JoinedHouse(self, plan.runtime, plan.name, plan.token)
        self._callees = Callees(plan, self._pass, self._house)
        self._awaiting = False
        """the loop looks for the hall's answer, which is late"""
        self._tasks = Tasks()

    async def run(self) -> None:
        """Serves until `stop`. Raises `LineError` when its SIP port is taken."""
        await self._callees.open()
        self._tasks.lasting(self._house.keep_front, "rtp.front")
        self._tasks.lasting(self._house.keep_hall, "rtp.hall")
        self._tasks.lasting(self._watch, "rtp.watch")
        self._tasks.vital(self._tick_on, "rtp.ticks")  # without it nobody hears anything
        log.info(
            "line.up",
            line=self.plan.name, kind=self.plan.kind, sip_port=self._callees.sip_port, hall=self.plan.hall,
        )  # fmt: skip
        try:
            await self._house.stop_asked.wait()
        finally:
            orphaned = os.getppid() != self._parent  # nobody stopped the gateway, its supervisor crashed
            await self._callees.stop(End.LINE_DIED if orphaned else End.GATEWAY_STOPPED, GOODBYE_S)
            await self._tasks.stop()
            self._house.close()
            self._pass.close()
            await self._callees.close()

    def stop(self) -> None:
        """BYE to every call, then the end."""
        self._house.stop()

    # ── its front and its hall (`JoiningLine`) ───────────────────────────────────────────────────────

    def facts(self) -> LineFacts:
        """See `JoiningLine`."""
        plan = self.plan
        calls = tuple(
            LineCall(call.call_id, call.number, call.slot) for call in self._callees.by_call.values()
        )
        return LineFacts(
            plan.kind, plan.rate_hz, plan.hall, plan.capacity, calls, self._callees.sip_port, plan.process
        )

    def from_front(self) -> Handling:
        """See `JoiningLine`."""
        return [DropCall.handled_by(self._drop)]

    def from_hall(self) -> Handling:
        """See `JoiningLine`."""
        return [
            AnswerCall.handled_by(self._answer),
            RingCall.handled_by(self._ring),
            ProgressCall.handled_by(self._progress),
            DropCall.handled_by(self._drop),
            ReferCall.handled_by(self._refer),
            CallTarget.handled_by(self._call_target),
            BridgeTarget.handled_by(self._bridge_target),
            DialDigits.handled_by(self._dial),
            ShowCaller.handled_by(self._show),
        ]

    def hall_joined(self, ticks: socket.socket) -> None:
        """See `JoiningLine`."""
        for callee in self._callees.by_call.values():
            self._callees.tell_started(callee, resumed=True)

    def ticks_lost(self, ticks: socket.socket) -> None:
        """See `JoiningLine`."""
        self._await_no_more(ticks)
        self._pass.lose_hall()

    def hall_given_up(self) -> None:
        """See `JoiningLine`."""
        for callee in list(self._callees.by_call.values()):
            callee.hang_up(CallEnding(End.HALL_DIED), 503)

    # ── what the hall and the front ask ──────────────────────────────────────────────────────────────

    async def _answer(self, _: Peer, asked: AnswerCall) -> None:
        self._callees.named(asked.call_id).accept()

    async def _ring(self, _: Peer, asked: RingCall) -> None:
        self._callees.named(asked.call_id).ring()

    async def _progress(self, _: Peer, asked: ProgressCall) -> bool:
        return self._callees.named(asked.call_id).progress()

    async def _drop(self, _: Peer, asked: DropCall) -> None:
        if self._callees.bridges(asked.call_id):
            self._callees.drop_bridged(asked.call_id)
            return
        self._callees.named(asked.call_id).hang_up(asked.how, asked.status)

    async def _refer(self, _: Peer, asked: ReferCall) -> None:
        try:
            self._callees.named(asked.call_id).refer(asked.target)
        except ValueError as error:
            raise RpcError(f"call {asked.call_id}: {error}") from None

    async def _call_target(self, _: Peer, asked: CallTarget) -> None:
        try:
            self._callees.call_target(asked.call_id, asked.target, asked.within_s)
        except LineError as error:
            raise RpcError(f"call {asked.call_id}: {error}") from None

    async def _bridge_target(self, _: Peer, asked: BridgeTarget) -> int:
        try:
            return self._callees.bridge_target(asked.call_id, asked.target, asked.within_s, asked.port)
        except LineError as error:
            raise RpcError(f"call {asked.call_id}: {error}") from None

    async def _dial(self, _: Peer, asked: DialDigits) -> None:
        if self._callees.bridges(asked.call_id):
            for digit in asked.digits[:MOST_KEYS]:
                self._callees.targets.press(asked.call_id, digit)
            return
        callee = self._callees.named(asked.call_id)
        if not 1 <= len(asked.digits) <= MOST_KEYS or set(asked.digits) - set("0123456789ABCD*#"):
            raise RpcError(f"{asked.digits!r} cannot be dialled: 1 to 32 of 0-9, A-D, *, #")
        try:
            callee.dial(asked.digits)
        except ValueError as error:
            raise RpcError(f"call {asked.call_id}: {error}") from None

    async def _show(self, _: Peer, asked: ShowCaller) -> None:
        """A telephone has no screen."""

    # ── the clock ────────────────────────────────────────────────────────────────────────────────────

    async def _tick_on(self) -> None:
        """Each 20 ms while a call has sound: what the hall answered goes out, and a tick begins."""
        while True:
            await self._pass.begins()
            await self._clock.run(lambda: bool(self._pass.calls))

    @property
    def ticks_late(self) -> int:
        """Ticks that were made up for after a stall, or left out."""
        return self._clock.late

    def _tick(self, number: int) -> None:
        packet, ticks = self._pass.hear(), self._house.ticks
        if packet is not None and ticks is not None:
            try:
                ticks.send(packet)
                self._pass.note_ticked()
            except BlockingIOError:
                self.ticks_dropped += 1
            except OSError:
                pass  # the hall went; its connection says so
        if number % REPORT_EVERY == 0:
            self._pass.report(number)

    def _send(self, owed: range) -> None:
        """What the hall has answered by now goes out; what it has not is awaited. No answer wakes the line
        that comes in time."""
        try:
            self._answered()
        except Exception as error:  # callers hear silence, and not nothing
            failed("rtp.answers", error)
        ticks = self._house.ticks
        self._pass.owe(owed, answered=ticks is not None)
        if ticks is not None and self._pass.awaits_hall and not self._awaiting:
            self._awaiting = True
            asyncio.get_running_loop().add_reader(ticks, self._answered)

    def _answered(self) -> None:
        while (ticks := self._house.ticks) is not None:
            try:
                packet = ticks.recv(tick.MAX_PACKET)
                if not packet:
                    raise ConnectionResetError("the hall closed the tick socket")
                self._pass.take(packet)
            except BlockingIOError:
                if self._awaiting and not self._pass.awaits_hall:
                    self._await_no_more(ticks)
                return
            except LineError as error:
                log.warning("ticks.broken", error=str(error))
            except OSError:
                self._house.break_with_hall()

    def _await_no_more(self, ticks: socket.socket) -> None:
        if self._awaiting:
            self._awaiting = False
            asyncio.get_running_loop().remove_reader(ticks)

    async def _watch(self) -> None:
        """Once a second: a caller from whom nothing comes is gone; the hall hears how calls sound."""
        for second in itertools.count():
            await asyncio.sleep(WATCH_S)
            self._callees.tell_qualities(second)
            now, gone_s = time.monotonic(), self.plan.rtp_timeout_s
            for callee in list(self._callees.by_call.values()):
                silent_s = self._callees.silent_s(callee, now)
                if gone_s and silent_s >= gone_s:
                    log.warning("line.caller_gone", call_id=callee.call_id, silent_s=round(silent_s, 1))
                    callee.hang_up(CallEnding(End.SOUND_STOPPED, f"{gone_s:g} s"))
            self._callees.targets.watch(now, gone_s)
            if self.ticks_dropped:
                log.warning("line.ticks_dropped", count=self.ticks_dropped)
                self.ticks_dropped = 0
