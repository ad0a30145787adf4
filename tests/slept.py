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


def in_line_s() -> float:
    """Seconds that this thread was ready and had no processor; 0 where the kernel does not say."""
    return int(_SCHEDULED.read_text().split()[1]) / 1e9 if _SCHEDULED.exists() else 0.0


class Slept:
    """`with Slept() as slept: ...`; then `slept.seconds` is how long this thread waited for something."""

    seconds = 0.0

    def __enter__(self) -> Self:
        self._wall, self._busy = time.perf_counter(), time.thread_time() + in_line_s()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wall = time.perf_counter() - self._wall
        busy = time.thread_time() + in_line_s() - self._busy
        self.seconds = max(0.0, wall - busy)
