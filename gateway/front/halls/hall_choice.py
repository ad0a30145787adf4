"""Which hall shall have the next call, and what a caller hears when none can."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from gateway.errors import CallRefused
from gateway.front.admission.routing import HALL_BACK_S, Routing
from gateway.front.halls.headroom import Headroom

BUSY_FOR_S: Final = 10
"""When a caller may try again for whom there was no time: a conversation ends about as often."""

Held = Callable[[], Mapping[str, int]]


class HallChoice:
    """See the module. `by_phone` and `by_web`: how many calls of each kind each hall holds."""

    def __init__(self, routing: Routing, headroom: Headroom, by_phone: Held, by_web: Held) -> None:
        self._routing = routing
        self._headroom = headroom
        self._by_phone = by_phone
        self._by_web = by_web

    def of(self, by_phone: Mapping[str, int]) -> str | None:
        """The hall with the fewest calls, of those whose telephone calls are given and that have time."""
        by_web = self._by_web()
        loads = {hall: calls + by_web.get(hall, 0) for hall, calls in by_phone.items()}
        return self._routing.least_loaded(self._headroom.with_time(loads))

    def among(self, halls: Iterable[str]) -> str | None:
        """The same, of these halls."""
        by_phone = self._by_phone()
        return self.of({hall: by_phone.get(hall, 0) for hall in halls})

    def none(self) -> CallRefused:
        """Why it is none. A stranger is not told more than that halls which are there have no time."""
        if self._routing.able():
            return CallRefused(503, "busy", retry_after_s=BUSY_FOR_S, cause="halls busy")
        return CallRefused(503, "no hall takes calls now", retry_after_s=HALL_BACK_S, cause="no hall")

    def why_busy(self) -> str:
        """Why no hall that is there has time for one more call; empty when one has."""
        by_phone, by_web = self._by_phone(), self._by_web()
        why = {
            hall: self._headroom.why_full(hall, by_phone.get(hall, 0) + by_web.get(hall, 0))
            for hall in self._routing.able()
        }
        return "; ".join(f"{hall}: {reason}" for hall, reason in why.items()) if all(why.values()) else ""
