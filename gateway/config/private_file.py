"""Files that hold a secret: their owner's alone, and never quoted."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final

from gateway.errors import SettingsError

OTHERS: Final = 0o077


def private_bytes(setting: str, path: Path, most: int) -> bytes:
    """What the file of that setting holds.

    Raises `SettingsError` when others may read it, or it has more than `most` bytes.
    """
    try:
        if stat.S_IMODE(path.stat().st_mode) & OTHERS:
            raise SettingsError(f"{setting}: others can read {path}; chmod 600 {path}")
        with path.open("rb") as opened:
            found = opened.read(most + 1)
    except OSError as error:
        raise SettingsError(f"{setting}: {path}: {error.strerror}") from None
    if len(found) > most:
        raise SettingsError(f"{setting}: {path} has more than {most} bytes")
    return found
