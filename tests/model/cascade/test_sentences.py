"""Sentences come out as soon as they are whole, and not before."""

from __future__ import annotations

import pytest

from model.cascade.sentences import LONGEST, Sentences


def cut(text: str, size: int = 0) -> list[str]:
    """The sentences of a text that comes in pieces of `size` characters, words with 0."""
    pieces = [text[at : at + size] for at in range(0, len(text), size)] if size else text.split(" ")
    if not size:
        pieces = [piece if k == 0 else " " + piece for k, piece in enumerate(pieces)]
    sentences = Sentences()
    found = [sentence for piece in pieces for sentence in sentences.add(piece)]
    return [*found, *filter(None, [sentences.rest()])]


@pytest.mark.parametrize(
    "whole",
    [
        ["We open at nine.", "Anything else?"],
        ["It costs 3.50 a day.", "Is that all right?"],
        ["Ask Dr. Smith or Mrs. Jones.", "They know."],
        ["We open at 9 a.m. and close at 5 p.m.", "Please ring the bell."],
        ["Bring a lock, a pump, etc. and a helmet.", "Good luck!"],
        ["J. Miller mends it.", "He is here."],
        ["No.", "We are closed."],
        ["Take tram No. 5 to the end.", "Then walk."],
        ["Really?!", "Yes."],
        ['She said "we are open."', "Then she left."],
        ["Version 2.0.1 is out.", "See example.com for more."],
        ["So am I.", "Then we agree."],
        ["Wait... I look it up.", "Here it is."],
        ["Bis 5 Uhr.", "Danke!"],
    ],
)
@pytest.mark.parametrize("size", [0, 1, 2, 7, 1000])
def test_a_sentence_is_whole(whole: list[str], size: int) -> None:
    assert cut(" ".join(whole), size) == whole


def test_a_line_ends_a_sentence_and_a_lists_number_does_not() -> None:
    assert cut("You can:\n1. Call us.\n2. Write to us.\n") == ["You can:", "1. Call us.", "2. Write to us."]


def test_the_first_sentence_does_not_wait_for_the_second() -> None:
    sentences = Sentences()
    assert sentences.add("We open at nine.") == []  # it may go on: 9.5
    assert sentences.add(" ") == ["We open at nine."]


def test_what_has_no_end_is_cut_at_a_comma_a_blank_or_anywhere() -> None:
    comma = cut("and so on " * 10 + "now, " + "and so on " * 20, 5)
    assert comma[0].endswith("now,")
    assert all(len(one) <= LONGEST for one in cut("word " * 1000, 9))
    assert cut("a" * 1000, 9)[0] == "a" * LONGEST


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_what_a_model_thinks_aloud_is_not_said(size: int) -> None:
    text = "<think>The caller wants hours. I say them.\n</think>\n\nWe open at nine. Bye."
    assert cut(text, size) == ["We open at nine.", "Bye."]
    assert cut("<think>I never stop thinking. " * 3, size) == []
    assert cut("<b>We are open.</b> Yes.", size)[-1] == "Yes."


def test_endless_thinking_takes_no_memory() -> None:
    sentences = Sentences()
    sentences.add("<think>")
    for _ in range(10_000):
        assert sentences.add("hmm " * 10) == []
    assert len(sentences._text) < 100
