"""How long the passes over the calls took of late, and how late they were.

A pass is late when a line had to wait for it: between two passes over its ticks more than 20 ms went by,
whoever of line and hall was kept from running. Noting one pass is three numbers in arrays that are there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

WINDOW_S: Final = 5.0
"""What counts as "of late"."""
KEPT: Final = 2048
"""Passes that are remembered: with lines whose ticks do not come together there are more than 50 a second."""
LATE_S: Final = 0.010
"""A pass that takes longer, or begins so much too late, is late: half of a frame is gone."""
FEWEST: Final = 50
"""Passes (a second of them) before anything is said of the slowest one in a hundred."""


@dataclass(frozen=True, slots=True)
class PassFigures:
    """Of the passes of the last `WINDOW_S`. All are 0 while there are fewer than `FEWEST`."""

    took_s: float = 0.0
    """99 of 100 took no longer."""
    late_s: float = 0.0
    """99 of 100 were no later."""
    late_share: float = 0.0
    """Those that were late, of all; 0 to 1."""


class PassTimes:
    """See the module."""

    def __init__(self) -> None:
        self._at = np.full(KEPT, -np.inf)
        self._took_s = np.zeros(KEPT)
        self._late_s = np.zeros(KEPT)
        self._next = 0

    def note(self, at: float, late_s: float, took_s: float) -> None:
        """A pass began at `at` (monotonic), so much too late, and took so long."""
        row = self._next
        self._at[row] = at
        self._late_s[row] = late_s
        self._took_s[row] = took_s
        self._next = (row + 1) % KEPT

    def figures(self, now: float) -> PassFigures:
        """`now`: monotonic."""
        of_late = self._at > now - WINDOW_S
        count = int(np.count_nonzero(of_late))
        if count < FEWEST:
            return PassFigures()
        took_s, late_s = self._took_s[of_late], self._late_s[of_late]
        slowest = count - 1 - count // 100
        return PassFigures(
            float(np.partition(took_s, slowest)[slowest]),
            float(np.partition(late_s, slowest)[slowest]),
            float(np.count_nonzero((took_s > LATE_S) | (late_s > LATE_S)) / count),
        )
