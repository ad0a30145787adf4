"""Reads a file that holds a secret, and takes it only where its owner alone may read it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

LONGEST: Final = 64 * 1024
"""Bytes that are read."""


def secret_in(file: Path) -> str:
    """The file's text. Raises `ValueError`, which says what is wrong and what to do."""
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            text = opened.read(LONGEST).decode()
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{file} cannot be read: it is not text") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ValueError(f"others may read {file}; make it its owner's alone: chmod 600 {file}")
    return text
