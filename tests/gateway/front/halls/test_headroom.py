"""Whether there is time for one more call: by what halls measure, what a call costs, and what went wrong."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from gateway.config.settings import Settings
from gateway.front.halls.headroom import FEW, REOPEN, SILENT_S, SLOWLY_S, Headroom
from gateway.hall.calls.load_gauge import EVERY_S
from gateway.ipc.hall_messages import HallLoad

HOUSE_TIME = True
BOUNDS = Settings().time_bounds


def pass_of(strain: float) -> float:
    """Seconds of a pass that are such a part of the bound."""
    return strain * BOUNDS["pass_s"]


def loaded(calls: int, strain: float, settled: int | None = None) -> HallLoad:
    return HallLoad(calls=calls, settled=calls if settled is None else settled, pass_s=pass_of(strain))


@pytest.fixture
def headroom() -> Headroom:
    return Headroom(BOUNDS)


async def test_a_hall_that_has_told_nothing_takes_calls(headroom: Headroom) -> None:
    assert headroom.why_full("hall0", 40) == ""


@pytest.mark.parametrize("measure", sorted(BOUNDS))
async def test_each_measure_refuses_past_its_bound(headroom: Headroom, measure: str) -> None:
    headroom.told("hall0", HallLoad(calls=3, settled=3, **{measure: 0.95 * BOUNDS[measure]}))
    assert headroom.why_full("hall0", 3) == ""
    headroom.told("hall0", HallLoad(calls=3, settled=3, **{measure: 1.05 * BOUNDS[measure]}))
    assert measure in headroom.why_full("hall0", 3)


async def test_a_bound_of_zero_and_admission_that_is_off_refuse_nothing() -> None:
    slow = HallLoad(calls=3, settled=3, pass_s=1.0, late_s=1.0)
    for settings in (Settings(admit_by_time=False), Settings(most_pass_s=0, most_late_s=0)):
        headroom = Headroom(settings.time_bounds)
        headroom.told("hall0", slow)
        assert headroom.why_full("hall0", 3) == ""


async def test_a_hall_without_a_call_takes_one_whatever_it_measured(headroom: Headroom) -> None:
    headroom.told("hall0", loaded(0, 9.0))
    assert headroom.why_full("hall0", 0) == ""
    assert headroom.why_full("hall0", 1) != ""


async def test_what_was_full_takes_calls_again_well_below_its_bound(headroom: Headroom) -> None:
    headroom.told("hall0", loaded(30, 0.1))
    assert headroom.why_full("hall0", 30) == ""
    headroom.told("hall0", loaded(30, 1.01, settled=0))  # nothing is learned of what a call costs
    assert headroom.why_full("hall0", 20) != ""
    headroom.told("hall0", loaded(20, REOPEN + 0.05, settled=0))
    assert headroom.why_full("hall0", 20) != "", "it was full a moment ago"
    headroom.told("hall0", loaded(20, REOPEN - 0.05, settled=0))
    assert headroom.why_full("hall0", 20) == ""
    headroom.told("hall0", loaded(20, REOPEN + 0.05, settled=0))
    assert headroom.why_full("hall0", 20) == ""


async def test_calls_that_do_not_speak_yet_count_with_what_a_call_costs(headroom: Headroom) -> None:
    headroom.told("hall0", loaded(1, 0.1))
    headroom.told("hall0", loaded(20, 0.6))  # .025 each
    taken = 0
    while headroom.why_full("hall0", 20 + taken) == "":
        taken += 1
        assert taken < 100
    assert 14 <= taken <= 16


async def test_what_a_call_costs_is_known_when_all_calls_are_over(headroom: Headroom) -> None:
    headroom.told("hall0", loaded(1, 0.1))
    headroom.told("hall0", loaded(20, 0.9))  # .04 each
    headroom.told("hall0", loaded(0, 0.0))
    assert headroom.why_full("hall0", 15) == ""
    assert headroom.why_full("hall0", 30) != "", "30 that came at once would not be served"


async def test_one_call_says_little_of_what_calls_cost(headroom: Headroom) -> None:
    headroom.told("hall0", loaded(1, 0.05))
    headroom.told("hall0", loaded(1, 0.25))  # somebody else had the processor
    assert headroom.why_full("hall0", 1 + 2 * FEW) == ""


async def test_a_hall_that_does_not_tell_any_more_takes_no_further_call(headroom: Headroom) -> None:
    headroom.told("hall0", loaded(4, 0.1))
    await asyncio.sleep(SILENT_S + 0.5)
    assert "has not told" in headroom.why_full("hall0", 4)
    assert headroom.why_full("hall0", 0) == ""
    headroom.told("hall0", loaded(4, 0.1))
    assert headroom.why_full("hall0", 4) == ""


async def test_the_next_hall_of_that_name_begins_anew(headroom: Headroom) -> None:
    headroom.told("hall0", loaded(10, 3.0))
    assert headroom.why_full("hall0", 10) != ""
    headroom.lost("hall0")
    assert headroom.why_full("hall0", 10) == ""


async def test_only_the_halls_that_have_time_are_left(headroom: Headroom) -> None:
    headroom.told("hall0", loaded(4, 1.5))
    headroom.told("hall1", loaded(9, 0.2))
    assert headroom.with_time({"hall0": 4, "hall1": 9}) == {"hall1": 9}


# ── a machine ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Machine:
    """A hall whose passes grow with its calls, and a queue that grows without end past `able` calls.

    What it measures is as old as what a real hall measures: the last five seconds.
    """

    able: float
    headroom: Headroom
    calls: list[tuple[float, float]] = field(default_factory=list)
    """when each begins and ends"""
    queue_s: float = 0.0
    past: list[tuple[float, float]] = field(default_factory=list)
    refused: int = 0

    def live(self, now: float) -> None:
        """Half a second goes by."""
        self.calls = [call for call in self.calls if now < call[1]]
        over = len(self.calls) - self.able
        self.queue_s = max(0.0, self.queue_s + EVERY_S * over / self.able)
        self.past.append((now, self.queue_s))
        self.past = [(at, wait_s) for at, wait_s in self.past if now - at < 5]
        self.headroom.told(
            "hall0",
            HallLoad(
                calls=len(self.calls),
                settled=sum(now - began > 3 for began, _ in self.calls),
                pass_s=0.001 + 0.0001 * len(self.calls),
                late_s=0.004,
                hearing_s=sum(wait_s for _, wait_s in self.past) / len(self.past),
                first_sound_s=0.2 + self.queue_s,
            ),
        )

    def ring(self, now: float) -> bool:
        if self.headroom.why_full("hall0", len(self.calls)):
            self.refused += 1
            return False
        self.calls.append((now, now + LASTS_S[len(self.calls) % len(LASTS_S)]))
        return True


LASTS_S = (40.0, 12.0, 90.0, 30.0, 25.0, 60.0, 18.0)


async def days_work(machine: Machine, seconds: float, every_s: float) -> list[tuple[int, float]]:
    """Callers ring every so often; (calls, queue) each half second."""
    now = asyncio.get_running_loop().time
    course, rung = [], now()
    until = now() + seconds
    while now() < until:
        machine.live(now())
        course.append((len(machine.calls), machine.queue_s))
        while rung < now():
            machine.ring(now())
            rung += every_s
        await asyncio.sleep(EVERY_S)
    return course


@pytest.mark.parametrize("every_s", [0.005, 0.2, 2.0])
async def test_a_machine_with_time_refuses_nobody(headroom: Headroom, every_s: float) -> None:
    machine = Machine(1000, headroom)
    for _ in range(3):  # all come, all go
        rung = 0
        while rung < 64:
            machine.live(asyncio.get_running_loop().time())
            for _ in range(max(1, round(EVERY_S / every_s))):
                if rung < 64:
                    rung += 1
                    assert machine.ring(asyncio.get_running_loop().time())
            await asyncio.sleep(max(EVERY_S, every_s))
        for _ in range(round(2 * max(LASTS_S))):
            machine.live(asyncio.get_running_loop().time())
            await asyncio.sleep(EVERY_S)
    assert machine.refused == 0


async def test_more_callers_than_the_machine_can_serve_do_not_make_it_swing(headroom: Headroom) -> None:
    machine = Machine(30, headroom)
    course = await days_work(machine, 900.0, every_s=0.3)
    assert machine.refused > 1000
    settled = course[len(course) // 3 :]
    kept = sum(queue_s < 1.5 for _, queue_s in settled) / len(settled)
    assert kept > 0.85, "a queue past its bound is not how it lives"
    assert max(queue_s for _, queue_s in settled) < 6
    calls = [calls for calls, _ in settled]
    assert max(calls) <= 1.25 * machine.able
    assert sum(calls) / len(calls) > 0.8 * machine.able
    falls = sum(b < 0.5 * machine.able <= a for a, b in pairwise(calls))
    assert falls <= len(settled) * EVERY_S / 60, "it may have been emptied once a minute at most"


async def test_a_neighbour_that_goes_gives_its_calls_back(headroom: Headroom) -> None:
    machine = Machine(15, headroom)
    course = await days_work(machine, 400.0, every_s=0.3)
    assert max(calls for calls, _ in course[-100:]) < 20
    machine.able = 60
    course = await days_work(machine, SLOWLY_S + 200.0, every_s=0.3)
    assert max(calls for calls, _ in course[-100:]) > 45


async def test_what_a_hall_has_left_is_told_and_asking_changes_nothing(headroom: Headroom) -> None:
    assert headroom.rooms() == ()
    headroom.told("hall0", loaded(3, 0.9))
    assert headroom.why_full("hall0", 3) == ""
    (room,) = headroom.rooms()
    assert (room.name, room.calls, room.at_most, room.full) == ("hall0", 3, None, False)
    assert room.strain["pass_s"] == pytest.approx(0.9)
    headroom.told("hall0", loaded(3, 1.2))
    assert headroom.why_full("hall0", 3) != ""
    assert headroom.rooms()[0].full
    await asyncio.sleep(5.0)
    assert headroom.rooms()[0].told_ago_s == pytest.approx(5.0)
    assert headroom.rooms() == headroom.rooms()
