"""What each Python process of a house has in use, told by a thread within it.

What a process weighs (`house_meter.pss_anon_kb`) says little of a few minutes: pages that were given back lie
there for the next one who asks, so a leak hides in them, and a process that only fills them seems to leak.
Here is what is in use: glibc's bytes, and the objects that Python keeps in pools of its own, after the
collector has run. `sitecustomize` has a process call `begin` (`benchmarks.soak_leak.injected`); the
product has no such thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache, wraps
from pathlib import Path
from typing import Final

from benchmarks import heap_lines

FOLDER_VARIABLE: Final = "HEAP_WATCH"
MALLOC_VARIABLE: Final = "GLIBC_TUNABLES"
MALLOC: Final = "glibc.malloc.tcache_count=0"
"""glibc counts as in use what each thread keeps for itself of what it has given back, up to 230 kB of each: a
process seems to grow while its threads gather that. So none keeps any while a house is watched."""
LOOK_S: Final = 0.2
ASKED: Final = "asked"
"""The file with the number of the question."""
THREADLESS: Final = ("redis_server", "gateway.run.zygote")
"""Who becomes another program; who is forked, which a thread would not survive."""


class _Mallinfo2(ctypes.Structure):
    """`struct mallinfo2` of malloc.h."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
            "keepcost",
        )
    )  # fmt: skip


def in_use() -> tuple[float, int]:
    """(kB of glibc's, objects of Python's small ones) after the collector has run. Raises `AttributeError`
    where the C library does not tell."""
    gc.collect()
    _fill_numpy()
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _Mallinfo2
    told = mallinfo2()
    return (told.uordblks + told.hblkhd) / 1024, sys.getallocatedblocks()


@cache
def _fill_numpy() -> None:
    """numpy keeps seven blocks of each size below 1 kB, 3.7 MB when it has met all sizes: it has them now."""
    if "numpy" in sys.modules:
        empty, byte = sys.modules["numpy"].empty, sys.modules["numpy"].uint8
        for size in range(1, 1024):
            _ = [empty(size, byte) for _ in range(7)]


def begin(process: str = "", words: Sequence[str] = ()) -> None:
    """Tells it whenever `ask` does, if this is a process that shall.

    `process`: its name in the house, and `words` what it was asked for; without them it is one that was
    started by itself, as the supervisor is.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder and not any(name in word for word in words or sys.orig_argv for name in THREADLESS):
        (Path(folder) / str(os.getpid())).write_text("0 0 0")
        threading.Thread(target=_tell, args=(Path(folder), process), name="heap-watch", daemon=True).start()


def watching(live: Callable[..., int]) -> Callable[..., int]:
    """`gateway.run.entry.live`, which each process of the house is forked into, with a thread that tells."""

    @wraps(live)
    def lived(failure: Path, place: str, argv: list[str]) -> int:
        begin(failure.stem, [place])
        return live(failure, place, argv)

    return lived


def _tell(folder: Path, process: str) -> None:
    answered = "0"
    with contextlib.suppress(AttributeError, OSError):  # OSError: the run is over
        while True:
            time.sleep(LOOK_S)
            asked = (folder / ASKED).read_text() if (folder / ASKED).exists() else answered
            if asked == answered:
                continue
            answered, (kb, objects) = asked, in_use()
            heap_lines.look(folder, asked, process)
            fresh = folder / f"{os.getpid()}.new"
            fresh.write_text(f"{asked} {kb} {objects}")
            fresh.rename(folder / str(os.getpid()))


def ask(folder: Path, number: int) -> None:
    """Has every process tell it once more; `number` is another one each time, from 1."""
    fresh = folder / f"{ASKED}.new"
    fresh.write_text(str(number))
    fresh.rename(folder / ASKED)


def tells(folder: Path, pid: int) -> bool:
    """Whether it is a process that tells."""
    return (folder / str(pid)).exists()


def told(folder: Path, pid: int, number: int) -> tuple[float, float] | None:
    """(kB, objects) as a process that tells answered question `number`; None: it has not yet."""
    asked, kb, objects = (folder / str(pid)).read_text().split()
    return (float(kb), float(objects)) if int(asked) == number else None
