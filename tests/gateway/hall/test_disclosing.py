"""What callers are told of the machine: once, whole, and again when they ask."""

from __future__ import annotations

import asyncio

import pytest

from gateway.dialplan import Answer, Converse, Disclose, Gather, Hangup, Route, Say
from gateway.dialplan.disclosure import INTENT, sentence
from tests.gateway.hall import virtual_hall as scripted
from tests.gateway.hall.virtual_hall import DISCLOSE, TOLD, TOLD_S, House, Phone

HOUSE_TIME = True

TALK = Converse(instructions="be kind", greeting="how can I help", goodbye="bye bye now", silence_s=30.0)
MENU = Gather(prompt="which", branches={"1": "next"}, timeout_s=5.0)
OF_JANE = DISCLOSE.words(cloned=True)


async def talking(house: House) -> Phone:
    phone = await house.ring(Answer(), DISCLOSE, TALK)
    await house.says("how can I help")
    await house.until(lambda: phone.heard_s() > TOLD_S + 1.0)
    return phone


async def test_the_star_key_brings_the_disclosure_again_word_for_word(house: House) -> None:
    phone = await talking(house)
    await house.press(phone, "*")
    await house.until(lambda: house.events(phone, "disclosed_again"))
    assert house.engine.said == [TOLD, "how can I help", TOLD], "the rest of the greeting was cut"
    assert house.events(phone, "disclosed_again") == [{"principal": "Lindens", "whole": True}]
    house.engine.answers = [scripted.Answer("nine to five")]
    phone.speak(0.6)
    await house.says("nine to five")


async def test_a_caller_who_asks_hears_it_from_the_house_and_not_from_the_model(house: House) -> None:
    phone = await talking(house)
    await house.until(lambda: not house.call(phone).playout.busy)
    house.engine.answers = [scripted.Answer("", tool=INTENT)]
    phone.speak(0.6)
    await house.until(lambda: house.events(phone, "disclosed_again"))
    assert house.engine.said[2:] == ["", TOLD]
    (config,) = [update for update in house.engine.told("update") if "answers" in update]
    asked = config["answers"][-1]
    assert (asked["tool"], "are you a robot" in asked["ask"]) == (INTENT, True)
    assert INTENT in [tool["name"] for tool in config["tools"]], "an engine that thinks may ask for it, too"


async def test_what_is_repeated_cannot_be_interrupted(house: House) -> None:
    phone = await talking(house)
    await house.press(phone, "*")
    heard_s = phone.heard_s()
    await house.until(lambda: phone.heard_s() > heard_s + 1.0)
    phone.speak(1.0)
    await house.until(lambda: house.events(phone, "disclosed_again"))
    assert house.events(phone, "disclosed_again")[0]["whole"]
    assert house.engine.told("commit") == []


async def test_nothing_is_repeated_that_was_never_said(house: House) -> None:
    phone = await house.ring(Answer(), TALK)
    await house.says("how can I help")
    await house.press(phone, "*")
    await asyncio.sleep(3.0)
    assert house.engine.said == ["how can I help"]


async def test_the_same_words_are_said_once_on_the_way_through_several_routes(house: House) -> None:
    following = Route(name="next", do=(Answer(), DISCLOSE, Say(text="here we are"), Hangup()))
    phone = await house.ring(Answer(), DISCLOSE, MENU, others=(following,))
    await house.says("which")
    await house.press(phone, "1")
    assert await house.over(phone) == "hung up"
    assert house.engine.said == [TOLD, "which", "here we are"]


async def test_another_company_is_named_again(house: House) -> None:
    other = Disclose(principal="Oaks", language="en")
    following = Route(name="next", do=(Answer(), other, Hangup()))
    phone = await house.ring(Answer(), DISCLOSE, MENU, others=(following,))
    await house.says("which")
    await house.press(phone, "1")
    await house.over(phone)
    assert house.engine.said[-1] == sentence("Oaks", "en", cloned=False)
    assert [event["principal"] for event in house.events(phone, "disclosed")] == ["Lindens", "Oaks"]


async def test_a_persons_voice_is_said_to_be_a_copy(house: House) -> None:
    token = house.consent.token("call1", voice="jane")
    phone = await house.ring(Answer(), DISCLOSE, Hangup(), route={"voice": "jane"}, grant=token)
    await house.over(phone)
    assert house.engine.said == [OF_JANE]
    assert OF_JANE.endswith("The voice is a copy of a real person's voice, used with that person's consent.")
    assert house.events(phone, "disclosed")[0]["voice"] == "jane"


async def test_a_stock_voice_in_place_of_a_persons_is_not_said_to_be_a_copy(house: House) -> None:
    phone = await house.ring(Answer(), DISCLOSE, Hangup(), route={"voice": "jane"})
    await house.over(phone)
    assert house.engine.said == [TOLD]


async def test_a_voice_that_turns_into_a_persons_on_the_way_is_told_before_its_first_word(
    house: House,
) -> None:
    following = Route(name="next", voice="jane", do=(Answer(), Say(text="here we are"), Hangup()))
    phone = await house.ring(Answer(), DISCLOSE, MENU, others=(following,))
    await house.says("which")
    await house.press(phone, "1")
    assert await house.over(phone) == "hung up"
    assert house.engine.said == [TOLD, "which", OF_JANE, "here we are"]


@pytest.mark.parametrize("breaks", [1, 2])
async def test_only_what_was_heard_whole_is_in_the_record(house: House, breaks: int) -> None:
    house.engine.breaks = breaks
    phone = await house.ring(Answer(), DISCLOSE, Hangup())
    await house.over(phone)
    assert house.engine.said == [TOLD] * (breaks + 1)
    assert len(house.events(phone, "disclosed")) == 1


async def test_a_key_that_is_pressed_again_and_again_brings_it_once(house: House) -> None:
    phone = await talking(house)
    for _ in range(5):
        await house.press(phone, "*")
        await asyncio.sleep(0.5)
    await house.until(lambda: house.events(phone, "disclosed_again"))
    await asyncio.sleep(3.0)
    assert len(house.events(phone, "disclosed_again")) == 1
    await house.press(phone, "*")
    await house.until(lambda: len(house.events(phone, "disclosed_again")) == 2)


async def test_another_persons_voice_is_told_though_the_words_are_the_same(house: House) -> None:
    following = Route(name="next", voice="joe", do=(Answer(), DISCLOSE, Hangup()))
    token = house.consent.token("call1", voice="jane")
    begun = {"voice": "jane"}
    phone = await house.ring(Answer(), DISCLOSE, MENU, others=(following,), route=begun, grant=token)
    await house.until(lambda: "which" in house.engine.said, 20.0)
    await house.press(phone, "1")
    await house.over(phone)
    assert house.engine.said == [OF_JANE, "which", OF_JANE]
    assert [event["voice"] for event in house.events(phone, "disclosed")] == ["jane", "joe"]


async def test_who_was_told_in_two_languages_hears_the_routes_own_again(house: House) -> None:
    german = Disclose(principal="Lindens", language="de")
    phone = await house.ring(Answer(), DISCLOSE, german, TALK)
    await house.says("how can I help")
    await house.press(phone, "*")
    await house.until(lambda: house.events(phone, "disclosed_again"))
    assert house.engine.said == [TOLD, german.words(cloned=False), "how can I help", TOLD]
