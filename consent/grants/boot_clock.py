"""The clock that nobody sets: seconds since this machine began, those that it slept through included."""

from __future__ import annotations

import time
from typing import Final

CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # only Linux has the first


def boot_time() -> float:
    """Seconds; the zero means nothing. It stands still while a virtual machine is paused."""
    return time.clock_gettime(CLOCK)
