"""Recordings go when their time is over, by a clock that may be believed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from consent.errors import ClockError, OfficeAway
from gateway.front.calls.kept_recordings import KeptRecordings


@dataclass
class Office:
    """What is used of `FrontOffice`: its clock, which may be none."""

    now_s: float = 1000.0
    trouble: Exception | None = None

    def now(self) -> float:
        if self.trouble is not None:
            raise self.trouble
        return self.now_s


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of two calls, recorded at 800 and at 950 s, with a text that is as old as the first."""
    for name, at in (("a/old.wav", 800), ("a/old.txt", 800), ("b/new.wav", 950)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"sound")
        os.utime(path, (at, at))
    return tmp_path


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*/*")}


def test_what_is_past_its_time_is_deleted_and_nothing_else(folder: Path) -> None:
    KeptRecordings(folder, 100.0, Office()).delete_old()  # type: ignore[arg-type]  # its clock
    assert left(folder) == {"old.txt", "new.wav"}
    KeptRecordings(folder, 100.0, Office(1051.0)).delete_old()  # type: ignore[arg-type]  # its clock
    assert left(folder) == {"old.txt"}


@pytest.mark.parametrize("trouble", [ClockError("set back"), OfficeAway("away")], ids=["clock", "office"])
def test_without_a_clock_to_believe_all_of_them_stay(folder: Path, trouble: Exception) -> None:
    KeptRecordings(folder, 100.0, Office(trouble=trouble)).delete_old()  # type: ignore[arg-type]  # its clock
    assert left(folder) == {"old.wav", "old.txt", "new.wav"}
