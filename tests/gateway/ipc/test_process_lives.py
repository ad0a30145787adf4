"""What the supervisor notes of its processes is what the front reads; what is no such note is nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.ipc.process_lives import LONGEST_ERROR, NAMED_AT_MOST, ProcessLife, note_lives, noted_lives

LIFE = ProcessLife(7, 3, False, "it was killed by signal 9 (SIGKILL)")


def test_what_is_noted_is_read(tmp_path: Path) -> None:
    path = tmp_path / "lives.json"
    note_lives(path, {"front": LIFE, "hall0": ProcessLife(0, 0, True, "")})
    assert noted_lives(path) == {"front": LIFE, "hall0": ProcessLife(0, 0, True, "")}
    assert [one.name for one in tmp_path.iterdir()] == ["lives.json"]


@pytest.mark.parametrize("written", ["", "[1]", "{", '{"front": 1}', '{"front": {"pid": "x"}}', "null"])
def test_a_file_that_says_nothing_is_no_fault(tmp_path: Path, written: str) -> None:
    (tmp_path / "lives.json").write_text(written)
    assert noted_lives(tmp_path / "lives.json") == {}
    assert noted_lives(tmp_path / "nowhere.json") == {}


def test_what_it_says_is_bounded(tmp_path: Path) -> None:
    long = {"pid": 1, "restarts": 0, "hopeless": False, "error": "x" * 10_000}
    (tmp_path / "lives.json").write_text(json.dumps({f"p{k}": long for k in range(NAMED_AT_MOST + 50)}))
    found = noted_lives(tmp_path / "lives.json")
    assert len(found) == NAMED_AT_MOST
    assert {len(one.error) for one in found.values()} == {LONGEST_ERROR}
