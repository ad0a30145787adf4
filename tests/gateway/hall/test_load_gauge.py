"""What a hall measures of its time, and what it does when there is little."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from gateway.dialplan import Answer, Converse
from gateway.hall.calls.load_gauge import EVERY_S, HEARD_OVER
from gateway.hall.parts.first_sounds import CROWD, WINDOW_S, FirstSounds
from gateway.ipc.hall_messages import HallLoad
from tests.gateway.hall.virtual_hall import DISCLOSE, TOLD, House

HOUSE_TIME = True
TALK = Converse(instructions="be kind", greeting="how can I help", silence_s=60.0)
TELLING_S = 1.1


# ── first sounds ─────────────────────────────────────────────────────────────────────────────────────────


def test_one_slow_reply_says_nothing_of_the_engine() -> None:
    sounds = FirstSounds()
    sounds.note(100.0, 4.0)
    assert sounds.slow_s(101.0) == 0.0
    sounds.note(100.5, 0.2)
    assert sounds.slow_s(101.0) == 0.2
    sounds.note(100.6, 3.0)
    assert sounds.slow_s(101.0) == 3.0


def test_one_in_ten_is_slower() -> None:
    sounds = FirstSounds()
    for number in range(40):
        sounds.note(100.0, 2.0 if number < 5 else 0.2)
    assert sounds.slow_s(101.0) == 2.0
    for _ in range(20):
        sounds.note(100.0, 0.2)
    assert sounds.slow_s(101.0) == 0.2


def test_what_has_not_come_yet_counts_once_it_is_late() -> None:
    waiting = [0.1] * 30
    sounds = FirstSounds(lambda: waiting)
    for _ in range(9):
        sounds.note(100.0, 0.3)
    assert sounds.slow_s(101.0) == 0.3
    waiting[:] = [2.5, 2.5]
    assert sounds.slow_s(101.0) == 2.5


def test_old_replies_are_forgotten() -> None:
    sounds = FirstSounds()
    for _ in range(9):
        sounds.note(100.0, 3.0)
    assert sounds.slow_s(100.0 + WINDOW_S + 0.1) == 0.0


def test_what_is_forgotten_is_not_kept() -> None:
    sounds = FirstSounds()
    for call in range(100):
        sounds.note(float(call), 0.1)
    assert len(sounds._noted) == WINDOW_S


# ── the hall ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_first_sound_of_each_reply_is_timed_from_its_request(house: House) -> None:
    house.engine.think_s = 0.7
    phones = [await house.ring(Answer(), DISCLOSE, TALK) for _ in range(3)]
    await house.until(lambda: all(phone.heard_s() > 0 for phone in phones))
    assert house.hall.gauge.look().first_sound_s == pytest.approx(0.7, abs=0.1)


async def test_an_engine_that_owes_sound_is_slow_before_it_comes(house: House) -> None:
    house.engine.think_s = 60.0
    for _ in range(3):
        await house.ring(Answer(), DISCLOSE, TALK)
    await asyncio.sleep(2.0)
    assert house.hall.gauge.look().first_sound_s == pytest.approx(2.0, abs=0.2)


async def test_a_call_settles_when_it_has_said_a_second(house: House) -> None:
    phone = await house.ring(Answer(), DISCLOSE, TALK)
    load = house.hall.gauge.look()
    assert (load.calls, load.settled) == (1, 0)
    await house.until(lambda: phone.heard_s() > 1.2)
    load = house.hall.gauge.look()
    assert (load.calls, load.settled) == (1, 1)


async def test_the_recognisers_queue_is_its_mean_over_some_seconds(house: House) -> None:
    house.ears.wait_s = 0.0
    for _ in range(HEARD_OVER):
        house.hall.gauge.look()
    house.ears.wait_s = 1.0
    assert house.hall.gauge.look().hearing_s == pytest.approx(1 / HEARD_OVER)
    for _ in range(HEARD_OVER):
        house.hall.gauge.look()
    assert house.hall.gauge.look().hearing_s == pytest.approx(1.0)


async def test_the_front_is_told_twice_a_second(house: House) -> None:
    telling = asyncio.create_task(house.hall._tell_load())
    await asyncio.sleep(10 * EVERY_S - 0.1)
    assert sum(isinstance(told, HallLoad) for told in house.front.events) == 10
    telling.cancel()


# ── cached greetings before fresh speech ─────────────────────────────────────────────────────────────────


async def first_heard_s(house: House, **offer: Any) -> float:
    """From a call's offer to its first sound."""
    began = house.loop.time()
    phone = await house.ring(Answer(), DISCLOSE, TALK, **offer)
    await house.until(lambda: phone.heard_s() > 0)
    return house.loop.time() - began


@pytest.fixture
def rendered(house: House) -> House:
    """The greeting was rendered in advance, and the engine takes a second."""
    house.hall.prompts.keep(TOLD, [np.full(round(24_000 * TELLING_S), 0.3, np.float32)])
    house.engine.think_s = 1.0
    return house


async def test_under_load_a_greeting_that_is_there_waits_for_no_engine(rendered: House) -> None:
    assert await first_heard_s(rendered) > 1.0
    rendered.ears.wait_s = 5.0
    rendered.hall.gauge.look()
    assert await first_heard_s(rendered) < 0.5


async def test_of_many_who_come_at_once_those_who_come_late_wait_for_no_engine(rendered: House) -> None:
    rendered.engine.think_s = 3.0
    phones = [await rendered.ring(Answer(), DISCLOSE, TALK) for _ in range(10)]
    await asyncio.sleep(1.0)
    assert sum(phone.heard_s() > 0 for phone in phones) == 10 - CROWD
    assert rendered.engine.said.count(TOLD) == CROWD


async def test_it_is_remembered_as_said_and_the_call_goes_on(rendered: House) -> None:
    rendered.ears.wait_s = 5.0
    rendered.hall.gauge.look()
    phone = await rendered.ring(Answer(), DISCLOSE, TALK)
    await rendered.says("how can I help")
    assert TOLD not in rendered.engine.said
    assert [event["text"] for event in rendered.events(phone, "disclosed")] == [TOLD]


async def test_a_persons_voice_says_its_own_greeting_however_busy_it_is(rendered: House) -> None:
    rendered.ears.wait_s = 5.0
    rendered.hall.gauge.look()
    cloned = DISCLOSE.words(cloned=True)
    rendered.hall.prompts.keep(cloned, [np.full(24_000, 0.3, np.float32)])
    token = rendered.consent.token("call1", voice="jane")
    await first_heard_s(rendered, route={"voice": "jane"}, grant=token)
    assert cloned in rendered.engine.said


async def test_a_greeting_that_was_never_rendered_is_asked_for(house: House) -> None:
    house.ears.wait_s = 5.0
    house.hall.gauge.look()
    await first_heard_s(house)
    assert TOLD in house.engine.said
