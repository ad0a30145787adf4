"""A disk that takes no more, for one process: files may grow to so many bytes and no further (RLIMIT_FSIZE).

Python ignores SIGXFSZ, so a write beyond fails as on a full disk, with "File too large" for its reason.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def full_disk(pid: int | None = None, largest_bytes: int = 0) -> Iterator[None]:
    """While it is entered, no file of that process (this one by default) grows beyond `largest_bytes`."""
    target = os.getpid() if pid is None else pid
    soft, hard = resource.prlimit(target, resource.RLIMIT_FSIZE)
    resource.prlimit(target, resource.RLIMIT_FSIZE, (largest_bytes, hard))
    try:
        yield
    finally:
        resource.prlimit(target, resource.RLIMIT_FSIZE, (soft, hard))
