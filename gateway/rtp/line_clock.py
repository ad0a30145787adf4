"""The clock of a line: at each multiple of 20 ms what the hall answered to the last tick goes out, and a new
tick begins.

All lines of a machine have the same one, since it is the machine's monotonic clock. To wake costs a process
as much as the sound of several calls, so it wakes once a tick. The hall has 20 ms for its answer: most of
them are there in 5, but what comes later than it is awaited is jitter to the caller, whose buffer grows by it
and stays so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from gateway.ipc.tick import FRAME_S

SOON_S: Final = 0.01
"""After ticks that a stall made late: when their sound goes out."""
MOST_TICKS_AT_ONCE: Final = 5
"""Ticks made up for after a stall; what lies further back is gone."""


class LineClock:
    """`send` is called with the numbers of the ticks whose frames go out, `tick` with each new one's."""

    def __init__(self, tick: Callable[[int], None], send: Callable[[range], None]) -> None:
        self._tick = tick
        self._send = send
        self._done = 0
        """the last tick"""
        self._owed = range(0)
        """ticks whose frames have not gone out"""
        self._next: asyncio.TimerHandle | None = None
        self.late = 0
        """ticks that were made up for, or left out"""

    async def run(self, wanted: Callable[[], bool]) -> None:
        """Ticks while it is `wanted`, which is asked before each tick. Raises what a call raises."""
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()

        def turn() -> None:
            try:
                if wanted():
                    self._next = loop.call_at(self._turn(), turn)
                else:
                    over.set_result(None)
            except Exception as error:
                over.set_exception(error)

        self._done, self._owed = int(time.monotonic() / FRAME_S), range(0)
        self._next = loop.call_at((self._done + 1) * FRAME_S, turn)
        try:
            await over
        finally:
            self._next.cancel()

    def _turn(self) -> float:
        """What is due now; returns when there is something again."""
        if self._owed:
            self._send(self._owed)
            self._owed = range(0)
        due = int(time.monotonic() / FRAME_S) - self._done
        if due > 0:  # else the loop was early by a rounding, or it was time to send only
            self.late += due - 1
            self._done += max(0, due - MOST_TICKS_AT_ONCE)
            self._owed = range(self._done + 1, self._done + min(due, MOST_TICKS_AT_ONCE) + 1)
            for number in self._owed:
                self._done = number
                self._tick(number)
        return self._done * FRAME_S + (SOON_S if len(self._owed) > 1 else FRAME_S)
