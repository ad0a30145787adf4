"""How long a thread waited, whatever the machine does.

A wall clock also counts the time in which others had the processor. What was promised ("nobody waits here")
is about waiting, and the kernel tells waiting from standing in line for a processor.
"""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Self

_SCHEDULED = Path("/proc/thread-self/schedstat")  # nanoseconds on a processor, and in line for one


def _busy_s() -> float:
    running, in_line, _ = _SCHEDULED.read_text().split() if _SCHEDULED.exists() else (0, 0, 0)
    return (int(running) + int(in_line)) / 1e9


class Slept:
    """`with Slept() as slept: ...`; then `slept.seconds` is how long this thread waited for something."""

    seconds = 0.0

    def __enter__(self) -> Self:
        self._wall, self._busy = time.perf_counter(), _busy_s()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wall, busy = time.perf_counter() - self._wall, _busy_s() - self._busy
        self.seconds = max(0.0, wall - busy)
