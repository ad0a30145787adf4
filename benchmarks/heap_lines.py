"""Which lines of source hold more of a process's memory after each call, for `benchmarks.soak --lines`.

`benchmarks.heap_watch` tells that a process grows, this tells where: tracemalloc begins in each process at
its first rest, so that what was loaded is not looked at, and says at each later rest how much of what was
taken since is still held, by the lines that took it. That costs much of the speed and some MB, so a soak that
looks for lines says nothing of times. This module is imported by each process of the house: it needs nothing.
"""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Final

VARIABLE: Final = "HEAP_LINES"
"""The names of the processes that look, with spaces between them."""
FRAMES: Final = 5
"""Lines of a stack: who asked whom for it."""

Lines = dict[str, float]
"""kB by stack, the innermost line last."""


def look(folder: Path, number: str, process: str) -> None:
    """Begins at the first question, and writes what is held at each later one; if this process is to look."""
    if process not in os.environ.get(VARIABLE, "").split():
        return
    if not tracemalloc.is_tracing():
        tracemalloc.start(FRAMES)
        return
    snapshot = tracemalloc.take_snapshot().filter_traces(
        [
            tracemalloc.Filter(False, tracemalloc.__file__),
            tracemalloc.Filter(False, "*/heap_*.py", all_frames=True),
        ]
    )
    held: Lines = {}
    for each in snapshot.statistics("traceback"):
        where = " > ".join(f"{_short(frame.filename)}:{frame.lineno}" for frame in each.traceback)
        held[where] = held.get(where, 0.0) + each.size / 1024
    (folder / f"{os.getpid()}.{number}.lines").write_text(json.dumps(held))


def _short(filename: str) -> str:
    return "/".join(Path(filename).parts[-3:])


def told(folder: Path, pid: int, number: int) -> Lines | None:
    """What that process said at that question; None: nothing."""
    path = folder / f"{pid}.{number}.lines"
    return json.loads(path.read_text()) if path.exists() else None
