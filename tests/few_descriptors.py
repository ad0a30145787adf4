"""A process that may open so many files more, and no others (RLIMIT_NOFILE)."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def spare_descriptors(count: int, pid: int | None = None) -> Iterator[None]:
    """While it is entered, that process (this one by default) may open `count` more.

    Numbers that are free below its highest one count too, so they are few, but not exactly `count`, in
    another process.
    """
    target = os.getpid() if pid is None else pid
    soft, hard = resource.prlimit(target, resource.RLIMIT_NOFILE)
    held = [int(path.name) for path in Path(f"/proc/{target}/fd").iterdir()]
    filled = []
    if pid is None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1 + count, hard))
        try:
            while True:
                filled.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            for _ in range(count):
                os.close(filled.pop())
    else:
        resource.prlimit(target, resource.RLIMIT_NOFILE, (len(held) + count, hard))
    try:
        yield
    finally:
        resource.prlimit(target, resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in filled:
            os.close(descriptor)
