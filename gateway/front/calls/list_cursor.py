"""Cursors of lists: where a page begins or ends, good for the list, search and order that it was made for.

A cursor holds no number of a caller: it may stand in an address and in logs. Its check sum keeps nobody out,
it tells an honest mistake.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
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

    @staticmethod
    def around(
        at: ListCursor | None, entries: Sequence[tuple[int, str]], of: object, *, more: bool
    ) -> tuple[str | None, str | None]:
        """The cursors of the pages after and before a page; None where there is none.

        `at`: by which it was read; `entries`: part and place of each entry on it, in the list's order;
        `more`: there are further ones in the direction in which it was read.
        """
        back = at is not None and at.backwards
        if not entries:
            return None, None if at is None or back else ListCursor(True, at.part, at.place).write(of)
        (first, top), (last, bottom) = entries[0], entries[-1]
        has_before = more if back else at is not None
        return (
            ListCursor(False, last, bottom).write(of) if more or back else None,
            ListCursor(True, first, top).write(of) if has_before else None,
        )

    def write(self, of: object) -> str:
        """As text; `of` says, by its `repr`, which list, search and order it is good for."""
        said = f"{'b' if self.backwards else 'f'}{self.part}~{self.place}"
        return f"{hashlib.sha256(f'{of!r}~{said}'.encode()).hexdigest()[:12]}~{said}"
