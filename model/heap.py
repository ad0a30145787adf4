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
