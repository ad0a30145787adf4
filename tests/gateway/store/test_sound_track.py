"""The sound track of a call, written in rows and read again."""

from __future__ import annotations

import json

import pytest

from gateway.store.call_events import SoundRated
from gateway.store.sound_track import (
    FLAGS,
    NOTHING,
    POINTS,
    ROW_STEPS,
    STEP_S,
    end_row,
    point_row,
    read_track,
    steps_row,
)

AT = 1_764_513_942.12
LOUD = bytes([12, 20, FLAGS["speech"] | FLAGS["playing"]])
NONE = bytes([NOTHING, NOTHING, 0])


def test_levels_and_flags_come_back() -> None:
    read = read_track([steps_row(AT, LOUD + NONE + bytes([96, 200, 64]))]).to_json()
    assert read == {
        "step_s": STEP_S,
        "flag_names": dict(FLAGS),
        "parts": [
            {"began_at": AT, "caller": [-12, None, -96], "voice": [-20, None, -96], "flags": [3, 0, 64]}
        ],
        "quality": [],
        "marks": [],
        "grants": [],
        "ducks": [],
        "ended_early": False,
    }
    assert json.loads(json.dumps(read)) == read


def test_each_flag_is_a_bit_of_its_own() -> None:
    assert sum(FLAGS.values()) == 2 ** len(FLAGS) - 1


def test_rows_that_follow_each_other_are_one_part() -> None:
    rows = [steps_row(AT + 5 * k + 0.04 * (-1) ** k, LOUD * ROW_STEPS) for k in range(4)]
    (part,) = read_track(rows).parts
    assert len(part.flags) == 4 * ROW_STEPS


def test_a_row_that_is_missing_is_a_gap_and_shifts_nothing() -> None:
    rows = [steps_row(AT + 5 * k, LOUD * ROW_STEPS) for k in range(4)]
    first, second = read_track([rows[3], rows[0], rows[1]]).parts
    assert (first.began_at, len(first.flags)) == (AT, 2 * ROW_STEPS)
    assert (second.began_at, len(second.flags)) == (pytest.approx(AT + 15), ROW_STEPS)


def test_a_clock_that_runs_wrong_moves_no_step_far() -> None:
    """1 % is more than any clock: each row stands where it says, to a step and a half."""
    rows = [steps_row(AT + 5.05 * k, LOUD * ROW_STEPS) for k in range(40)]
    starts = [AT + 5.05 * k for k in range(40)]
    for part in read_track(rows).parts:
        for at in range(0, len(part.flags), ROW_STEPS):
            drawn = part.began_at + at * STEP_S
            assert min(abs(drawn - start) for start in starts) < 2 * STEP_S


def test_points_and_an_early_end() -> None:
    row = point_row(AT, "quality", {"loss_percent": 1.5, "far_jitter_ms": None, "mos": 4.1, "line": "n0"})
    later, mark = (point_row(AT + at, "marks", {"score": 31.2, "found": True}) for at in (1, 0))
    grant = point_row(AT, "grants", {"until": AT + 60, "renewed": False})
    assert row is not None
    assert later is not None
    assert mark is not None
    assert grant is not None
    read = read_track([later, row, grant, end_row(AT + 1), mark])
    assert read.points["quality"] == [{"at": AT, "loss_percent": 1.5, "mos": 4.1}]
    assert read.points["marks"] == [{"at": at, "score": 31.2, "found": 1} for at in (AT, AT + 1)]
    assert read.points["grants"] == [{"at": AT, "until": AT + 60, "renewed": 0}]
    assert read.ended_early
    assert point_row(AT, "quality", {"line": "n0"}) is None


HUGE = "9" * 400


@pytest.mark.parametrize(
    "row",
    [
        "", " ", "end", "quality {}", "x end", "nan end", "-1 end", "inf end", "1e300 end", f"{HUGE} end",
        f"{AT} ", f"{AT} AA", f"{AT} AAA", f"{AT} AAAAAA==", f"{AT} !!!!", f"{AT} \ufffd\ufffd\ufffd\ufffd",
        f"{AT} {'AAAA' * (ROW_STEPS + 1)}", f"{AT} quality ", f"{AT} quality [1]", f"{AT} quality {{",
        f"{AT} END",
        f"{AT} quality {'[' * 100_000}", f'{AT} quality {{"mos": "4"}}', f'{AT} quality {{"mos": NaN}}',
        f'{AT} quality {{"mos": {HUGE}}}', f'{AT} quality {{"mos": true}}', f'{AT} quality {{"words": 1}}',
        f"{AT} marks 1", f"{AT} grants {{}}", f'{AT} sum {{"score": 1}}',
    ],
    ids=range(30),
)  # fmt: skip
def test_what_is_not_a_row_of_ours_is_left_out(row: str) -> None:
    read = read_track([row, steps_row(AT, LOUD)])
    assert [part.caller for part in read.parts] == [[-12]]
    assert not any(read.points.values())
    assert not read.ended_early


def test_quality_has_the_names_of_the_event() -> None:
    assert set(POINTS["quality"]) <= set(SoundRated.__dataclass_fields__)
