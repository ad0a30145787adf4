"""A leak of 2 kB a call is found by its slope; what only goes up and down is not taken for one."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from benchmarks.house_meter import pss_anon_kb
from benchmarks.slopes import Slope, blocks, least_squares, slope

ALLOWED_KB = 1.0
LEAK_KB = 2.0


def house(leak_kb: float, calls: int, seed: int) -> tuple[list[float], list[float]]:
    """(calls that ended, kB) of a made-up hall: calls that live in it, readings that follow each other, and
    what grows once at the start."""
    chance = np.random.default_rng(seed)
    ended = np.sort(chance.uniform(0, calls, 600))
    living = 300.0 * chance.poisson(8, 600)
    drift = np.zeros(600)
    for n in range(1, 600):
        drift[n] = 0.9 * drift[n - 1] + chance.normal(0, 60)
    begin = 4000 * (1 - np.exp(-ended / calls * 40))
    return ended.tolist(), (200_000 + begin + living + drift + leak_kb * ended).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_a_leak_of_2_kb_a_call_is_found_within_an_hours_calls(seed: int) -> None:
    found = slope(*house(LEAK_KB, 3600, seed))
    assert found is not None
    assert found.verdict(ALLOWED_KB) == "grows"
    assert found.low <= LEAK_KB + 0.5
    assert found.per == pytest.approx(LEAK_KB, abs=0.5)


@pytest.mark.parametrize("seed", range(5))
def test_a_house_that_does_not_leak_is_steady(seed: int) -> None:
    found = slope(*house(0.0, 3600, seed))
    assert found is not None
    assert found.verdict(ALLOWED_KB) == "steady"


def test_too_few_calls_are_no_proof_of_either() -> None:
    found = slope(*house(LEAK_KB, 40, 1))
    assert found is not None
    assert found.verdict(ALLOWED_KB) == "unclear"
    assert slope([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) is None


LEAKS = """
import sys
kept, line = [], b"x" * int(sys.argv[1])
for _ in sys.stdin:
    lost = [bytearray(20_000) for _ in range(10)]  # a call's own, which it gives back
    if line:
        kept.append(bytearray(line))
    print(flush=True)
"""


@pytest.mark.parametrize(("leak_bytes", "verdict"), [(2048, "grows"), (0, "steady")])
def test_a_process_that_keeps_2_kb_of_each_call_is_found_by_its_memory(leak_bytes: int, verdict: str) -> None:
    argv = [sys.executable, "-c", LEAKS, str(leak_bytes)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ended, memory = [], []
        for call in range(2000):
            process.stdin.write(b"\n")
            process.stdin.flush()
            process.stdout.readline()
            if call % 10 == 0:
                ended.append(float(call))
                memory.append(pss_anon_kb(process.pid))
        process.stdin.close()
    found = slope(ended, memory)
    assert found is not None
    assert found.verdict(ALLOWED_KB) == verdict, found


def test_of_a_block_the_lowest_or_the_mean_counts_and_gaps_are_left_out() -> None:
    x, y = [1.0, 2.0, 3.0, 4.0, 5.0], [5.0, 3.0, float("nan"), 8.0, 10.0]
    xs, ys = blocks(x, y, "lowest", 2)
    assert (xs.tolist(), ys.tolist()) == ([2.0, 4.0], [3.0, 8.0])
    xs, ys = blocks(x, y, "mean", 2)
    assert (xs.tolist(), ys.tolist()) == ([1.5, 4.5], [4.0, 9.0])


def test_the_bounds_of_a_slope_hold_it_as_often_as_they_say() -> None:
    chance, x = np.random.default_rng(1), np.arange(12.0)
    above = sum(least_squares(x, 3 * x + chance.normal(0, 5, 12)).low > 3 for _ in range(2000))
    assert 5 <= above <= 40, "of 2000, 1 % are 20"


def test_a_line_needs_three_points_and_two_places() -> None:
    with pytest.raises(ValueError, match="2 points do not make a line"):
        least_squares([1, 2], [1, 2])
    with pytest.raises(ValueError, match="3 points"):
        least_squares([1, 1, 1], [1, 2, 3])
    assert Slope(2.0, 1.5, 2.5, 12).verdict(1.0) == "grows"
    assert Slope(2.0, 1.5, 2.5, 12).verdict(2.0) == "unclear"
