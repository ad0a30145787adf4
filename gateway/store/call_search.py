"""Which calls of the registry an operator asks for, and how that is asked in SQL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Table, case, func, or_

SEPARATORS: Final = " \t-+./()"
"""What people write between the digits of a number, or before them (RFC 3966 §5.1.1)."""
_NUMBER: Final = re.compile(r"[0-9*#]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSearch:
    """What a call must be to be found; all of it holds. Times are seconds since the epoch."""

    caller: str = ""
    """A part of who called: of a number its digits, else a part of the URI, by no case."""
    called: str = ""
    """A part of who was called, likewise."""
    since: float | None = None
    """It began at this time or later."""
    until: float | None = None
    """It began before this time."""
    failed: bool = False
    """It ended by a failure."""
    ended: bool | None = None
    """Whether it has ended; None: it does not matter."""

    def conditions(self, calls: Table, dialect: str) -> tuple[ColumnElement[bool], ...]:
        """The search as SQL about the table `calls`; `dialect` is `sqlite` or `postgresql`."""
        column = calls.c
        found: list[ColumnElement[bool]] = []
        for text, written in ((self.caller, column.caller), (self.called, column.called)):
            if text:
                found.append(_has(text, written, dialect))
        if self.since is not None:
            found.append(column.started_at >= self.since)
        if self.until is not None:
            found.append(column.started_at < self.until)
        if self.failed:
            found.append(or_(column.how.startswith("failed"), column.how.startswith("lost")))
        if self.ended is not None:
            found.append(column.ended_at.is_not(None) if self.ended else column.ended_at.is_(None))
        return tuple(found)


def digits_of(text: str) -> str | None:
    """The digits of a number without what stands between them; None for what is not a number."""
    bare = text.translate(str.maketrans("", "", SEPARATORS))
    return bare if _NUMBER.fullmatch(bare) else None


def _has(text: str, written: Any, dialect: str) -> ColumnElement[bool]:
    """Whether the column `written` has `text`: a number in its user part, other text anywhere in it."""
    number = digits_of(text)
    if number is None:
        return written.icontains(text.strip(), autoescape=True)  # type: ignore[no-any-return]  # of any column
    at = func.strpos(written, "@") if dialect == "postgresql" else func.instr(written, "@")
    user: Any = case((at > 0, func.substr(written, 1, at - 1)), else_=written)
    for separator in SEPARATORS:
        user = func.replace(user, separator, "")
    return user.contains(number, autoescape=True)  # type: ignore[no-any-return]  # of any expression
