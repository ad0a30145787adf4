"""The table of faults is whole: numbered from one, and every test that it names is there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from benchmarks import fault_rows
from benchmarks.fault_rows import ROOT, FaultRow, all_rows

ROWS = all_rows()


def test_the_faults_are_numbered_from_one() -> None:
    assert [row.number for row in ROWS] == list(range(1, 19))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"fault {row.number}")
def test_the_tests_of_a_fault_are_there(row: FaultRow) -> None:
    assert row.tests, f"{row.step}: no test makes it happen"
    assert "not yet" not in (row.caller + row.operator + row.recovers)
    for test in row.tests:
        path, _, name = test.partition("::")
        tree = ast.parse((ROOT / path).read_text())
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        names = {node.name for node in ast.walk(tree) if isinstance(node, functions)}
        assert not name or name.partition("[")[0] in names, f"{path} has no {name}"


def test_a_row_is_printed_with_what_was_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(
        "def test_good(record_property):\n"
        "    record_property('caller', 'a 503')\n"
        "    record_property('operator', 'a line')\n"
        "def test_bad(record_property):\n"
        "    record_property('caller', 'a 503')\n"
        "    assert False\n"
    )
    (tmp_path / "conftest.py").write_text(
        "def pytest_configure(config):\n    config.addinivalue_line('markers', 'prove: long')\n"
    )
    monkeypatch.setattr(fault_rows, "ROOT", tmp_path)
    row = FaultRow.read("| 7 | SQL is away | 503 | `SQL` | by itself | `tests/test_it.py` |")
    assert row is not None
    found = fault_rows.try_fault(row)
    assert found["why"] == ["test_bad: assert False"]
    assert fault_rows.printed(row, found) == (
        "| 7 | SQL is away | a 503 | a line | 1 passed, **test_bad failed** |"
    )


def test_other_lines_are_no_rows() -> None:
    assert (
        FaultRow.read("| | fault | the caller notices | the operator notices | it recovers | tests |") is None
    )
    assert FaultRow.read("text") is None
