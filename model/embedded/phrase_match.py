"""Which of the plan's phrases some words are: the same ones, or nearly.

Letters are compared, without case and signs. What differs in a few letters (an s that the line swallowed) is
taken, what differs in some more is asked about.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from model.ears.evidence import NOTHING, Hearing
from model.ears.words_heard import Words

SURE: Final = 0.12
"""Share of a phrase's letters that may differ where it is taken as said,"""
POSSIBLE: Final = 0.25
"""and where the caller is asked."""
BELIEVED: Final = 0.3
"""Confidence in words from which on they are taken as said; below, the caller is asked."""
_NO_LETTERS: Final = re.compile(r"[^\w ]+")


def match(words: Words, phrases: Sequence[str]) -> Hearing:
    """The phrase (lower case) that is nearest to the words, if it is near enough."""
    said = plain(words.text)
    if not said or not phrases:
        return NOTHING
    phrase = min(phrases, key=lambda one: distance(said, plain(one)) / len(one))
    apart = distance(said, plain(phrase)) / len(phrase)
    if apart > POSSIBLE:
        return NOTHING
    sure = apart <= SURE and words.confidence >= BELIEVED
    return Hearing(phrase, words.confidence * (1 - apart), sure)


def plain(text: str) -> str:
    """Letters, digits and single spaces, in lower case."""
    return " ".join(_NO_LETTERS.sub("", text.lower()).split())


def distance(one: str, other: str) -> int:
    """Letters to change, add or take away, to come from one text to the other (Levenshtein)."""
    row = list(range(len(other) + 1))
    for count, letter in enumerate(one, 1):
        before, row[0] = row[0], count
        for at, wanted in enumerate(other, 1):
            before, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, before + (letter != wanted))
    return row[-1]
