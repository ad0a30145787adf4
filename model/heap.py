"""The memory of a process that is up: what it loaded is left alone, and what came after is looked after soon.

CPython 3.11 looks through all old objects only when a quarter more of them than at its last look have come. A
process has loaded hundreds of thousands by the time it is up, so what a call leaves behind that knows itself
would stay until as many calls have been, megabytes of it; and then each loaded object is looked at too, which
takes a tenth of a second. And what loading took and gave back, glibc keeps: of the embedded engine 50 MB.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
from pathlib import Path
from typing import Final

_MADV_DONTNEED: Final = 4
_MAPPING: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-.p \S+ \S+ \d+ +/")
"""A file's part that this process cannot write to, as `/proc/self/smaps` has it."""
YOUNG, MIDDLE, OLD = 700, 10, 2
"""All that came since is looked at when 14,000 objects more were made than went (`gc.set_threshold`)."""


def settle() -> None:
    """What is there now is looked at no more, and what is free goes back to the system. For a process that
    is up."""
    gc.collect()
    gc.freeze()
    gc.collect()  # of what is left, a quarter more is soon there
    gc.set_threshold(YOUNG, MIDDLE, OLD)
    with contextlib.suppress(AttributeError, OSError):  # another C library has no such function
        ctypes.CDLL(None).malloc_trim(0)


def let_go_of_libraries() -> None:
    """Takes the pages of libraries that were read, and never written, out of this process's memory.

    For a process that has imported what others need, and hardly needs it itself: 23 MB of the supervisor.
    What it does need comes back from the kernel's cache at the next touch.
    """
    with contextlib.suppress(AttributeError, OSError):  # another system
        libc = ctypes.CDLL(None)
        begin = end = 0
        for line in Path("/proc/self/smaps").read_text().splitlines():
            if (mapping := _MAPPING.match(line)) is not None:
                begin, end = int(mapping[1], 16), int(mapping[2], 16)
            elif line.startswith("Anonymous:"):  # what was written once (relocations) is there no second time
                if end and line.split()[1] == "0":
                    libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_DONTNEED)
                begin = end = 0
