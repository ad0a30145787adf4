"""Where ticks arrive: a SOCK_SEQPACKET server; each line that says hello is a `TickLine`.

Ticks are gathered until every line that ticks has ticked, or `GATHER_S` after the first one, then handed over
together: one pass over all calls. How long that took, and how late it was, is noted (`pass_times`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from gateway.errors import LineError, RpcError
from gateway.hall.calls.pass_times import PassTimes
from gateway.hall.media.audio import FRAME_S
from gateway.hall.parts.clocks import Clocks
from gateway.ipc import tick
from gateway.ipc.codec import unpacked
from gateway.ipc.hello import TickHello, admitted
from model.tasks import Tasks, failures

RATES_HZ: Final = (8_000, 16_000, 48_000)
GATHER_S: Final = 0.003
LIVELY_S: Final = 0.03
"""A line that ticked within this will tick again now."""
FAILED_EVERY_S: Final = 1.0
"""A turn that fails is said so often, not fifty times a second."""
MOST_FAILED: Final = 250
"""Turns that fail one after the other (5 s of one line's) end the process; its calls are taken up again."""
RESTED_S: Final = 0.5
"""A line that has not ticked for so long had no call: it is not late."""
BACKLOG_TICKS: Final = 50
"""A line one second ahead of us is answered by dropping what is old."""

log = structlog.get_logger("ticks")


class TickLine:
    """One line's end of the tick socket."""

    def __init__(self, name: str, rate_hz: int, sock: socket.socket) -> None:
        self.name = name
        self.rate_hz = rate_hz
        self.sock = sock
        self.waiting: list[tick.Tick] = []
        self.ticked_at = 0.0
        """when it last ticked, monotonic"""
        self.late = 0
        """ticks that were answered together with a newer one: the hall was late"""

    def take_waiting(self) -> list[tick.Tick]:
        """The ticks that nobody answered yet, the oldest first."""
        waiting, self.waiting = self.waiting, []
        return waiting

    def count_late(self, ticks: int) -> None:
        """`ticks` more were answered together with a newer one."""
        self.late += ticks

    def answer(self, packet: bytes) -> None:
        with contextlib.suppress(BlockingIOError, OSError):  # a line that is gone or stuck loses a frame
            self.sock.send(packet)


class TickServer:
    """`turn` is called with the lines that have ticks waiting."""

    def __init__(
        self, path: Path, token: str, turn: Callable[[list[TickLine]], None], *, clocks: Clocks = time
    ) -> None:
        self._path = path
        self._token = token
        self._turn = turn
        self._clocks = clocks
        self._listener: socket.socket | None = None
        self._ready: list[TickLine] = []
        self._expected = 0
        """lines that ticked within the last frame or two"""
        self._gathering: asyncio.TimerHandle | None = None
        self._failed_at = 0.0
        self._failed_passes = 0
        """one after the other"""
        self._late_s = 0.0
        """by how much the latest of the lines that are ready was"""
        self._tasks = Tasks()
        self.times = PassTimes()
        self.lines: dict[str, TickLine] = {}

    async def start(self) -> None:
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.setblocking(False)
        listener.bind(str(self._path))
        os.chmod(self._path, 0o600)
        listener.listen(64)
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            sock, _ = listener.accept()
            sock.setblocking(False)
            self._tasks.short(self._greet(sock), "ticks.greet")

    async def _greet(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(2.0):
                said = unpacked(await loop.sock_recv(sock, 4096))
            hello = admitted(TickHello, said, self._token)
            if hello.rate_hz not in RATES_HZ:
                raise RpcError(f"no line ticks at {hello.rate_hz} Hz")
        except (OSError, RpcError, TimeoutError) as error:
            log.warning("tick.refused", error=str(error) or type(error).__name__)
            sock.close()
            return
        line = TickLine(hello.name, hello.rate_hz, sock)
        if (before := self.lines.get(line.name)) is not None:
            self._gone(before)
        self.lines[line.name] = line
        loop.add_reader(sock, self._readable, line)

    def _readable(self, line: TickLine) -> None:
        fresh = not line.waiting
        while True:
            try:
                packet = line.sock.recv(tick.MAX_PACKET)
                if not packet:
                    self._gone(line)
                    return
                line.waiting.append(tick.unpack(packet))
            except BlockingIOError:
                break
            except (LineError, OSError) as error:
                log.warning("tick.broken", line=line.name, error=str(error))
                self._gone(line)
                return
        del line.waiting[:-BACKLOG_TICKS]
        if not line.waiting:
            return
        now = self._clocks.monotonic()
        apart_s, line.ticked_at = now - line.ticked_at, now
        if not fresh:
            return
        if apart_s > RESTED_S:  # what waited together says by itself how late it is
            apart_s = len(line.waiting) * FRAME_S
        self._late_s = max(self._late_s, apart_s - FRAME_S)
        if not self._ready:
            self._expected = sum(now - known.ticked_at < LIVELY_S for known in self.lines.values())
            self._gathering = asyncio.get_running_loop().call_later(GATHER_S, self._gathered)
        self._ready.append(line)
        if len(self._ready) >= self._expected:
            self._gathered()

    def _gathered(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        ready, self._ready = self._ready, []
        late_s, self._late_s = self._late_s, 0.0
        began_at, began = self._clocks.monotonic(), time.perf_counter()
        try:
            self._turn([line for line in ready if line.waiting])
            self._failed_passes = 0
        except Exception as error:
            failures["hall.ticks"] += 1
            self._failed_passes += 1
            if self._failed_passes >= MOST_FAILED:  # nobody hears anything, and another hall may do better
                log.exception("tick.turn_failed")
                raise SystemExit(f"each pass over the calls fails: {type(error).__name__}: {error}") from None
            if (now := self._clocks.monotonic()) - self._failed_at > FAILED_EVERY_S:
                self._failed_at = now
                log.exception("tick.turn_failed")
        self.times.note(began_at, late_s, time.perf_counter() - began)
        for line in ready:  # a tick left over would be waited for and never served
            line.waiting.clear()

    def _gone(self, line: TickLine) -> None:
        asyncio.get_running_loop().remove_reader(line.sock)
        line.sock.close()
        line.waiting.clear()
        if self.lines.get(line.name) is line:
            del self.lines[line.name]

    async def stop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._listener is not None:
            loop.remove_reader(self._listener)
            self._listener.close()
        await self._tasks.stop()
        for line in list(self.lines.values()):
            self._gone(line)
        self._path.unlink(missing_ok=True)
