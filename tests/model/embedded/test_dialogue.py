"""Manners: answering, asking, not understanding, confirming. No sound."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from model.api import SessionConfig
from model.ears.evidence import NOTHING, Hearing
from model.embedded.dialogue import DENIED, LEFT_AT_THAT, NOTHING_SAID, Dialogue, check, is_nod
from model.errors import ProtocolError
from model.meaning.head import Judgement
from model.meaning.mentions import find_mentions

NOW = datetime(2026, 11, 23, 15, 5, tzinfo=UTC)
ANSWERS: list[dict[str, Any]] = [
    {"intent": "hours", "about": "our hours", "ask": ["when are you open"], "say": "Open {hours}."},
    {"intent": "time", "about": "the time", "ask": ["what time is it"], "say": "It is {time} on {date}."},
    {"intent": "person", "ask": ["a person please"], "say": "Wait.", "tool": "transfer", "confirm": True},
    {"intent": "repeat", "ask": ["say that again"], "tool": "repeat"},
    {"intent": "goodbye", "about": "leaving", "ask": ["goodbye"], "tool": "hang_up"},
]


def sure(phrase: str) -> Hearing:
    return Hearing(phrase, 0.9, True)


def unsure(phrase: str) -> Hearing:
    return Hearing(phrase, 0.4, False)


@pytest.fixture
def dialogue() -> Dialogue:
    return Dialogue(SessionConfig(answers=tuple(ANSWERS), facts={"hours": "from nine to six"}))


def test_an_answer_has_its_facts_and_the_clock(dialogue: Dialogue) -> None:
    assert dialogue.next(sure("when are you open"), NOW).text == "Open from nine to six."
    assert dialogue.next(sure("what time is it"), NOW).text == "It is 3:05 PM on Monday, November 23."


def test_the_clock_is_that_of_the_routes_zone(dialogue: Dialogue) -> None:
    for zone, hours in (("Asia/Kolkata", 5.5), ("America/Caracas", -4.0)):
        dialogue.config = SessionConfig(timezone=zone)
        offset = dialogue.now().utcoffset()
        assert offset is not None
        assert offset.total_seconds() == hours * 3600


def test_a_tool_comes_with_its_words(dialogue: Dialogue) -> None:
    move = dialogue.next(sure("goodbye"), NOW)
    assert (move.text, move.tool) == ("", "hang_up")


@pytest.mark.parametrize("answer", ["yes", "yes please", "that's right"])
def test_an_unsure_hearing_is_asked_about_and_a_yes_does_it(dialogue: Dialogue, answer: str) -> None:
    question = dialogue.next(unsure("when are you open"), NOW)
    assert question.text == "Did you ask about our hours? Please say yes or no."
    assert answer in dialogue.grammar()
    assert dialogue.next(sure(answer), NOW).text == "Open from nine to six."
    assert answer not in dialogue.grammar()


def test_a_no_asks_what_else(dialogue: Dialogue) -> None:
    dialogue.next(unsure("goodbye"), NOW)
    move = dialogue.next(sure("no"), NOW)
    assert (move.text, move.tool) == (DENIED, None)


def test_an_unsure_yes_is_not_a_yes(dialogue: Dialogue) -> None:
    dialogue.next(sure("a person please"), NOW)
    assert dialogue.next(unsure("yes"), NOW).tool is None


def test_an_answer_with_confirm_is_always_asked_about(dialogue: Dialogue) -> None:
    question = dialogue.next(sure("a person please"), NOW)
    assert (question.text, question.tool) == ("Did you ask about person? Please say yes or no.", None)
    assert dialogue.next(sure("yes"), NOW).tool == "transfer"


def test_neither_yes_nor_no_is_asked_once_more_and_then_left(dialogue: Dialogue) -> None:
    dialogue.next(sure("a person please"), NOW)
    again = dialogue.next(NOTHING, NOW)
    assert again.text.startswith("Sorry, was that a yes or a no? Did you ask about person?")
    assert dialogue.next(NOTHING, NOW).text == "Sorry, I did not understand that."
    assert dialogue.pending is None


def test_instead_of_a_yes_something_else_may_be_asked(dialogue: Dialogue) -> None:
    dialogue.next(sure("a person please"), NOW)
    assert dialogue.next(sure("when are you open"), NOW).text == "Open from nine to six."
    assert dialogue.pending is None


def test_not_understanding_is_said_in_other_words_and_then_with_an_offer(dialogue: Dialogue) -> None:
    first, second, third = (dialogue.next(NOTHING, NOW).text for _ in range(3))
    assert first == "Sorry, I did not understand that."
    assert second == (
        "Sorry, I still did not understand. You can ask about our hours, the time, person or repeat."
    )
    assert third == second
    dialogue.next(sure("what time is it"), NOW)
    assert dialogue.next(NOTHING, NOW).text == first


def test_the_plans_own_words_for_not_understanding_come_first() -> None:
    dialogue = Dialogue(SessionConfig(phrases={"not_understood": ["Pardon?", "Ask for the hours.", "Hm."]}))
    said = [dialogue.next(NOTHING, NOW).text for _ in range(4)]
    assert said == ["Pardon?", "Ask for the hours.", "Hm.", "Hm."]


def test_the_last_thing_said_is_repeated(dialogue: Dialogue) -> None:
    assert dialogue.next(sure("say that again"), NOW).text == NOTHING_SAID
    dialogue.last_said = "Good morning."
    assert dialogue.next(sure("say that again"), NOW).text == "Good morning."


def test_what_can_be_said_is_known_beforehand(dialogue: Dialogue) -> None:
    fixed = dialogue.fixed()
    assert "Open from nine to six." in fixed
    assert "Did you ask about leaving? Please say yes or no." in fixed
    assert not any("{" in text or "It is" in text for text in fixed)  # the time is not known beforehand


@pytest.mark.parametrize(
    ("config", "param"),
    [
        (SessionConfig(answers=({"ask": ["a"]},)), "session.voicegate.answers[0].intent"),
        (SessionConfig(answers=({"intent": "a", "ask": "b"},)), "session.voicegate.answers[0].ask"),
        (
            SessionConfig(answers=({"intent": "a", "ask": ["b"], "say": 1},)),
            "session.voicegate.answers[0].say",
        ),
        (SessionConfig(phrases={"unsure": 1}), "session.voicegate.phrases.unsure"),
        (SessionConfig(phrases={"which": 1}), "session.voicegate.phrases.which"),
        (SessionConfig(answers=({"intent": "a", "library": 1},)), "session.voicegate.answers[0].library"),
        (SessionConfig(phrases={"not_understood": [1]}), "session.voicegate.phrases.not_understood"),
        (SessionConfig(timezone="Europe/Nowhere"), "session.voicegate.timezone"),
        (SessionConfig(timezone="../../etc/passwd"), "session.voicegate.timezone"),
    ],
)
def test_what_no_dialogue_can_be_held_with_is_named(config: SessionConfig, param: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        check(config)
    assert refused.value.param == param


def test_the_demo_plan_can_be_held() -> None:
    from tests.model.embedded.callers import demo

    plan = demo()
    check(SessionConfig(answers=tuple(plan["answers"]), facts=plan["facts"]))


# ── on words that were judged, not heard as phrases ──────────────────────────────────────────────────


def judged(intent: str | None, *, sure: bool = True, rival: str | None = None, text: str = "") -> Judgement:
    chances = {"hours": 0.0, "time": 0.0}
    if intent is not None:
        chances |= {intent: 0.9 if sure else 0.4}
    if rival is not None:
        chances |= {rival: 0.3}
    slots = find_mentions(text, NOW.date())
    return Judgement(intent, sure, rival, slots.agrees, 0.9 if sure else 0.4, slots, chances)


def test_what_is_surely_meant_is_answered_with_what_it_names(dialogue: Dialogue) -> None:
    move = dialogue.next(judged("hours", text="are you open tomorrow at 5 pm"), NOW)
    assert (move.text, move.intent) == ("Open from nine to six.", "hours")
    assert move.slots == {"times": ["17:00"], "dates": ["2026-11-24"]}


def test_of_two_near_answers_it_asks_which(dialogue: Dialogue) -> None:
    question = dialogue.next(judged("hours", sure=False, rival="time"), NOW)
    assert question.text == "Did you ask about our hours, or about the time?"
    assert dialogue.next(judged("time", sure=False), NOW).text.startswith("It is 3:05 PM")
    assert dialogue.pending is None


@pytest.mark.parametrize(("said", "begins"), [("the first one", "Open"), ("the latter please", "It is 3:05")])
def test_one_of_two_is_named_by_its_place(dialogue: Dialogue, said: str, begins: str) -> None:
    dialogue.next(judged("hours", sure=False, rival="time"), NOW)
    assert dialogue.next(judged(None, sure=False, text=said), NOW).text.startswith(begins)


def test_a_yes_does_not_tell_which_of_two(dialogue: Dialogue) -> None:
    dialogue.next(judged("hours", sure=False, rival="time"), NOW)
    again = dialogue.next(judged(None, sure=False, text="yes"), NOW)
    assert again.text == "Sorry, which of the two? Did you ask about our hours, or about the time?"
    assert dialogue.next(judged(None, sure=False, text="neither"), NOW).text == DENIED


def test_what_was_said_with_a_question_is_kept_over_its_confirmation(dialogue: Dialogue) -> None:
    dialogue.next(judged("person", text="connect me at five o'clock"), NOW)
    move = dialogue.next(judged(None, sure=False, text="yes please"), NOW)
    assert (move.tool, move.slots) == ("transfer", {"times": ["05:00 or 17:00"]})


def test_a_yes_that_nobody_asked_for_is_not_understood(dialogue: Dialogue) -> None:
    assert (
        dialogue.next(judged(None, sure=False, text="yes"), NOW).text == "Sorry, I did not understand that."
    )


@pytest.mark.parametrize("said", ["okay", "Right.", "uh-huh", "I see", "okay great"])
def test_who_only_nods_is_asked_nothing(dialogue: Dialogue, said: str) -> None:
    assert is_nod(said)
    dialogue.remember_said("Open from nine to six.")
    move = dialogue.next(judged("goodbye", sure=False, text=said), NOW, nods=True)
    assert (move.text, move.tool, dialogue.pending) == ("", None, None)


def test_what_a_nod_cut_short_is_said_again(dialogue: Dialogue) -> None:
    dialogue.remember_said("Open from nine to six.")
    dialogue.remember_cut()
    assert dialogue.next(judged("goodbye", sure=False, text="okay"), NOW, nods=True).text == (
        "Open from nine to six."
    )
    dialogue.remember_said("Open from nine to six.")
    assert dialogue.next(judged("goodbye", sure=False, text="okay"), NOW, nods=True).text == ""


def test_a_nod_is_a_yes_where_one_was_asked_for(dialogue: Dialogue) -> None:
    dialogue.next(judged("goodbye", sure=False), NOW)
    assert dialogue.next(judged(None, sure=False, text="okay"), NOW, nods=True).tool == "hang_up"


@pytest.mark.parametrize("said", ["yes", "sure", "okay yes", "hello", "okay goodbye", ""])
def test_a_reply_or_a_wish_is_no_nod(said: str) -> None:
    assert not is_nod(said)


@pytest.mark.parametrize("said", ["no", "No, thank you."])
def test_a_no_to_the_plans_own_question_is_taken_as_one(dialogue: Dialogue, said: str) -> None:
    dialogue.remember_said("You are welcome. Is there anything else?")
    assert dialogue.next(judged(None, sure=False, text=said), NOW).text == LEFT_AT_THAT
    dialogue.remember_said(LEFT_AT_THAT)
    again = dialogue.next(judged(None, sure=False, text=said), NOW).text
    assert again == "Sorry, I did not understand that."


def test_the_plans_own_words_ask_which() -> None:
    config = SessionConfig(answers=tuple(ANSWERS), phrases={"which": "{about} or {other}?"})
    assert (
        Dialogue(config).next(judged("hours", sure=False, rival="time"), NOW).text == "our hours or the time?"
    )
