"""A part is ready, slow or down by what it says itself, whatever the other parts do."""

from __future__ import annotations

import asyncio

import pytest

from gateway.ipc.readiness import SLOW_FOR_S, PartState, Probe, worst

HOUSE_TIME = True


class Part:
    """Says what it is told to say, after `takes_s`."""

    def __init__(self) -> None:
        self.takes_s = 0.0
        self.says: str | bool | Exception = "all well"
        self.asked = 0
        self.probe = Probe(self._how, 1.0, "part")

    async def _how(self) -> str | bool:
        self.asked += 1
        await asyncio.sleep(self.takes_s)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says

    async def watched(self, seconds: float, every_s: float = 2.0) -> list[PartState]:
        """How it is found, asked again and again."""
        found = []
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            found.append(await self.probe.state())
            await asyncio.sleep(every_s)
        return found


@pytest.fixture
def part() -> Part:
    return Part()


async def test_a_part_is_ready_when_it_says_so_in_time(part: Part) -> None:
    part.takes_s = 0.9
    assert await part.probe.state() == "ready"
    assert part.probe.last == "all well"


@pytest.mark.parametrize("says", [False, OSError("refused"), RuntimeError("a bug")])
async def test_a_part_that_says_no_is_down_at_once(part: Part, says: bool | Exception) -> None:
    assert await part.probe.state() == "ready"
    part.says = says
    assert await part.probe.state() == "down"
    assert part.probe.last is None
    part.says = "here again"
    assert await part.probe.state() == "ready"


async def test_a_part_that_falls_silent_is_slow_and_then_down(part: Part) -> None:
    assert await part.probe.state() == "ready"
    part.takes_s = 1e6
    found = await part.watched(2 * SLOW_FOR_S)
    slow = found.count("slow")
    assert found == ["slow"] * slow + ["down"] * (len(found) - slow)
    assert slow == pytest.approx(SLOW_FOR_S / 3, abs=1), "a round is 3 s: 1 s of waiting, 2 s of pause"
    assert part.asked == 2, "it is not asked again before it has answered"


async def test_a_part_whose_question_ran_into_its_own_limit_is_silent_too(part: Part) -> None:
    assert await part.probe.state() == "ready"
    part.says = TimeoutError("nothing within 0.5 s")
    found = await part.watched(2 * SLOW_FOR_S)
    assert found[0] == "slow"
    assert found[-1] == "down"


async def test_a_part_that_answers_late_is_slow_and_not_down(part: Part) -> None:
    assert await part.probe.state() == "ready"
    part.takes_s = 2.5
    assert set(await part.watched(5 * SLOW_FOR_S)) == {"slow"}
    part.takes_s = 0.0
    await part.probe.state()  # what was asked before
    assert await part.probe.state() == "ready"


async def test_a_part_that_never_said_anything_is_down(part: Part) -> None:
    part.takes_s = 1e6
    assert await part.probe.state() == "down"


async def test_many_who_ask_at_once_are_one_question(part: Part) -> None:
    part.takes_s = 0.5
    assert await asyncio.gather(*(part.probe.state() for _ in range(50))) == ["ready"] * 50
    assert part.asked == 1


def test_a_thing_of_several_parts_is_as_its_worst() -> None:
    assert worst(["ready", "slow"]) == "slow"
    assert worst(["slow", "down", "ready"]) == "down"
    assert worst(["ready"]) == "ready"
    assert worst([]) == "down"
