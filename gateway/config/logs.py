"""The log file of a gateway that was started from a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Final, TextIO

LIMIT: Final = 50 * 1024 * 1024
"""Bytes of a log file; a larger one is put aside at the next start."""


def open_file(path: Path) -> TextIO:
    """The log file at `path`, to append to."""
    if path.exists() and path.stat().st_size > LIMIT:
        path.replace(path.with_suffix(".log.1"))
    return path.open("a", buffering=1)
