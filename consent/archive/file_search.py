"""Every byte of every file below a folder, searched for what should be gone from there."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CHUNK: Final = 1 << 20
SHORTEST: Final = 4
"""Bytes below which a form would be found by chance in any large file."""
SHORTEST_CODED: Final = 8
"""The same for base64, whose characters are a quarter of all bytes' worth."""


@dataclass(frozen=True, slots=True)
class PlaceSearched:
    """A file, or a folder that could not be read.

    `left` names what of the things sought is in it; `unread` says why it was not searched.
    """

    path: str
    """from the folder"""
    left: tuple[str, ...] = ()
    unread: str = ""


def in_writing(text: str) -> list[bytes]:
    """The forms in which programs write a text: UTF-8, UTF-16, JSON with escapes, and base64 of the first.

    A text within a longer one has three forms in base64, by where it begins; of each the characters that
    depend on it alone are sought (RFC 4648 §4, §5).
    """
    plain = text.encode()
    escaped = json.dumps(text)[1:-1].encode()
    forms = {plain, escaped, text.encode("utf-16-le")}
    for whole in (plain, escaped):
        for before in range(3):
            coded = base64.b64encode(b"\0" * before + whole)
            inner = coded[-(-before * 8 // 6) : (before + len(whole)) * 8 // 6]
            if len(inner) >= SHORTEST_CODED:
                forms |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return sorted(form for form in forms if len(form) >= SHORTEST)


def search_files(folder: Path, sought: Mapping[str, Sequence[bytes]]) -> Iterator[PlaceSearched]:
    """Searches the regular files below `folder`, by name. Nothing that cannot be read ends the search.

    A folder that cannot be read is a place too; what goes while we look is passed over.
    """
    unread: list[OSError] = []
    paths = [
        Path(inner, name) for inner, _, names in os.walk(folder, onerror=unread.append) for name in names
    ]
    for error in unread:
        if not isinstance(error, FileNotFoundError):
            yield _unread(Path(error.filename).relative_to(folder), error)
    for path in sorted(paths):
        try:
            if not stat.S_ISREG(path.lstat().st_mode):
                continue
            left = _within(path, sought)
        except FileNotFoundError:
            continue
        except OSError as error:
            yield _unread(path.relative_to(folder), error)
        else:
            yield PlaceSearched(str(path.relative_to(folder)), left)


def _unread(path: Path, error: OSError) -> PlaceSearched:
    return PlaceSearched(str(path), unread=error.strerror or str(error))


def _within(path: Path, sought: Mapping[str, Sequence[bytes]]) -> tuple[str, ...]:
    longest = max((len(form) for forms in sought.values() for form in forms), default=1)
    missing = dict(sought)
    tail = b""
    with path.open("rb") as file:
        while missing and (chunk := file.read(CHUNK)):
            window = tail + chunk
            for name in [name for name, forms in missing.items() if any(form in window for form in forms)]:
                del missing[name]
            tail = window[-(longest - 1) :] if longest > 1 else b""
    return tuple(name for name in sought if name not in missing)
