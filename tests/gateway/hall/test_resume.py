"""A hall that died: what Redis remembers is taken up, the rest is hung up."""

from __future__ import annotations

import asyncio

import pytest

from gateway.dialplan import Answer, Converse
from gateway.dialplan.routes import Keep
from gateway.ipc.hall_messages import FollowRoute
from gateway.ipc.line_messages import AnswerCall
from tests.gateway.hall import virtual_hall as scripted
from tests.gateway.hall.virtual_hall import DISCLOSE, TOLD, TOLD_S, WORD_S, House, Phone

HOUSE_TIME = True

TALK = Converse(
    instructions="be kind", greeting="how can I help", not_understood=("say again",), silence_s=30.0
)


async def interrupted(house: House) -> Phone:
    """A call in its conversation whose hall has just died."""
    house.engine.hears = ["a question"]
    house.engine.answers = [scripted.Answer("an answer")]
    phone = await house.ring(Answer(), DISCLOSE, TALK, route={"keep": Keep(transcript=True)})
    await house.until(lambda: phone.heard_s() > TOLD_S + 3.9 * WORD_S)
    phone.speak(0.6)
    await house.until(lambda: phone.heard_s() > TOLD_S + 5.9 * WORD_S)
    await asyncio.sleep(0.5)
    await house.hall_dies()
    phone.heard.clear()
    return phone


async def back(house: House, phone: Phone, *, front: bool = True) -> None:
    """The line finds the new hall, and the front too."""
    line = house.lines["n0"]
    await house.hall._joined(line)  # type: ignore[arg-type]
    if front:
        await house.hall._joined(house.front)  # type: ignore[arg-type]
    await line.start(phone, resumed=True)


async def test_a_call_goes_on_in_the_new_hall(house: House) -> None:
    phone = await interrupted(house)
    before = house.engine.sessions[-1].grant
    await back(house, phone)
    asked = len(house.engine.said)
    await house.until(lambda: len(house.engine.said) > asked)
    assert house.engine.said[asked:] == ["say again"], "neither greeted nor told again"
    assert phone.asked == [AnswerCall(phone.call_id)], "and not answered again"
    (restored,) = house.engine.sessions[-1].told[1:2]
    words = [item["content"][0]["text"] for item in restored[1]]
    assert words == [TOLD, "how can I help", "a question", "an answer"]
    assert house.call(phone).state == "confirmed"
    assert house.front.followed[-1] == FollowRoute(phone.call_id, "demo"), "Redis keeps no grant"
    assert house.call(phone).licence.token not in (None, before)
    await house.until(lambda: phone.heard_s() > 0.7)
    house.engine.answers = [scripted.Answer("still here")]
    await house.until(lambda: not house.call(phone).playout.busy)
    phone.speak(0.6)
    await house.says("still here")


async def test_a_disclosure_that_died_with_its_hall_is_said_again(house: House) -> None:
    phone = await house.ring(Answer(), DISCLOSE, TALK)
    await house.until(lambda: phone.heard_s() > 2 * WORD_S)
    await house.hall_dies()
    asked = len(house.engine.said)
    await back(house, phone)
    await house.until(lambda: len(house.engine.said) > asked + 1)
    assert house.engine.said[asked:] == [TOLD, "say again"]


async def test_what_the_line_played_before_does_not_count_for_the_new_hall(house: House) -> None:
    phone = await interrupted(house)
    assert phone.played > 8_000
    await back(house, phone)
    await house.until(lambda: phone.heard_s() > 0.3)
    assert house.call(phone).seat.played_samples == pytest.approx(phone.heard_s() * 8_000, abs=400)
    phone.speak(0.8)
    await house.until(lambda: house.engine.sessions[-1].told and house.engine.told("truncate"))
    assert house.engine.told("truncate")[-1][1] <= phone.heard_s() * 1000 + 1


async def test_the_marks_of_a_call_go_on_later_than_those_it_was_sent_before(house: House) -> None:
    dead = house.hall
    phone = await interrupted(house)
    marked_to = dead.floor._bank.position(dead.calls[phone.call_id].seat.mark_slot)
    assert marked_to > 100 * (TOLD_S + 5.9 * WORD_S)
    await back(house, phone)
    goes_on_at = house.hall.floor._bank.position(house.call(phone).seat.mark_slot)
    assert marked_to < goes_on_at < marked_to + 300


async def test_a_front_that_comes_later_is_waited_for(house: House) -> None:
    phone = await interrupted(house)
    taking = asyncio.ensure_future(back(house, phone, front=False))
    await asyncio.sleep(3.0)
    await house.hall._joined(house.front)  # type: ignore[arg-type]
    await taking
    assert phone.call_id in house.hall.calls
    assert not phone.hung_up


async def test_without_a_front_there_is_no_grant_and_the_caller_is_not_left_in_silence(house: House) -> None:
    phone = await interrupted(house)
    began = house.loop.time()
    await back(house, phone, front=False)
    assert house.loop.time() - began == pytest.approx(5.0, abs=0.1)
    assert phone.hung_up
    assert house.is_empty()


@pytest.mark.parametrize("trouble", ["refused", "redis", "forgotten", "another version"])
async def test_a_call_that_cannot_be_taken_up_is_hung_up(house: House, trouble: str) -> None:
    phone = await interrupted(house)
    if trouble == "refused":
        house.front.refuses = "revoked"
    elif trouble == "redis":
        house.memory.away = True
    elif trouble == "forgotten":
        house.memory.hashes.clear()
    else:
        house.memory.hashes[f"vg:call:{phone.call_id}"]["offer"] = '{"routes": []}'
    await back(house, phone)
    assert phone.hung_up
    assert house.is_empty()


async def test_a_line_that_tells_twice_has_its_call_taken_up_once(house: House) -> None:
    phone = await interrupted(house)
    line = house.lines["n0"]
    await house.hall._joined(line)  # type: ignore[arg-type]
    both = [asyncio.ensure_future(line.start(phone, resumed=True)) for _ in range(2)]
    await asyncio.sleep(0.5)
    await house.hall._joined(house.front)  # type: ignore[arg-type]
    await asyncio.gather(*both)
    assert list(house.hall.calls) == [phone.call_id]
    assert not phone.hung_up
    assert len(house.bank.slots) == 1
    await house.hang_up(phone)
    await house.until(house.is_empty, 5.0)


POISONED = {
    "nested": "[" * 100_000,
    "a number": "5",
    "no fields": "{}",
    "huge numbers": '{"call_id": 1e999}',
    "bytes that were none of UTF-8": "\ufffd",
}


@pytest.mark.parametrize("poison", POISONED)
@pytest.mark.parametrize("field", ["offer", "disclosed"])
async def test_a_poisoned_session_costs_its_own_call_and_no_other(
    house: House, poison: str, field: str
) -> None:
    phone = await interrupted(house)
    other = await house.ring(Answer(), TALK, line="n1")
    facts = house.memory.hashes[f"vg:call:{phone.call_id}"]
    facts[field] = POISONED[poison]
    await back(house, phone)
    assert phone.hung_up
    assert other.call_id in house.hall.calls


ITEMS = (
    "5",
    "{}",
    '{"role": "user", "content": [5]}',
    '{"role": 5, "content": []}',
    '{"role": "user", "content": [{"type": "input_audio", "audio": "x", "rate_hz": 8000}]}',
    '{"role": "user", "content": [{"type": "input_audio", "audio": "AAAA", "rate_hz": "fast"}]}',
)


async def test_of_a_poisoned_history_the_rest_is_restored(house: House) -> None:
    phone = await interrupted(house)
    kept = house.memory.lists[f"vg:history:{phone.call_id}"]
    kept[1:1] = ITEMS
    asked = len(house.engine.said)
    await back(house, phone)
    await house.until(lambda: len(house.engine.said) > asked)
    (restored,) = house.engine.sessions[-1].told[1:2]
    words = [item["content"][0]["text"] for item in restored[1]]
    assert words == [TOLD, "how can I help", "a question", "an answer"]
