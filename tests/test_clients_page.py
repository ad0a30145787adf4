"""`docs/clients.md`: each row names a test that is there, and says truly whether `make test` runs it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROW = re.compile(
    r"^\| (\d+) \| (.+?) \| (.+?) \| `(tests/\S+?)::(test_\w+)` \| `(make test|-m prove)` \|$", re.MULTILINE
)
FEWEST = 72
"""Scenarios that the page promises."""


def rows() -> list[tuple[str, str, str, str, str, str]]:
    return ROW.findall((ROOT / "docs" / "clients.md").read_text())


def marks(path: str, name: str) -> tuple[bool, bool]:
    """Whether the test is there, and whether it, or some of its cases, waits for `-m prove`."""
    tree = ast.parse((ROOT / path).read_text())
    functions = [one for one in tree.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
    found = [one for one in functions if one.name == name]
    of_all = any(
        isinstance(one, ast.Assign) and "pytestmark" in ast.unparse(one) and "prove" in ast.unparse(one.value)
        for one in tree.body
    )
    return bool(found), of_all or any(
        "mark.prove" in ast.unparse(each) for one in found for each in one.decorator_list
    )


def test_every_row_is_a_row() -> None:
    lines = [
        line for line in (ROOT / "docs" / "clients.md").read_text().splitlines() if re.match(r"\| \d", line)
    ]
    assert len(rows()) == len(lines)
    assert [int(row[0]) for row in rows()] == list(range(1, len(lines) + 1))
    assert len({row[1:3] for row in rows()}) == len(lines) >= FEWEST


def test_each_scenario_is_played() -> None:
    wrong = []
    for number, _, _, path, name, run_by in rows():
        there, waits = marks(path, name)
        if not there or (run_by == "-m prove" and not waits):
            wrong.append(f"{number}: {path}::{name}")
    assert wrong == []


def test_what_make_test_is_said_to_run_it_runs() -> None:
    """A test whose cases alone are marked has one that is not."""
    wrong = [
        f"{number}: {path}::{name}"
        for number, _, _, path, name, run_by in rows()
        if run_by == "make test" and marks(path, name)[1] and "param(" not in (ROOT / path).read_text()
    ]
    assert wrong == []
