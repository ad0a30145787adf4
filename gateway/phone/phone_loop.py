"""The phone's own turn: one thread that waits for the clock, and for what callbacks hand over.

pjsua2 is asked here or inside one of its callbacks, never from a third thread: a call from a thread that the
library does not know aborts the process.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import select
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from gateway.config.notes import note

Task = tuple[Callable[..., Any], tuple[Any, ...]]

IDLE_S: Final = 60.0
"""Longest wait with nothing due; only a bound."""


class Loop:
    """Runs in the thread that calls `run`. Only `call` and `stop` may be used from other threads."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._handed: deque[Task] = deque()
        self._timers: list[tuple[float, int, Task]] = []
        self._order = itertools.count()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll.register(self._wake, select.POLLIN)
        self._running = True

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Runs `function` in the loop's thread, in the order of the calls. Any thread may ask."""
        self._handed.append((function, args))
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._wake, 1)

    def later(self, delay_s: float, function: Callable[..., Any], *args: Any) -> None:
        """Runs `function` in the loop's thread after `delay_s`."""
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._order), (function, args)))

    def stop(self) -> None:
        """Ends `run` after its present round. Any thread may ask."""
        self._running = False
        self.call(lambda: None)

    def run(self) -> None:
        """Does what is due until `stop` is called."""
        while self._running:
            wait_s = self._timers[0][0] - time.monotonic() if self._timers else IDLE_S
            if self._poll.poll(max(0.0, wait_s) * 1000.0):
                os.eventfd_read(self._wake)
            while self._handed:
                self._do(*self._handed.popleft())
            while self._timers and self._timers[0][0] <= time.monotonic():
                self._do(*heapq.heappop(self._timers)[2])

    def _do(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            function(*args)
        except Exception as error:  # one call's mistake must not end the other three
            note("error", "phone.task_failed", error=f"{type(error).__name__}: {error}", task=repr(function))
