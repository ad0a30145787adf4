"""Files for their owner alone: an operator's secrets, which are never quoted, and what we keep ourselves."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from gateway.errors import SettingsError

OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
LONGEST: Final = 64 * 1024
"""Bytes of a file that holds a secret in text."""


def secret_in(file: Path, most: int = LONGEST) -> bytes:
    """What the file holds, if its owner alone may read it.

    Raises `ValueError`, which says what is wrong and what to do: others may read it, it has more than `most`
    bytes, or it cannot be read.
    """
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            found = opened.read(most + 1)
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    if mode & OTHERS:
        raise ValueError(f"others can read {file}; make it its owner's alone: chmod 600 {file}")
    if len(found) > most:
        raise ValueError(f"{file} has more than {most} bytes")
    return found


def private_bytes(setting: str, path: Path, most: int) -> bytes:
    """The same of the file that a setting names. Raises `SettingsError`."""
    try:
        return secret_in(path, most)
    except ValueError as error:
        raise SettingsError(f"{setting}: {error}") from None


def write_private(path: Path, text: str, *, new: bool = False) -> None:
    """Writes all or nothing, on disk when it returns; others can never read it, not even for a moment.

    Raises `OSError`; with `new`, `FileExistsError` where there is a file already.
    """
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
    try:
        with os.fdopen(fd, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if new:
            os.link(temporary, path)
        else:
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
