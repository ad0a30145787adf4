"""Cursors of lists: where a page begins or ends, good for the list, search and order that it was made for.

A cursor holds no number of a caller: it may stand in an address and in logs. Its check sum keeps nobody out,
it tells an honest mistake.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Self

_CURSOR: Final = re.compile(r"([0-9a-f]{12})~([fb])([0-9])~([A-Za-z0-9._~-]{1,64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class ListCursor:
    """What comes after the entry at `place` (`backwards`: before it); `part` is that of the list with it."""

    backwards: bool
    part: int
    place: str

    @classmethod
    def read(cls, text: str, of: object) -> Self:
        """What `write` wrote. Raises `ValueError` for anything else, or for another list's."""
        found = _CURSOR.fullmatch(text)
        if found is None:
            raise ValueError("that is not a cursor of this list")
        cursor = cls(found[2] == "b", int(found[3]), found[4])
        if cursor.write(of) != text:
            raise ValueError("that cursor is of another search, order or list: begin anew, without a cursor")
        return cursor

    def write(self, of: object) -> str:
        """As text; `of` says, by its `repr`, which list, search and order it is good for."""
        said = f"{'b' if self.backwards else 'f'}{self.part}~{self.place}"
        return f"{hashlib.sha256(f'{of!r}~{said}'.encode()).hexdigest()[:12]}~{said}"
