"""Which calls of the registry an operator asks for, and how that is asked in SQL."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Table, and_, case, false, func, or_

from gateway.store.call_tables import FAILED, Lasted
from gateway.store.sound_causes import POOR_MOS

SEPARATORS: Final = " \t-+./()"
"""What people write between the digits of a number, or before them (RFC 3966 §5.1.1)."""
_NUMBER: Final = re.compile(r"[0-9*#]+")
_LAST: Final = "\U0010ffff"
"""No character comes after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSearch:
    """What a call must be to be found; all of it holds. Times are seconds since the epoch.

    Calls that were not taken have no more than their ids, who called whom, and when.
    """

    id: str = ""
    """How its id begins, or its caller's SIP Call-ID."""
    caller: str = ""
    """A part of who called: of a number its digits, else a part of the URI, by no case."""
    called: str = ""
    """A part of who was called, likewise."""
    route: str = ""
    """The route that took it."""
    voice: str = ""
    """The voice that it was given."""
    how: str = ""
    """How the text begins that says how it ended."""
    since: float | None = None
    """It began at this time or later."""
    until: float | None = None
    """It began before this time."""
    failed: bool = False
    """It ended by a failure."""
    poor: bool = False
    """It sounded poor, one way or the other."""
    least_s: float | None = None
    """It lasted so many seconds or more."""
    most_s: float | None = None
    """It lasted so many seconds or less."""
    ended: bool | None = None
    """Whether it has ended; None: it does not matter."""

    def of_refused(self) -> CallSearch:
        """As much of it as can be asked of calls that were not taken."""
        return CallSearch(
            id=self.id, caller=self.caller, called=self.called, since=self.since, until=self.until
        )

    def may_find(self, *, ended: bool | None) -> bool:
        """Whether there can be such calls among those that have ended, or have not (None: among all)."""
        of_ended = self.failed or self.poor or self.how or self.least_s is not None or self.most_s is not None
        if ended is False and of_ended:
            return False
        return ended is None or self.ended is None or self.ended == ended

    def conditions(
        self, calls: Table, dialect: str, lacking: Collection[str] = ()
    ) -> tuple[ColumnElement[bool], ...]:
        """The search as SQL about the table `calls`; `dialect` is `sqlite` or `postgresql`.

        `lacking`: columns that a table of an earlier version has not.
        """
        column = calls.c
        found: list[ColumnElement[bool]] = []
        if self.id:
            ids = [one for one in (column.call_id, column.sip_call_id) if one.name not in lacking]
            found.append(or_(*(_begins(self.id, one, dialect) for one in ids)))
        for text, written in ((self.caller, column.caller), (self.called, column.called)):
            if text:
                found.append(_has(text, written, dialect))
        if self.since is not None:
            found.append(column.started_at >= self.since)
        if self.until is not None:
            found.append(column.started_at < self.until)
        return (*found, *self._of_taken(calls, lacking))

    def _of_taken(self, calls: Table, lacking: Collection[str]) -> Iterator[ColumnElement[bool]]:
        """What calls that were not taken have not."""
        if self.route:
            yield calls.c.route == self.route
        if self.voice:
            yield calls.c.voice == self.voice
        if self.how:
            yield calls.c.how.startswith(self.how, autoescape=True)
        if self.failed:
            yield FAILED
        if self.poor:
            yield false() if "sounded" in lacking else calls.c.sounded < POOR_MOS
        if self.least_s is not None:
            yield Lasted(calls.c.started_at, calls.c.ended_at) >= round(1000 * self.least_s)
        if self.most_s is not None:
            yield Lasted(calls.c.started_at, calls.c.ended_at) <= round(1000 * self.most_s)
        if self.ended is not None:
            yield calls.c.ended_at.is_not(None) if self.ended else calls.c.ended_at.is_(None)


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


def _begins(text: str, written: Any, dialect: str) -> ColumnElement[bool]:
    """Whether the column `written` begins with `text`; SQLite finds it by an index, which orders by bytes."""
    if dialect == "postgresql":
        return written.startswith(text, autoescape=True)  # type: ignore[no-any-return]  # of any column
    return and_(written >= text, written < text + _LAST)
