"""The machine's clock is set while calls go on: what waits goes by the clock that nobody sets."""

from __future__ import annotations

import asyncio

import pytest

from gateway.dialplan import Answer, Converse, Gather, Hangup, Record, Route, Say
from tests.gateway.hall.virtual_hall import House, Phone

HOUSE_TIME = True

HOUR_S = 3600.0
LONG = Say(text=" ".join(["word"] * 600))
ONE = Route(name="one", do=(Hangup(say="you chose one"),))
JUMPS = pytest.mark.parametrize("by_s", [-HOUR_S, 25.0])
"""Back, as far as you like; forward, by less than half of a grant's life."""


async def speaking(house: House) -> Phone:
    phone = await house.ring(Answer(), LONG)
    await house.until(lambda: phone.heard_s() > 1.0)
    return phone


@JUMPS
async def test_a_call_speaks_on_and_its_grant_is_renewed(house: House, by_s: float) -> None:
    phone = await speaking(house)
    house.loop.set_wall(by_s)
    await asyncio.sleep(70.0)
    assert not house.events(phone, "muted")
    assert len(house.front.renewed) >= 2
    assert phone.heard[-1] > 0.01


async def test_a_clock_set_forward_by_more_than_a_grants_life_ends_the_call_in_time(house: House) -> None:
    """Its grant has lapsed, by the clock that grants are signed by; the next call gets one of now."""
    phone = await speaking(house)
    house.loop.set_wall(HOUR_S)
    jumped = house.loop.time()
    assert await house.over(phone) == "failed: the voice may not be used: expired"
    assert house.loop.time() - jumped < 35.0, "half a grant's life, and three seconds of silence"
    after = await speaking(house)
    assert house.call(after).licence.muted is None


@JUMPS
async def test_who_is_silent_is_asked_as_soon_as_ever(house: House, by_s: float) -> None:
    talk = Converse(instructions="x", greeting="hello", silence_s=6.0, silence_prompts=("still there",))
    phone = await house.ring(Answer(), talk)
    await house.until(lambda: phone.heard_s() > 0.3)
    house.loop.set_wall(by_s)
    began = house.loop.time()
    await house.says("still there", 20.0)
    assert 4.0 < house.loop.time() - began < 9.0


@JUMPS
async def test_keys_and_recordings_wait_as_long_as_the_plan_says(house: House, by_s: float) -> None:
    verbs = (
        Gather(prompt="press one", branches={"1": "one"}, timeout_s=5.0),
        Record(announce="speak now", beep=False, max_s=4.0, silence_s=30.0),
        Hangup(say="thank you"),
    )
    phone = await house.ring(Answer(), *verbs, others=(ONE,))
    await house.until(lambda: phone.heard_s() > 0.7)
    house.loop.set_wall(by_s)
    began = house.loop.time()
    await house.says("speak now")
    assert 4.0 < house.loop.time() - began < 7.0
    await house.until(lambda: house.call(phone).ear.tapped)
    house.loop.set_wall(by_s)
    phone.speak(10.0)
    await house.says("thank you")
    (event,) = house.events(phone, "recorded")
    assert event["seconds"] == pytest.approx(4.0, abs=1.1)
