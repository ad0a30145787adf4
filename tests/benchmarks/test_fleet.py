"""The fleet's simulation against what is known in closed form, and which resource it says is full first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.fleet import (
    CORES,
    GPUS,
    LINES,
    MEMORY,
    CallCost,
    Fleet,
    Simulation,
    busy_hour,
    erlang_b,
    flash_crowd,
    main,
)

WIDE = Fleet(cores=10_000, mb=10**9, lines=10**6)
PATIENT = CallCost(tries=1, questions_a_minute=0)


@pytest.mark.parametrize("offered", [15.0, 20.0, 30.0])
def test_full_lines_refuse_as_erlang_says(offered: float) -> None:
    rate = offered / PATIENT.seconds
    found = Simulation(replace(WIDE, lines=20), PATIENT, lambda _: rate, rate, 1).run(400_000)
    assert found.lost / found.offered == pytest.approx(erlang_b(offered, 20), rel=0.12)
    assert found.first == LINES


def test_erlangs_formula_has_its_published_values() -> None:
    """Tables of Erlang B: 20 erlangs and 30 places lose .85 %, 10 erlangs and 10 places 21.5 %."""
    assert erlang_b(20, 30) == pytest.approx(0.0085, abs=0.0001)
    assert erlang_b(10, 10) == pytest.approx(0.2146, abs=0.0001)


@pytest.mark.parametrize(
    ("fleet", "first"),
    [
        (replace(WIDE, cores=1), CORES),
        (replace(WIDE, mb=400), MEMORY),
        (replace(WIDE, gpus=2, conversations=30), GPUS),
    ],
)
def test_what_there_is_least_of_is_full_first(fleet: Fleet, first: str) -> None:
    found = busy_hour(fleet, CallCost(), 120, 2)
    assert found.first == first
    assert found.lost > 0
    assert found.peak(first) <= 1


def test_questions_wait_for_ears_when_many_are_asked_at_once() -> None:
    few, many = (busy_hour(replace(WIDE, cores=2), CallCost(core=0), calls, 3) for calls in (10, 150))
    waits = [max(found.understood_s) for found in (few, many)]
    assert min(few.understood_s) == pytest.approx(CallCost().question_cpu_s)
    assert waits[1] > 2 * waits[0]


def test_a_flash_crowd_is_refused_and_most_of_it_gets_through_later() -> None:
    found = flash_crowd(replace(WIDE, lines=60), replace(CallCost(), seconds=20.0), 100, 4)
    assert found.refused[LINES] > 20
    assert found.lost < found.refused[LINES]


def test_the_command_prints_both_tables_and_draws(tmp_path: Path) -> None:
    path = tmp_path / "fleet.png"
    said = CliRunner().invoke(main, ["--calls", "5", "--gpus", "1", "--plot", str(path)])
    assert said.exit_code == 0, said.output
    assert "busy hour" in said.output
    assert "flash crowd" in said.output
    assert path.stat().st_size > 1000
    refused = CliRunner().invoke(main, ["--calls", "five"])
    assert "not a list of numbers" in refused.output
