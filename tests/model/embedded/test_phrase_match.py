"""Words become one of a plan's phrases when they are nearly the same."""

from __future__ import annotations

import pytest

from model.ears.evidence import NOTHING
from model.ears.words_heard import NO_WORDS, Words
from model.embedded.phrase_match import distance, match

PHRASES = ["what are your opening hours", "when do you close", "goodbye", "no", "yes", "that's all"]


def words(text: str, confidence: float = 0.9) -> Words:
    return Words(text, "en", confidence, 2.0)


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("What are your opening hours?", "what are your opening hours"),
        ("What are your opening hour", "what are your opening hours"),
        ("When, do you CLOSE.", "when do you close"),
        ("That’s all!", "that's all"),
        ("No.", "no"),
    ],
)
def test_what_is_nearly_the_same_is_taken(text: str, phrase: str) -> None:
    hearing = match(words(text), PHRASES)
    assert (hearing.phrase, hearing.sure) == (phrase, True)
    assert 0.75 < hearing.confidence <= 0.9


def test_what_differs_more_is_asked_about() -> None:
    hearing = match(words("when you clone"), PHRASES)
    assert (hearing.phrase, hearing.sure) == ("when do you close", False)


def test_words_that_are_not_believed_are_asked_about() -> None:
    hearing = match(words("what are your opening hours", 0.2), PHRASES)
    assert (hearing.phrase, hearing.sure) == ("what are your opening hours", False)


@pytest.mark.parametrize("text", ["", "...", "no way", "not", "know", "my grandmother baked seventeen cakes"])
def test_what_is_like_nothing_is_nothing(text: str) -> None:
    assert match(words(text), PHRASES) is NOTHING


def test_without_phrases_or_words_there_is_nothing() -> None:
    assert match(words("hello"), []) is NOTHING
    assert match(NO_WORDS, PHRASES) is NOTHING


def test_letters_are_counted() -> None:
    assert [distance(*pair) for pair in (("", ""), ("abc", "abc"), ("abc", "ab"), ("kitten", "sitting"))] == [
        0, 0, 1, 3,
    ]  # fmt: skip
