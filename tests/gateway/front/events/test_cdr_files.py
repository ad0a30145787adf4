"""CDRs as files: each call once, a new file by day and size, and no formula in a cell."""

from __future__ import annotations

import csv
import json
import os
import time
from pathlib import Path

import pytest

from gateway.front.events.cdr_files import COLUMNS, CdrFiles, cell
from gateway.front.events.event_shelf import KeptEvent
from gateway.store.call_events import CallDetail

DAY_S = 86_400.0


def over(number: int, **facts: str) -> KeptEvent:
    detail = CallDetail(
        call_id=f"c{number}", ended_at=9.0, how="caller hung up", party="caller hung up", **facts
    )
    data = {"how": detail.how, "cdr": detail.to_json()}
    return KeptEvent("call.ended", 1, f"0123456789abcdef-{number}", number, 4, 9.0, detail.call_id, data)


def files(folder: Path, longest: int = 1_000_000) -> CdrFiles:
    return CdrFiles(folder / "cdr", ("json", "csv"), longest, 10 * DAY_S)


def written(folder: Path, form: str = "*") -> list[Path]:
    return sorted(folder.glob(f"cdr/*.{form}"))


def lines(folder: Path) -> list[str]:
    return [json.loads(line)["call_id"] for path in written(folder, "jsonl") for line in path.open()]


def rows(folder: Path) -> list[dict[str, str]]:
    return [row for path in written(folder, "csv") for row in csv.DictReader(path.open(newline=""))]


async def test_a_call_is_a_line_of_json_and_a_row_of_csv(tmp_path: Path) -> None:
    made = files(tmp_path)
    for number in (1, 2):
        assert (await made.tell(over(number, caller="sip:bob@x", plan="p1"), 0)).said == "taken"
    assert lines(tmp_path) == ["c1", "c2"]
    first = rows(tmp_path)[0]
    assert tuple(first) == COLUMNS
    assert (first["event_id"], first["caller"], first["plan"]) == ("0123456789abcdef-1", "sip:bob@x", "p1")
    assert all(path.stat().st_mode & 0o077 == 0 for path in written(tmp_path))


async def test_a_call_that_was_written_already_is_not_written_again(tmp_path: Path) -> None:
    """The front was killed between the row and what it noted of it."""
    for number in (1, 2, 2, 1):
        await files(tmp_path).tell(over(number), 0)
    assert lines(tmp_path) == ["c1", "c2"]
    assert [row["call_id"] for row in rows(tmp_path)] == ["c1", "c2"]


async def test_half_a_row_is_written_whole(tmp_path: Path) -> None:
    await files(tmp_path).tell(over(1), 0)
    for path in written(tmp_path):
        with path.open("ab") as file:
            file.write(path.read_bytes().splitlines()[-1].replace(b"-1", b"-2")[:40])
    await files(tmp_path).tell(over(2), 0)
    assert lines(tmp_path) == ["c1", "c2"]
    assert [row["call_id"] for row in rows(tmp_path)] == ["c1", "c2"]


async def test_a_file_that_is_large_is_closed(tmp_path: Path) -> None:
    for number in range(1, 7):
        await files(tmp_path, longest=500).tell(over(number), 0)
    assert lines(tmp_path) == [f"c{number}" for number in range(1, 7)]
    assert [row["call_id"] for row in rows(tmp_path)] == [f"c{number}" for number in range(1, 7)]
    assert len(written(tmp_path, "jsonl")) > 1
    assert len(written(tmp_path, "csv")) > 1


async def test_a_day_has_its_own_files_and_old_ones_go(tmp_path: Path) -> None:
    await files(tmp_path).tell(over(1), 0)
    for path in written(tmp_path):
        day, form = time.strftime("%Y-%m-%d", time.gmtime()), path.suffix
        old = path.rename(path.with_name(path.name.replace(day, "2020-01-01")))
        os.utime(old, (time.time() - 11 * DAY_S,) * 2)
        assert form in (".jsonl", ".csv")
    await files(tmp_path).tell(over(2), 0)
    assert lines(tmp_path) == ["c2"]


async def test_a_disk_that_takes_nothing_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "cdr").write_text("in the way")
    outcome = await files(tmp_path).tell(over(1), 0)
    assert (outcome.said, bool(outcome.why)) == ("later", True)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+4930", "'+4930"),
        ("-1+1", "'-1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("  =1", "'  =1"),
        ("a\r\n=1,b", "a =1,b"),
        ("sip:bob@x", "sip:bob@x"),
        ("\0=1", "'=1"),
        (-1.5, "-1.5"),
        (None, ""),
    ],
    ids=range(11),
)
def test_no_cell_is_a_formula(value: object, shown: str) -> None:
    assert cell(value) == shown


async def test_what_a_caller_calls_itself_breaks_no_row(tmp_path: Path) -> None:
    evil = '=cmd|"/c calc"!A1\r\nx,"y'
    await files(tmp_path).tell(over(1, caller=evil), 0)
    (row,) = rows(tmp_path)
    assert row["caller"] == '\'=cmd|"/c calc"!A1 x,"y'
    assert row["how"] == "caller hung up"
