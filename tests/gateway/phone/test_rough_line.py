"""A rough line decides by number and seed: the same packets each time, and as many as it says."""

from __future__ import annotations

from itertools import pairwise

import pytest

from gateway.phone.rough_line import PacketFate, PacketFates, RoughLine


def fates(line: RoughLine, count: int, call: int = 0) -> list[PacketFate]:
    made = PacketFates(line, call)
    return [made.next() for _ in range(count)]


@pytest.mark.parametrize("percent", [1, 5, 10, 20, 50])
def test_of_each_hundred_so_many_are_lost(percent: int) -> None:
    lost = [fate.lost for fate in fates(RoughLine(loss_percent=percent), 500)]
    assert [sum(lost[at : at + 100]) for at in range(0, 500, 100)] == [percent] * 5


def test_parts_of_a_packet_are_owed_until_they_make_one() -> None:
    lost = [fate.lost for fate in fates(RoughLine(loss_percent=0.25), 1200)]
    assert [sum(lost[at : at + 100]) for at in range(0, 1200, 100)] == [0, 0, 0, 1] * 3


def test_packets_of_a_burst_are_lost_in_a_row() -> None:
    lost = [fate.lost for fate in fates(RoughLine(loss_percent=10, burst=4), 1000)]
    runs = "".join("x" if one else "." for one in lost).replace(".", " ").split()
    assert sum(lost) == 100
    assert all(len(run) % 4 == 0 for run in runs), runs


def test_the_same_seed_is_the_same_line_and_another_call_is_not() -> None:
    line = RoughLine(loss_percent=10, jitter_ms=40, reorder_percent=5, seed=7)
    assert fates(line, 300) == fates(line, 300)
    assert fates(line, 300) != fates(line, 300, call=1)
    assert fates(line, 300) != fates(RoughLine(10, 1, 40, 5, seed=8), 300)


def test_packets_are_late_by_what_was_asked_at_most() -> None:
    held = [fate.held_s for fate in fates(RoughLine(jitter_ms=40), 1000)]
    assert 0 <= min(held) < 0.002
    assert 0.038 < max(held) <= 0.04


def test_no_two_packets_that_follow_each_other_are_both_overtaken() -> None:
    overtaken = [fate.overtaken for fate in fates(RoughLine(reorder_percent=20), 1000)]
    assert sum(overtaken) == 200
    assert not any(a and b for a, b in pairwise(overtaken))


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"loss_percent": 51}, "loss: 51 is not a percentage from 0 to 50"),
        ({"reorder_percent": -1}, "reorder: -1 is not a percentage"),
        ({"jitter_ms": 2000}, "jitter: 2000 is not a number of milliseconds from 0 to 1000"),
        ({"heard_loss_percent": 99}, "heard-loss: 99 is not a percentage"),
        ({"burst": 0}, "burst: 0 is not a number of packets from 1 to 20"),
    ],
)
def test_what_no_line_can_do_is_an_error(asked: dict[str, float], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        RoughLine(**asked)  # type: ignore[arg-type]


def test_what_comes_has_fates_of_its_own() -> None:
    line = RoughLine(loss_percent=10, heard_loss_percent=10, burst=2)
    heard = [fate.lost for fate in fates(line.heard, 100)]
    assert sum(heard) == 10
    assert heard != [fate.lost for fate in fates(line, 100)]
    assert RoughLine(heard_loss_percent=10).smooth, "what it sends is not touched"


def test_a_line_that_does_nothing_is_smooth() -> None:
    assert RoughLine(seed=9, burst=3).smooth
    assert not RoughLine(jitter_ms=1).smooth
