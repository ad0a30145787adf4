"""How the house's processes fare: the supervisor notes it in the runtime directory, the front tells it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

LONGEST_ERROR: Final = 300
NAMED_AT_MOST: Final = 200
"""Processes; a house has a dozen."""


@dataclass(frozen=True, slots=True)
class ProcessLife:
    """One process that the supervisor keeps."""

    pid: int
    """0: it is dead now"""
    restarts: int
    hopeless: bool
    """it dies again and again"""
    error: str
    """why it died last; empty: it never did"""


def note_lives(path: Path, lives: Mapping[str, ProcessLife]) -> None:
    """Writes them, by name. Raises `OSError`."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps({name: asdict(life) for name, life in lives.items()}))
    new.replace(path)


def noted_lives(path: Path) -> dict[str, ProcessLife]:
    """Those that were noted; none where nothing can be read."""
    try:
        said = json.loads(path.read_text())
        return {str(name): _read(one) for name, one in list(said.items())[:NAMED_AT_MOST]}
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return {}


def _read(one: Mapping[str, Any]) -> ProcessLife:
    return ProcessLife(
        pid=int(one["pid"]),
        restarts=int(one["restarts"]),
        hopeless=bool(one["hopeless"]),
        error=str(one["error"])[:LONGEST_ERROR],
    )
