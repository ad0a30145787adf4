"""How long the engine takes from the request of a reply to its first sound, over all calls of a hall."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

WINDOW_S: Final = 10.0
"""Replies that began to sound longer ago tell nothing of now."""
KEPT: Final = 512
CROWD: Final = 4
"""Calls that wait for the engine's first sound at one time: one more would wait behind them."""


class FirstSounds:
    """Notes each first sound, and says how long the slow ones took."""

    def __init__(self, waiting: Callable[[], Iterable[float]] = tuple) -> None:
        """`waiting`: for how long each call has waited for a first sound that has not come."""
        self._waiting = waiting
        self._noted: deque[tuple[float, float]] = deque(maxlen=KEPT)
        """(when, monotonic; how long it took)"""
        self._strained = False

    @property
    def hurried(self) -> bool:
        """The engine is not asked now for what was rendered in advance."""
        return self._strained or sum(1 for _ in self._waiting()) >= CROWD

    def note_strain(self, strained: bool) -> None:
        """Whether the hall has little time."""
        self._strained = strained

    def note(self, at: float, took_s: float) -> None:
        """A reply's first sound came at `at` (monotonic), so long after it was asked for."""
        while self._noted and self._noted[0][0] <= at - WINDOW_S:
            self._noted.popleft()
        self._noted.append((at, took_s))

    def slow_s(self, now: float) -> float:
        """What one reply in ten takes longer than, of those of the last `WINDOW_S`; at least one does.

        One that has not come counts with its wait, once that is longer than the others took at the median.
        One slow reply alone is 0: it says more of itself than of the engine.
        """
        took = sorted(took_s for at, took_s in self._noted if at > now - WINDOW_S)
        usual = took[len(took) // 2] if took else 0.0
        took = sorted((*took, *(waited_s for waited_s in self._waiting() if waited_s > usual)), reverse=True)
        return took[max(1, len(took) // 10)] if len(took) > 1 else 0.0
