"""What the last words of an utterance say about its end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.api import EarlyHearing
from model.ears.last_words import TABLE, digits_of, early_hearing, hearing_state, is_aside, waits_for_more
from model.ears.words_heard import Words


@pytest.mark.parametrize(
    "text",
    [
        "my number is 5, 5, 5.", "my number is five five", "twenty-five", "555-1234", "it is double",
        "I would like an appointment and", "the", "I want to speak to the", "it's about a", "Because",
        "I am calling from", "one for", "um", "So, uh...", "my name is", "I'd like", "I need it on",
    ],
)  # fmt: skip
def test_who_ends_like_this_has_more_to_say(text: str) -> None:
    assert waits_for_more(text)
    assert hearing_state(text) == "unfinished"


@pytest.mark.parametrize(
    "text",
    [
        "What are your opening hours?", "Goodbye.", "Where are you from?", "Who is this for", "hold on",
        "I'll take the other one.", "Come at 5:30.", "the 3rd of May", "at 5 pm", "I know what it is.",
        "What time are you open until?", "",
    ],
)  # fmt: skip
def test_who_ends_like_this_may_be_done(text: str) -> None:
    assert not waits_for_more(text)
    assert hearing_state(text) == "plain"


def test_a_sure_answer_needs_no_more_words_but_those_that_are_announced() -> None:
    assert hearing_state("what are your opening hours", answered=True) == "answered"
    assert hearing_state("which bus goes to number 5", answered=True) == "answered"
    assert hearing_state("what are your opening hours and", answered=True) == "unfinished"
    assert hearing_state("what are your opening hours um", answered=True) == "unfinished"


def test_a_number_that_was_asked_for_is_an_answer_when_it_is_whole() -> None:
    assert hearing_state("four five six", digits=6) == "unfinished"
    assert hearing_state("four five six, seven eight nine", digits=6) == "answered"
    assert hearing_state("It's 456789.", digits=6) == "answered"
    assert hearing_state("double four, triple one", digits=5) == "answered"


@pytest.mark.parametrize(
    ("text", "count"),
    [("five", 1), ("5 5 5", 3), ("twenty-five", 2), ("twenty five six", 3), ("fifteen", 2), ("none", 0),
     ("two four double six", 4), ("oh one", 2), ("555-1234", 7)],
)  # fmt: skip
def test_digits_are_counted_as_they_are_said(text: str, count: int) -> None:
    assert digits_of(text) == count


@pytest.mark.parametrize(
    "text", ["Mm-hmm.", "Okay.", "Right.", "Yeah", "yeah, okay", "All right.", "I see.", "Uh-huh, yes."]
)
def test_asides_let_the_other_side_go_on(text: str) -> None:
    assert is_aside(text)


@pytest.mark.parametrize(
    "text", ["Hello?", "Hello? Hello?", "Stop.", "No.", "Okay, but wait.", "okay okay okay okay", "What?", ""]
)
def test_what_asks_to_be_heard_is_no_aside(text: str) -> None:
    assert not is_aside(text)


def heard(text: str, refused: str = "") -> Words:
    return Words(text, "en", 0.9, 1.5, refused)


def test_an_answer_is_no_aside_whatever_its_words_are() -> None:
    assert early_hearing(heard("Yeah.")) == EarlyHearing("plain", 1.5, aside=True)
    assert early_hearing(heard("Yeah."), answered=True) == EarlyHearing("answered", 1.5, aside=False)
    assert early_hearing(heard("Um, five.")) == EarlyHearing("unfinished", 1.5)
    assert early_hearing(heard("Five."), digits=1) == EarlyHearing("answered", 1.5)


def test_a_sound_without_a_voice_is_an_aside_and_one_that_was_not_understood_is_none() -> None:
    for refused in ("silence", "no speech"):
        assert early_hearing(heard("", refused)) == EarlyHearing("plain", 1.5, aside=True)
    for refused in ("improbable", "loop", ""):
        assert early_hearing(heard("", refused)) == EarlyHearing("plain", 1.5, aside=False)


@pytest.mark.parametrize("refused", ["busy", "lost", "failed", "no weights", "language"])
def test_of_what_could_not_be_heard_nothing_is_told(refused: str) -> None:
    assert early_hearing(heard("", refused)) is None


@pytest.mark.parametrize(
    ("language", "unfinished", "finished", "aside"),
    [
        ("de", "Meine Nummer ist drei und", "Wann haben Sie geöffnet?", "Ja, genau."),
        ("es", "mi número es cinco", "¿A qué hora abren?", "Vale."),
        ("fr", "je voudrais parler à", "Quels sont vos horaires ?", "D'accord."),
        ("it", "vorrei parlare con la", "Quando siete aperti?", "Va bene."),
        ("ru", "мой номер пять", "Когда вы открыты?", "Угу."),
    ],
)
def test_other_languages_have_their_words(language: str, unfinished: str, finished: str, aside: str) -> None:
    assert hearing_state(unfinished, language) == "unfinished"
    assert hearing_state(finished, language) == "plain"
    assert is_aside(aside, language)
    assert not is_aside(finished, language)


def test_a_language_without_a_table_has_digits() -> None:
    assert hearing_state("numerot 5 5", "fi") == "unfinished"
    assert hearing_state("and", "fi") == "plain"
    assert not is_aside("okay", "fi")


@given(st.text(max_size=60), st.sampled_from([*TABLE, "fi"]))
def test_any_text_has_a_state(text: str, language: str) -> None:
    assert hearing_state(text, language) in ("unfinished", "plain")
    assert digits_of(text, language) >= 0
    is_aside(text, language)
