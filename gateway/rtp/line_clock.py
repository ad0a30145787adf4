"""The clock of a line: a tick at each multiple of 20 ms, and half a tick later the time to send.

All lines of a machine have the same one, since it is the machine's monotonic clock. It calls; nothing sleeps
and nothing is woken besides: each turn costs the loop one look at its descriptors.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from gateway.ipc.tick import FRAME_S

SEND_AFTER_S: Final = 0.01
"""After a tick: when its sound goes out."""
MOST_TICKS_AT_ONCE: Final = 5
"""Ticks made up for after a stall; what lies further back is gone."""


class LineClock:
    """`tick` is called with each tick's number, `send` with the numbers of those whose frames go out."""

    def __init__(self, tick: Callable[[int], None], send: Callable[[range], None]) -> None:
        self._tick = tick
        self._send = send
        self._done = 0
        """the last tick"""
        self._owed = range(0)
        self._next: asyncio.TimerHandle | None = None
        self.late = 0
        """ticks that were made up for, or left out"""

    async def run(self, wanted: Callable[[], bool]) -> None:
        """Ticks while it is `wanted`, which is asked before each tick. Raises what a call raises."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._done = int(time.monotonic() / FRAME_S)
        self._at((self._done + 1) * FRAME_S, self._turn, over, wanted)
        try:
            await over
        finally:
            if self._next is not None:
                self._next.cancel()

    def _at(self, at: float, call: Callable[..., None], *args: object) -> None:
        self._next = asyncio.get_running_loop().call_at(at, call, *args)

    def _turn(self, over: asyncio.Future[None], wanted: Callable[[], bool]) -> None:
        if not wanted():
            over.set_result(None)
            return
        due = int(time.monotonic() / FRAME_S) - self._done
        if due < 1:  # the loop was early by a rounding
            self._at((self._done + 1) * FRAME_S, self._turn, over, wanted)
            return
        self.late += due - 1
        self._done += max(0, due - MOST_TICKS_AT_ONCE)
        self._owed = range(self._done + 1, self._done + min(due, MOST_TICKS_AT_ONCE) + 1)
        try:
            for self._done in self._owed:
                self._tick(self._done)
        except Exception as error:
            over.set_exception(error)
            return
        self._at(self._done * FRAME_S + SEND_AFTER_S, self._half, over, wanted)

    def _half(self, over: asyncio.Future[None], wanted: Callable[[], bool]) -> None:
        try:
            self._send(self._owed)
        except Exception as error:
            over.set_exception(error)
            return
        self._at((self._done + 1) * FRAME_S, self._turn, over, wanted)
