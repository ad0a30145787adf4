"""When each process of the house began: what it counts is counted since then."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from gateway.config.runtime import Runtime
from gateway.front.house.resident_memory import kept_pids

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def process_starts(runtime: Runtime, proc: Path = Path("/proc")) -> dict[str, float]:
    """Seconds from the machine's start to that of each process which the supervisor keeps, by name.

    It is the same number each time as long as it is the same process, whatever becomes of the clock;
    `wall_time` makes a time of it. A process that has ended meanwhile is left out.
    """
    found = {}
    for name, pid in kept_pids(runtime).items():
        try:
            facts = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
            found[name] = int(facts[19]) / TICKS_PER_S  # field 22, proc(5)
        except (OSError, ValueError, IndexError):
            continue
    return found


def wall_time(since_boot_s: float) -> float:
    """That moment in seconds since the epoch, by the clock as it is now."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot_s


def own_start() -> float:
    """Now, in seconds since the machine's start."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
