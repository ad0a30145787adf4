"""How much leaves by a trunk: calls at once and per minute, and what became of them."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from gateway.edge.trunks.trunk import Trunk

MINUTE_S: Final = 60.0


class TrunkUse:
    """One trunk's. A call that was taken is given back once."""

    def __init__(self, trunk: Trunk, clock: Callable[[], float] = time.monotonic) -> None:
        self.trunk = trunk
        self.outcomes: Counter[int] = Counter()
        """final answers to our calls, by status"""
        self.refused: Counter[str] = Counter()
        """calls that did not leave: "calls", "rate" or "number" """
        self.calls = 0
        self._clock = clock
        self._begun: deque[float] = deque()

    def take(self, number: str) -> str | None:
        """One more call to that number. Returns why it may not leave; None: it is counted."""
        trunk, now = self.trunk, self._clock()
        while self._begun and now - self._begun[0] >= MINUTE_S:
            self._begun.popleft()
        kind, why = "", trunk.why_not(number)
        if why is not None:
            kind = "number"
        elif self.calls >= trunk.calls:
            kind, why = "calls", f"the trunk has {self.calls} calls already"
        elif len(self._begun) >= trunk.per_minute:
            kind, why = "rate", f"{trunk.per_minute} calls left by the trunk within a minute"
        if why is not None:
            self.refused[kind] += 1
            return why
        self.calls += 1
        self._begun.append(now)
        return None

    def give(self) -> None:
        """A call is over."""
        self.calls -= 1

    def forget(self) -> None:
        """The call that was taken last did not leave, and comes again."""
        self.calls -= 1
        self._begun.pop()
