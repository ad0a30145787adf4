"""The list of calls that were not taken, page by page, the newest first."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from gateway.front.calls.list_cursor import ListCursor
from gateway.store.call_search import CallSearch
from gateway.store.refused_calls import REFUSED, RefusedCall, RefusedCalls
from gateway.store.registry import Registry

_PLACE: Final = re.compile(r"([0-9]{1,12}\.[0-9]{6})-([0-9]{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRefusals:
    """A page, and the cursors of the pages after and before it; None where there is none."""

    refused: list[RefusedCall]
    following: str | None = None
    preceding: str | None = None
    found: int | None = None
    """How many rows there are; None: it was not asked."""

    def to_json(self) -> dict[str, Any]:
        """As the API tells it."""
        told = [call.to_json() for call in self.refused]
        return {
            "refused": told, "next": self.following, "previous": self.preceding, "found": self.found,
        }  # fmt: skip


class RefusalList:
    """Of all gateways that share the registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._table = RefusedCalls(registry)

    def page(
        self, search: CallSearch, count: int, cursor: str | None = None, *, counted: bool = False
    ) -> ListedRefusals:
        """The calls found, `count` at most. One that comes again, alike, moves to the top. It blocks.

        Raises `ValueError` for a cursor that is none of this list's, `RegistryError`.
        """
        kind = "refused", search
        at = None if cursor is None else ListCursor.read(cursor, kind)
        place = None if at is None else _PLACE.fullmatch(at.place)
        if at is not None and place is None:
            raise ValueError("that is not a cursor of this list")
        then = None if place is None else (float(place[1]), int(place[2]))
        back = at is not None and at.backwards
        conditions = search.conditions(REFUSED, self._registry.backend)
        rows = self._table.page(conditions, count + 1, then, backwards=back)
        more = len(rows) > count
        rows = rows[-count:] if back else rows[:count]
        following, preceding = ListCursor.around(at, [_place(row) for row in rows], kind, more=more)
        return ListedRefusals(
            refused=[call for _, call in rows], following=following, preceding=preceding,
            found=self._table.matches(conditions) if counted else None,
        )  # fmt: skip


def _place(row: tuple[int, RefusedCall]) -> tuple[int, str]:
    """Its part of the list, which has one, and its place there (`_PLACE`)."""
    number, call = row
    return 0, f"{call.started_at:.6f}-{number}"
