"""What was heard so far: a line of JSON for each recording, in a file of the state of `watermark/`.

A run that was killed goes on: a recording is known by its row, mark, host and length, and the file by the
code that looked. Code that is not committed has a file of its own.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.watermark.adapters import ROOT, Look

SEARCH: Final = "anywhere in 15 min; whole line"
"""How is looked: stands in each key, so that another way of looking is another look."""


def state_of_watermark(root: Path = ROOT) -> str:
    """git's name of `watermark/` as it stands in the commit, which a rebase does not change; with a digest
    beside it where files differ from the commit."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    tree = git("rev-parse", "--short=10", "HEAD:watermark")
    if tree and not git("status", "--porcelain", "--", "watermark"):
        return tree
    digest = hashlib.sha256()
    for path in sorted((root / "watermark").rglob("*")):
        if path.suffix in (".py", ".npz"):
            digest.update(path.read_bytes())
    return f"{tree or 'no-commit'}-changed-{digest.hexdigest()[:8]}"


@dataclass(frozen=True)
class Asked:
    """Which recording a detector was asked about."""

    row: str
    mark: str
    voice: str
    number: int
    seconds: int
    search: str = SEARCH


class KeptLooks:
    """Looks of one state of `watermark/` in `path`, written at once: a killed run loses one at most."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[dict[str, Any]] = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    self.records.append(json.loads(line))
                except ValueError:
                    continue  # the run was killed within this line
        self._known = {Asked(**record["asked"]) for record in self.records}

    def knows(self, asked: Asked) -> bool:
        return asked in self._known

    def add(self, asked: Asked, looks: list[Look]) -> None:
        record = {"asked": asdict(asked), "looks": [asdict(look) for look in looks]}
        self._write(record)
        self._known.add(asked)

    def add_quality(self, asked: Asked, pesq: float, stoi: float) -> None:
        """How near a marked host is to the unmarked one: PESQ-WB and STOI."""
        self._write({"asked": asdict(asked), "looks": [], "pesq": pesq, "stoi": stoi})
        self._known.add(asked)

    def _write(self, record: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torn = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
        with self.path.open("a") as file:
            file.write("\n" * torn + json.dumps(record) + "\n")
        self.records.append(record)

    def of(self, row: str, mark: str, seconds: int) -> Iterator[dict[str, Any]]:
        for record in self.records:
            asked = record["asked"]
            if (asked["row"], asked["mark"], asked["seconds"]) == (row, mark, seconds):
                yield record
