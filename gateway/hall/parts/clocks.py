"""The two clocks of a hall, as constructors take them: the module `time` has both, and a test has its own."""

from __future__ import annotations

from typing import Protocol


class Clocks(Protocol):
    """What the hall uses of the module `time`."""

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back; its zero means nothing."""

    def time(self) -> float:
        """Seconds since the epoch, UTC."""
