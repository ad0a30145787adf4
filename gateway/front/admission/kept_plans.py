"""The plans that were in force, on disk by version: through a restart, too, a call keeps the one that it has.

Each is a file of its own with what the front decides by; the texts in the operator's folder may be others by
then. The newest few stay. None is needed to take a call: what cannot be kept, or read, is said. The methods
block.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any, Final

import structlog

from gateway.config.private_file import write_private
from gateway.dialplan import Dialplan, Route

log = structlog.get_logger("front")

MOST: Final = 32
FORMAT: Final = 1
"""Of the files; those of another one are not read."""
LONGEST: Final = 16 << 20
"""Bytes of a file that is read."""
_NAME: Final = re.compile(r"([0-9a-f]{12})\.json")


class KeptPlans:
    """The plans in `folder`, which is made when the first one is kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, plan: Dialplan) -> None:
        """This one is the newest. Never raises."""
        table = {
            "format": FORMAT,
            "version": plan.version,
            "folder": str(plan.folder),
            "emergency": list(plan.emergency),
            "targets": plan.targets,
            "routes": [route.to_json() for route in plan.routes],
        }
        path = self._folder / f"{plan.version}.json"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(path, json.dumps(table, separators=(",", ":")))
            for old in self._files()[:-MOST]:
                old.unlink()
        except OSError as error:
            why = "after a restart of the front its calls follow what both plans have"
            log.warning("plan.not_kept", plan=plan.version, error=str(error), effect=why)

    def all(self) -> dict[str, Dialplan]:
        """By version, the newest last. Never raises: what cannot be read is left out, and said."""
        found = {}
        for path in self._files():
            try:
                if path.stat().st_size > LONGEST:
                    raise ValueError("it is too large")
                plan = _plan_in(json.loads(path.read_bytes()))
                if plan.version != path.stem:
                    raise ValueError("it is of another version than its name says")
            except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
                log.warning("plan.not_read", file=str(path), error=f"{type(error).__name__}: {error}"[:200])
            else:
                found[plan.version] = plan
        return found

    def _files(self) -> list[Path]:
        """The oldest first."""
        found: list[tuple[int, Path]] = []
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                if _NAME.fullmatch(path.name):
                    found.append((path.stat().st_mtime_ns, path))
        return [path for _, path in sorted(found)]


def _plan_in(table: Any) -> Dialplan:
    """Raises `ValueError`, `KeyError`, `TypeError` for what `keep` did not write."""
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        raise ValueError("it is of another format")
    targets = table["targets"]
    if not isinstance(targets, dict) or not all(isinstance(uri, str) for uri in targets.values()):
        raise ValueError("its targets should be a table of texts")
    return Dialplan(
        routes=tuple(Route.from_json(one) for one in table["routes"]),
        targets=targets,
        folder=Path(table["folder"]),
        emergency=tuple(map(str, table["emergency"])),
        version=str(table["version"]),
    )
