"""Time that jumps to the next thing that is to happen, for test modules that say `HOUSE_TIME = True`.

A minute of telephone takes as long as its work, and nothing depends on how busy the machine is. All that a
test waits for must live in its own event loop; sockets between its parts may be real, on loopback.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

TICK_S = 1e-9
"""What one pass of the loop takes, so that what asks again after a rounding is done some time."""


class _Jumping(selectors.DefaultSelector):  # type: ignore[misc]  # chosen at run time
    """Never waits: when nothing is ready, it is later at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0  # whatever the machine's: the same roundings everywhere

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        self.now += TICK_S
        if not ready and timeout is None:
            raise RuntimeError("nothing will ever happen here")
        if not ready and timeout is not None and timeout > 0:
            self.now += timeout
        return list(ready)


class HouseLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is `clock.now`; what is given to a thread is done at once.

    While it runs, `time.monotonic` and `time.time` are its own for the whole process.
    """

    def __init__(self) -> None:
        self.clock = _Jumping()
        super().__init__(self.clock)
        self._off = time.time() - self.clock.now

    def time(self) -> float:
        return self.clock.now

    def wall(self) -> float:
        return self.clock.now + self._off

    def set_wall(self, by_s: float) -> None:
        """Somebody sets the machine's clock: `wall` and `time.time` jump, `time` does not."""
        self._off += by_s

    def run_forever(self) -> None:
        with mock.patch.multiple(time, monotonic=self.time, time=self.wall):
            super().run_forever()

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future
