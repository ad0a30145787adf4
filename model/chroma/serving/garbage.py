"""Python's collector, where the schedule has room for it.

A collection stops every thread of its interpreter, and left to itself it begins in the middle of whatever
makes objects: a step, or the loop that hands its frames out. In a process of the engine's own it is a piece
of the thread's work like any other. What is there when the engine is loaded is frozen (`model.worker`), so
that a collection walks through what calls have left behind since.
"""

from __future__ import annotations

import gc
import time
from typing import Final

GROWN: Final = 20_000
"""Objects that may come to be before it is worth looking for those that nobody can reach."""
EVERY_S: Final = 60.0
"""The longest time between two looks, while there is work: a few objects can hold much of a GPU."""


class Garbage:
    """Of the whole process: only where the engine is alone in it."""

    def __init__(self) -> None:
        self._looked = time.perf_counter()
        self._asked = False

    def begin(self) -> None:
        """From now on nothing is collected but by `collect`."""
        gc.disable()
        self._looked = time.perf_counter()

    def due(self, now: float) -> bool:
        """Whether it is time to ask for a collection; said once for each. Takes a microsecond."""
        if self._asked or (gc.get_count()[0] < GROWN and now - self._looked < EVERY_S):
            return False
        self._asked = True
        return True

    def collect(self) -> None:
        """Looks at everything that is not frozen."""
        gc.collect()
        self._looked, self._asked = time.perf_counter(), False
