"""The faults of docs/faults.md by number: each row's tests are run, and what they noticed is printed.

A test says what it noticed by pytest's `record_property`: under "caller" what somebody on the telephone did,
under "operator" what the log, the metrics or `/readyz` did.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "faults.md"
WHO: Final = ("caller", "operator")
_TEST: Final = re.compile(r"`(tests/[\w/]+\.py(?:::\w+(?:\[\w+\])?)?)`")


@dataclass(frozen=True, slots=True)
class FaultRow:
    """One row of the table, as the page has it."""

    number: int
    fault: str
    caller: str
    operator: str
    recovers: str
    tests: tuple[str, ...]
    """files, or tests as pytest names them"""

    @property
    def step(self) -> str:
        """Its name as a step of the proof."""
        return f"{self.number} {self.fault}"

    @classmethod
    def read(cls, line: str) -> FaultRow | None:
        """The row in that line of the page; None for any other line."""
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|") or len(cells) != 6 or not cells[0].isdecimal():
            return None
        number, fault, caller, operator, recovers, tests = cells
        return cls(int(number), fault, caller, operator, recovers, tuple(_TEST.findall(tests)))


def all_rows(page: Path = PAGE) -> list[FaultRow]:
    """All rows of the page, in its order."""
    return [row for line in page.read_text().splitlines() if (row := FaultRow.read(line)) is not None]


def try_fault(row: FaultRow) -> dict[str, Any]:
    """Runs the row's tests, those marked `prove` too; how many passed, and what was noticed."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told.xml"
        words = ["-m", "pytest", *row.tests, "-q", "-m", "prove or not prove", f"--junitxml={told}"]
        words += ["-o", "junit_family=xunit1"]  # the later one has no room for properties
        done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
        if not told.exists():
            return {"passed": 0, "failed": [f"pytest ended with {done.returncode}: {done.stderr[-300:]}"]}
        return _read(told)


def _read(told: Path) -> dict[str, Any]:
    found: dict[str, Any] = {
        "passed": 0,
        "failed": [],
        "why": [],
        "skipped": 0,
        "noticed": {who: [] for who in WHO},
    }
    for case in ElementTree.parse(told).iter("testcase"):
        if (broke := next((each for each in case if each.tag in ("failure", "error")), None)) is not None:
            found["failed"].append(case.get("name"))
            found["why"].append(f"{case.get('name')}: {(broke.get('message') or '')[:300]}")
        elif case.find("skipped") is not None:
            found["skipped"] += 1
        else:
            found["passed"] += 1
        for noticed in case.iter("property"):
            if (who := noticed.get("name")) in WHO:
                found["noticed"][who].append(noticed.get("value"))
    return found


def printed(row: FaultRow, found: dict[str, Any]) -> str:
    """The row with what was noticed, as a line of a table."""
    noticed = found.get("noticed", {})
    table = dict(zip(WHO, (row.caller, row.operator), strict=True))
    said = ["; ".join(dict.fromkeys(noticed.get(who, []))) or f"asserted: {table[who]}" for who in WHO]
    failed = "".join(f", **{name} failed**" for name in found["failed"])
    return f"| {row.number} | {row.fault} | {said[0]} | {said[1]} | {found['passed']} passed{failed} |"
