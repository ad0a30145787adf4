"""Memory by process, read where the supervisor says who is who."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gateway.config.runtime import Runtime
from gateway.front.house.resident_memory import PAGE, resident


def test_each_process_has_its_own_and_one_that_is_gone_has_none(tmp_path: Path) -> None:
    (tmp_path / "pids.json").write_text(json.dumps({"front": os.getpid(), "web0": 2**22 + 1}))
    found = resident(Runtime(tmp_path))
    assert set(found) == {"front", "supervisor"}
    assert found["front"] > 10 * 2**20  # an interpreter with pytest in it


def test_it_is_the_resident_pages_that_count(tmp_path: Path) -> None:
    (tmp_path / "pids.json").write_text('{"hall0": 7}')
    (tmp_path / "proc" / "7").mkdir(parents=True)
    (tmp_path / "proc" / "7" / "statm").write_text("9000 300 200 1 0 400 0\n")
    assert resident(Runtime(tmp_path), tmp_path / "proc") == {"hall0": 300 * PAGE}


@pytest.mark.parametrize("written", ["", "[1]", '{"front": "x"}', "{"])
def test_a_file_that_says_nothing_is_no_fault(tmp_path: Path, written: str) -> None:
    (tmp_path / "pids.json").write_text(written)
    assert resident(Runtime(tmp_path)) == {}
