"""Slopes of what should be steady: least squares, and how sure they are.

A process's memory is not a line with noise on it: it goes up with what lives in it and comes down again, and
two readings that follow each other are alike. So the readings are gathered in blocks, of each of which one
point counts: the lowest, for what is used and given back; the mean, for times. What a leak takes stays in the
lowest one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

BLOCKS: Final = 12
FEWEST: Final = 6
"""Blocks without which nothing is said."""
CONFIDENCE: Final = 0.99
"""That a slope is above its lower bound; and, on its own, below its upper one."""
WARM_UP: Final = 0.3
"""Share of the run that is left out: what is made once is made then."""

Verdict = Literal["steady", "unclear", "grows"]
Of = Literal["lowest", "mean"]


@dataclass(frozen=True, slots=True)
class Slope:
    """How much `y` rises per `x`; `low` and `high` are one-sided bounds of `CONFIDENCE`."""

    per: float
    low: float
    high: float
    points: int

    def verdict(self, allowed: float) -> Verdict:
        """`grows`: surely by more than `allowed`; `steady`: surely by less."""
        if self.low > allowed:
            return "grows"
        return "steady" if self.high <= allowed else "unclear"


def least_squares(x: Sequence[float] | NDArray[Any], y: Sequence[float] | NDArray[Any]) -> Slope:
    """The line through points. Raises `ValueError` for fewer than three, and for points of one `x` alone."""
    if len(x) < 3 or len(set(x)) < 2:
        raise ValueError(f"{len(x)} points do not make a line whose slope has bounds")
    xs, ys = np.asarray(x, np.float64), np.asarray(y, np.float64)
    spread, free = np.sum((xs - xs.mean()) ** 2), len(xs) - 2
    per = float(np.sum((xs - xs.mean()) * (ys - ys.mean())) / spread)
    left = ys - ys.mean() - per * (xs - xs.mean())
    reach = float(stats.t.ppf(CONFIDENCE, free) * math.sqrt(np.sum(left**2) / free / spread))
    return Slope(per, per - reach, per + reach, len(xs))


def blocks(
    x: Sequence[float], y: Sequence[float], of: Of, count: int = BLOCKS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One point of each of `count` runs of readings; readings that are NaN are left out."""
    known = [(a, b) for a, b in zip(x, y, strict=True) if not (math.isnan(a) or math.isnan(b))]
    if not known:
        return np.zeros(0), np.zeros(0)
    xs, ys = np.array(known, np.float64).T
    points = []
    for these in np.array_split(np.arange(len(xs)), min(count, len(xs))):
        if of == "lowest":
            lowest = these[int(np.argmin(ys[these]))]
            points.append((xs[lowest], ys[lowest]))
        else:
            points.append((xs[these].mean(), ys[these].mean()))
    made = np.array(points)
    return made[:, 0], made[:, 1]


def slope(x: Sequence[float], y: Sequence[float], of: Of = "lowest") -> Slope | None:
    """The slope of readings in the order of their times, less the first `WARM_UP` of them. None: too few."""
    begin = math.ceil(WARM_UP * len(x))
    xs, ys = blocks(x[begin:], y[begin:], of)
    if len(xs) < FEWEST or len(set(xs.tolist())) < 3:
        return None
    return least_squares(xs, ys)


def growing(
    x: Sequence[float], readings: Sequence[Mapping[str, float]], least: float, count: int
) -> list[tuple[str, Slope]]:
    """The things whose slope is surely above `least`, the steepest first, `count` of them at most.

    `readings`: by name, at each `x`; what a reading does not name was 0 then.
    """
    found = []
    for name in {each for reading in readings for each in reading}:
        per = slope(x, [reading.get(name, 0.0) for reading in readings])
        if per is not None and per.low > least:
            found.append((name, per))
    return sorted(found, key=lambda one: -one[1].per)[:count]
