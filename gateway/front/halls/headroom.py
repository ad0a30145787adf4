"""Whether a hall has time for one more call, by what the halls measure of themselves (`HallLoad`).

A free line says that a call could be taken, not that it would be served in time. Each hall tells twice a
second how long its passes, its recognisers and its engine took, each as a part of its bound (strain: from 1
on there is no time left). A call is refused while one of these holds of its hall:

* A strain is past its bound, or would be: what was measured, and what the calls that do not speak yet, and
  this one, will add. What one call adds is learned: the measured strain, less the least that was ever
  measured, by the calls that made it. Once refused, calls are taken again from `REOPEN` on.
* It has as many calls as its ceiling. There is none until a bound was passed for a while. Then it lies a
  tenth below the calls that there were, since a queue grows faster than the calls in it. It rises, a call at
  a time, while calls need that and the hall is well below its bounds: slowly at first, since what is measured
  tells late, then faster. (So do TCP's senders find their rate.)
* It has not told for `SILENT_S` how it is.

A hall without a call always takes one: there is nothing that could show what a call costs there.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from gateway.ipc.hall_messages import HallLoad

log = structlog.get_logger("front")

REOPEN: Final = 0.8
"""Strain below which a hall that was full takes calls again."""
FEW: Final = 16
"""Calls by which a strain is divided at least: fewer say little of what one costs."""
LEARNED: Final = 0.05
"""How fast a call's cost falls with each look at which it was less; it rises at once. About 10 s."""
RISEN: Final = 0.002
"""How fast the least strain rises to what is measured, with each look: 4 minutes."""
BACK: Final = 0.9
"""Of the calls with which a bound was passed, those that are the ceiling."""
CUT_AFTER_S: Final = 6.0
"""Past a bound, before there is a ceiling, or a lower one: what is measured remembers a hiccup for 5 s."""
LEFT: Final = 0.98
"""Of the calls that were most of late, with each look."""
RISE_S: Final = 10.0
"""Between two calls by which a ceiling rises, in the first `SLOWLY_S` after a bound was passed;"""
FAST_RISE_S: Final = 3.0
"""and later on."""
SLOWLY_S: Final = 120.0
FORGET_S: Final = 600.0
"""Without a bound passed, before a ceiling is forgotten."""
SILENT_S: Final = 3.0
OPEN_S: Final = 10.0
"""Without a call that was one too many, before the log says that there is time again."""


@dataclass(slots=True)
class HallTime:
    """One hall's time. Times of day are the loop's."""

    bounds: Mapping[str, float]
    load: HallLoad = field(default_factory=HallLoad)
    told_at: float = 0.0
    strain: dict[str, float] = field(default_factory=dict)
    least: dict[str, float] = field(default_factory=dict)
    """The least strain that any call has had."""
    costs: dict[str, float] = field(default_factory=dict)
    """What one call adds to a strain."""
    most: float = 0.0
    """Calls that it had of late; what is measured tells of those."""
    ceiling: float = math.inf
    over_since: float = math.inf
    cut_at: float = -math.inf
    risen_at: float = -math.inf
    full: bool = False
    """A strain was too much when it was asked last."""

    def tell(self, load: HallLoad, now: float) -> None:
        """What it measured."""
        self.load, self.told_at = load, now
        self.strain = load.strain(self.bounds)
        if load.settled:
            for measure, strain in self.strain.items():
                self._learn(measure, strain)
        self._limit(max(self.strain.values(), default=0.0), now)

    def _limit(self, worst: float, now: float) -> None:
        """Moves the ceiling. `worst`: the greatest strain."""
        calls, calm_s = self.load.calls, now - self.cut_at
        self.most = max(calls, LEFT * self.most)
        if worst <= 1.0 or not calls:
            self.over_since = math.inf
            rise_s = RISE_S if calm_s < SLOWLY_S else FAST_RISE_S
            wanted = worst < REOPEN and calls >= self.ceiling - 1
            if calm_s > FORGET_S:
                self.ceiling = math.inf
            elif wanted and now - max(self.risen_at, self.cut_at) >= rise_s:
                self.ceiling, self.risen_at = self.ceiling + 1, now
        elif calls > self.ceiling:  # nobody is sent away: it shows once they have left
            self.cut_at = now
        else:
            self.over_since = min(self.over_since, now)
            if now - max(self.over_since, self.cut_at) >= CUT_AFTER_S:
                self.ceiling, self.cut_at = float(max(1, int(BACK * self.most))), now

    def _learn(self, measure: str, strain: float) -> None:
        least = min(strain, self.least.get(measure, strain))
        self.least[measure] = least + RISEN * (strain - least)
        cost, known = (strain - least) / max(FEW, self.load.settled), self.costs.get(measure, 0.0)
        self.costs[measure] = cost if cost > known else known + LEARNED * (cost - known)

    def why_full(self, held: int, now: float) -> str:
        """Why it has no time for one more call than it holds; empty when it has."""
        if not held or not self.told_at:
            self.full = False
            return ""
        if now - self.told_at > SILENT_S:
            return f"it has not told for {now - self.told_at:.1f} s how it is"
        limit = REOPEN if self.full else 1.0
        coming = max(0, held - self.load.settled) + 1
        self.full = False
        for measure, strain in self.strain.items():
            with_it = strain + coming * self.costs.get(measure, 0.0)
            if with_it > limit:
                bound, self.full = self.bounds[measure], True
                return (
                    f"{measure} is {strain * bound:.3f}, with the calls that come {with_it * bound:.3f}, "
                    f"of {bound:g} at most"
                )
        return f"{held} calls, of {self.ceiling:.0f} for now" if held >= self.ceiling else ""


@dataclass(frozen=True, slots=True)
class HallRoom:
    """What a hall has of its time, as it told last."""

    name: str
    calls: int
    at_most: int | None
    """the ceiling; None: there is none"""
    full: bool
    strain: dict[str, float]
    """each measure as a part of its bound; from 1 on there is no time left"""
    told_ago_s: float


class Headroom:
    """The time of all halls."""

    def __init__(self, bounds: Mapping[str, float]) -> None:
        """`bounds`: of each measure of `HallLoad` that counts; none: a free line is all that counts."""
        self._bounds = bounds
        self._halls: dict[str, HallTime] = {}
        self._full_at: dict[str, float] = {}
        """when a hall had no time last, of those that the log says it of"""

    def told(self, hall: str, load: HallLoad) -> None:
        """A hall told what it measured."""
        now = asyncio.get_running_loop().time()
        self._halls.setdefault(hall, HallTime(self._bounds)).tell(load, now)
        if now - self._full_at.get(hall, now) > OPEN_S and not self.why_full(hall, load.calls):
            del self._full_at[hall]
            log.info("admission.open", hall=hall, calls=load.calls)

    def lost(self, hall: str) -> None:
        """It is gone; the next one of that name measures anew."""
        self._halls.pop(hall, None)
        self._full_at.pop(hall, None)

    def why_full(self, hall: str, held: int) -> str:
        """Why that hall has no time for one more call than the `held` that it has; empty when it has."""
        known = self._halls.get(hall)
        if known is None or not self._bounds:
            return ""
        now = asyncio.get_running_loop().time()
        why = known.why_full(held, now)
        if why:
            if hall not in self._full_at:
                log.warning("admission.full", hall=hall, calls=held, why=why)
            self._full_at[hall] = now
        return why

    def rooms(self) -> tuple[HallRoom, ...]:
        """How each hall is that has told; asking changes nothing."""
        now = asyncio.get_running_loop().time()
        return tuple(
            HallRoom(
                name, known.load.calls, None if math.isinf(known.ceiling) else int(known.ceiling),
                known.full or known.load.calls >= known.ceiling, dict(known.strain), now - known.told_at,
            )
            for name, known in sorted(self._halls.items())
        )  # fmt: skip

    def with_time(self, held: Mapping[str, int]) -> dict[str, int]:
        """Of halls with so many calls each, those that have time for one more."""
        return {hall: calls for hall, calls in held.items() if not self.why_full(hall, calls)}
