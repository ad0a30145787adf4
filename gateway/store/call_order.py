"""In which order calls are listed, and its SQL: each order is read by an index, from any place in it.

A place is named by the call that stands there. What a call is ordered by never changes once it is there, and
no call is ever removed, so a place stays where it is while calls come and end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from sqlalchemy import ColumnElement, FromClause, Select, and_, or_, select

from gateway.store.call_tables import CALLS, Lasted

Sort = Literal["", "-began", "began", "-duration", "duration", "caller", "-caller"]
SORTS: Final[tuple[Sort, ...]] = get_args(Sort)
"""What calls can be sorted by; `-`: the newest, the longest, the last letter first. Without one those that
have not ended come first, then the others, the newest first in both."""


@dataclass(frozen=True, slots=True)
class OrderPart:
    """A part of a list: whose end is known or not (None: both), and what they are ordered by.

    Behind their key, and of the same key, calls stand by their beginning, the newest first, then by their id.
    """

    ended: bool | None
    key: Literal["began", "duration", "caller"] = "began"
    descending: bool = True

    def ordered(self, asked: Select[Any], *, backwards: bool) -> Select[Any]:
        """`asked` of the table of calls in this order, or in the opposite one."""
        return asked.order_by(*(k.desc() if down != backwards else k.asc() for k, down in self._keys(CALLS)))

    def beyond(self, call_id: str, *, backwards: bool) -> ColumnElement[bool]:
        """Whether a call stands after that one, or, backwards, before it. False if there is no such call."""
        there = CALLS.alias("place")
        either: list[ColumnElement[bool]] = []
        same: list[ColumnElement[bool]] = []
        first: ColumnElement[bool] | None = None
        for (key, down), (place, _) in zip(self._keys(CALLS), self._keys(there), strict=True):
            at = select(place).where(there.c.call_id == call_id).scalar_subquery()
            lower = down != backwards
            either.append(and_(*same, key < at if lower else key > at))
            same.append(key == at)
            if first is None:  # it follows from the others; by it an index is entered
                first = key <= at if lower else key >= at
        assert first is not None  # noqa: S101  # there is a key
        return and_(first, or_(*either))

    def _keys(self, calls: FromClause) -> tuple[tuple[ColumnElement[Any], bool], ...]:
        """What is compared, one after the other, and whether the larger comes first."""
        by_begin = (calls.c.started_at, self.descending if self.key == "began" else True)
        rest = (by_begin, (calls.c.call_id, False))
        if self.key == "began":
            return rest
        key = calls.c.caller if self.key == "caller" else Lasted(calls.c.started_at, calls.c.ended_at)
        return ((key, self.descending), *rest)


NEWEST: Final = OrderPart(None)
ORDERS: Final[dict[Sort, tuple[OrderPart, ...]]] = {
    "": (OrderPart(False), OrderPart(True)),
    "-began": (NEWEST,),
    "began": (OrderPart(None, descending=False),),
    # how long a call lasts that has not ended is not known: it comes last
    "-duration": (OrderPart(True, "duration"), OrderPart(False, descending=False)),
    "duration": (OrderPart(True, "duration", descending=False), OrderPart(False)),
    "caller": (OrderPart(None, "caller", descending=False),),
    "-caller": (OrderPart(None, "caller"),),
}
"""The parts of each list, one after the other."""
