"""How much memory each process of the house has, for the metrics."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from gateway.config.runtime import Runtime

PAGE: Final = os.sysconf("SC_PAGE_SIZE")
NAMED_AT_MOST: Final = 200
"""Processes; a house has a dozen."""


def resident(runtime: Runtime, proc: Path = Path("/proc")) -> dict[str, int]:
    """Bytes that are in memory of each process that the supervisor keeps, by name; of itself as `supervisor`.

    Of pages that several have in common each counts all. It reads `statm`, which stops nobody: the exact
    shares (`smaps_rollup`) would hold a hall's memory map while it is in its 20 ms. A process that has ended
    meanwhile is left out.
    """
    if not (kept := kept_pids(runtime)):
        return {}
    found: dict[str, int] = {}
    for name, pid in {**kept, "supervisor": os.getppid()}.items():
        try:
            found[name] = int((proc / str(pid) / "statm").read_text().split()[1]) * PAGE
        except (OSError, ValueError, IndexError):
            continue
    return found


def kept_pids(runtime: Runtime) -> dict[str, int]:
    """The processes that the supervisor keeps, by name; none while it has not said."""
    try:
        said = json.loads((runtime.path / "pids.json").read_text())
        return {str(name): int(pid) for name, pid in list(said.items())[:NAMED_AT_MOST]}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
