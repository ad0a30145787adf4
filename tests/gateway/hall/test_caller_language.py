"""A caller's language is heard, and leads to where that is spoken."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from consent.grants.scope import Scope
from gateway.dialplan import Answer, Converse, Disclose, Hangup, Route, Transfer
from gateway.dialplan.plan_languages import UNSPOKEN
from gateway.hall.dialogue.caller_language import ENOUGH_S, MORE_S
from gateway.ipc.line_messages import ReferCall
from tests.gateway.hall import virtual_hall as scripted
from tests.gateway.hall.virtual_hall import DISCLOSE, TOLD, House, Phone

HOUSE_TIME = True

TALK = Converse(
    instructions="be kind",
    greeting="how can I help",
    silence_s=60.0,
    languages={"es": "spanish", "fr": "desk"},
)
TELL_ES = Disclose(principal="Lindens", language="es")
TOLD_ES = TELL_ES.words(cloned=False)
HOLA = Converse(instructions="x", greeting="buenos días", silence_s=60.0, languages={"en": "demo"})
SPANISH = Route(
    name="spanish",
    language="es",
    do=(
        Answer(),
        TELL_ES,
        Converse(instructions="x", greeting="buenos días", silence_s=60.0, languages={"en": "demo"}),
    ),
)
DESK = Route(name="desk", do=(Answer(), Transfer(target="desk")))
NOBODY = UNSPOKEN["en"]


async def talking(house: House, verb: Converse = TALK) -> Phone:
    """A call whose greeting was heard."""
    phone = await house.ring(
        Answer(), DISCLOSE, verb, Hangup(), others=(SPANISH, DESK), targets={"desk": "sip:1@x"}
    )
    await house.says(verb.greeting)
    await house.until(lambda: not house.call(phone).playout.busy)
    return phone


def asked_s(house: House) -> list[float]:
    """Of sound, each time that the ears were asked."""
    return [seconds for seconds, _ in house.ears.asked]


async def test_who_speaks_spanish_is_told_and_talked_to_in_spanish(house: House) -> None:
    house.ears.finds = [("es", 0.99)]
    phone = await talking(house)
    phone.speak(2.5)
    await house.until(lambda: not phone.speaking)
    heard = len(phone.heard)
    await house.says("buenos días")
    assert house.engine.said == [TOLD, "how can I help", TOLD_ES, "buenos días"]
    assert house.engine.told("commit") == [], "nobody answers in English what was said in Spanish"
    silence = next(at for at, level in enumerate(phone.heard[heard:]) if level > 0.01) * 0.02
    assert silence < 1.5
    (route,) = house.events(phone, "route")
    assert (route["route"], route["language"]) == ("spanish", "es")
    assert house.events(phone, "language") == [{"heard": "es", "chance": 0.99}]
    assert [told["language"] for told in house.events(phone, "disclosed")] == ["en", "es"]
    scopes = [house.consent.verify(session.grant).scope for session in house.engine.sessions]
    assert scopes[-1] == Scope("heart", "support", "spanish", "es", phone.call_id)


async def test_the_ears_are_asked_after_enough_speech_and_among_the_plan_s_languages(house: House) -> None:
    house.ears.finds = [("en", 0.99)]
    phone = await talking(house)
    phone.speak(ENOUGH_S - 0.2)
    await asyncio.sleep(3.0)
    assert house.ears.asked == [], "nobody is judged by less"
    phone.speak(2.0)
    await house.until(lambda: house.ears.asked)
    ((seconds, among),) = house.ears.asked
    assert among == ("en", "es", "fr")
    assert seconds >= ENOUGH_S, "short utterances are heard together"
    assert phone.speaking, "and it is known before the caller has finished"


async def test_who_speaks_the_route_s_language_is_answered_as_ever(house: House) -> None:
    house.ears.finds = [("en", 0.95)]
    house.engine.answers = [scripted.Answer("nine to five"), scripted.Answer("at Mill Lane")]
    phone = await talking(house)
    phone.speak(2.0)
    await house.says("nine to five")
    await house.until(lambda: not house.call(phone).playout.busy)
    phone.speak(4.0)
    await house.says("at Mill Lane")
    assert len(house.ears.asked) == 1, "it is known"
    assert house.events(phone, "route") == []


async def test_what_cannot_be_told_is_asked_at_the_second_utterance_and_then_left(house: House) -> None:
    house.engine.answers = [
        scripted.Answer("what was that"),
        scripted.Answer("pardon"),
        scripted.Answer("well"),
    ]
    phone = await talking(house)
    for said in ("what was that", "pardon", "well"):
        phone.speak(1.6)
        await house.says(said)
        await house.until(lambda: not house.call(phone).playout.busy)
    first, second = asked_s(house)
    assert second > first + 1.0, "the second time with all that was said"
    assert house.events(phone, "language") == [{"heard": "", "chance": 0}]


async def test_a_long_utterance_is_asked_about_again_before_its_end(house: House) -> None:
    house.ears.finds = [("", 0.6), ("es", 0.97)]
    phone = await talking(house)
    phone.speak(4.5)
    await house.until(lambda: len(house.ears.asked) == 2)
    assert phone.speaking
    assert asked_s(house)[1] == pytest.approx(MORE_S + 0.3, abs=0.3)
    await house.says("buenos días")
    assert TOLD_ES in house.engine.said


async def test_an_answer_that_comes_late_cuts_what_was_said_in_the_wrong_language(house: House) -> None:
    house.ears.finds, house.ears.think_s = [("es", 0.99)], 1.5
    house.engine.answers = [scripted.Answer("sorry I did not understand one word of that", tool="hang_up")]
    phone = await talking(house)
    phone.speak(1.7)
    await house.says("buenos días")
    assert house.engine.told("commit"), "the caller was not kept waiting"
    assert [told["language"] for told in house.events(phone, "disclosed")] == ["en", "es"]
    await asyncio.sleep(3.0)
    assert phone.call_id in house.hall.calls, "nor hung up upon, as the engine wanted"


async def test_a_language_may_lead_to_a_person(house: House) -> None:
    house.ears.finds = [("fr", 0.99)]
    phone = await talking(house)
    phone.speak(2.0)
    assert await house.over(phone) == "transferred"
    assert [asked.target for asked in phone.asked if isinstance(asked, ReferCall)] == ["sip:1@x"]


async def test_who_speaks_what_nobody_speaks_is_told_so_once_and_the_call_goes_on(house: House) -> None:
    house.ears.finds = [("pl", 0.6), ("ru", 0.99)]
    house.engine.answers = [scripted.Answer("nine to five")]
    phone = await talking(house)
    phone.speak(4.0)
    await house.says(NOBODY)
    await house.until(lambda: not house.call(phone).playout.busy)
    assert house.engine.told("commit") == []
    phone.speak(2.0)
    await house.says("nine to five")
    assert house.engine.said.count(NOBODY) == 1
    assert len(house.ears.asked) == 2, "a stranger is not believed in at once"
    assert [event["heard"] for event in house.events(phone, "language")] == ["ru"]


async def test_the_plan_may_have_words_of_its_own_for_them(house: House) -> None:
    house.ears.finds = [("ru", 0.9), ("ru", 0.99)]
    phone = await talking(house, replace(TALK, other_language="Angliyskiy, please. {time}"))
    phone.speak(4.0)
    await house.until(lambda: house.engine.said[-1].startswith("Angliyskiy"))
    assert "{" not in house.engine.said[-1]


async def test_or_lead_them_elsewhere(house: House) -> None:
    house.ears.finds = [("ru", 0.9), ("ru", 0.99)]
    phone = await talking(house, replace(TALK, languages={"es": "spanish", "else": "desk"}))
    phone.speak(4.0)
    assert await house.over(phone) == "transferred"


async def test_who_was_led_wrongly_finds_back_and_is_not_told_again_what_was_said(house: House) -> None:
    house.ears.finds = [("es", 0.92), ("en", 0.99)]
    phone = await talking(house)
    phone.speak(2.0)
    await house.says("buenos días")
    await house.until(lambda: not house.call(phone).playout.busy)
    phone.speak(2.0)
    await house.until(lambda: house.engine.said.count("how can I help") == 2)
    assert house.engine.said.count(TOLD) == 1
    assert [among for _, among in house.ears.asked] == [("en", "es", "fr"), ("es", "en")]


async def test_coughs_are_no_speech(house: House) -> None:
    house.ears.finds = [("es", 0.99)]
    phone = await house.ring(
        Answer(), DISCLOSE, replace(TALK, greeting=" ".join(["word"] * 60)), others=(SPANISH, DESK)
    )
    await house.until(lambda: house.engine.said[1:])
    for _ in range(12):
        await asyncio.sleep(1.0)
        phone.speak(0.2)
    await asyncio.sleep(1.0)
    assert house.call(phone).playout.busy, "none of them cut it"
    assert house.ears.asked == []


async def test_a_house_without_ears_answers_as_ever(house: House) -> None:
    house.hall.ears = None
    house.engine.answers = [scripted.Answer("nine to five")]
    phone = await talking(house)
    phone.speak(3.0)
    await house.says("nine to five")
    assert house.events(phone, "language") == []


async def test_a_caller_who_hangs_up_meanwhile_leaves_nothing_behind(house: House) -> None:
    house.ears.finds, house.ears.think_s = [("es", 0.99)], 5.0
    phone = await talking(house)
    phone.speak(2.0)
    await house.until(lambda: house.ears.asked)
    await house.hang_up(phone)
    await house.over(phone)
    await asyncio.sleep(6.0)
    assert house.is_empty()
    assert house.ears.taken_back == 1


async def test_a_plan_without_languages_asks_nobody(house: House) -> None:
    phone = await talking(house, replace(TALK, languages={}))
    phone.speak(4.0)
    await asyncio.sleep(6.0)
    assert house.ears.asked == []
