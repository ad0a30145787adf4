"""What a caller means: which of a plan's answers a sentence asks for, or none of them.

Three kinds of evidence are added up as log odds: logistic regression over the points of sentences
(`embedder`, `regression`), the nearest known sentence of each class, and the words themselves (`phrasing`).
What a plan does not know is made of classes too, the library's other intents and its negatives; they are
never an answer. `heads` fits all of it.

The constants were fitted by `python -m benchmarks.meaning --tune`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final

import numpy as np

from model.api import Floats
from model.meaning.embedder import Embedder
from model.meaning.intents import NO, YES
from model.meaning.mentions import NO_MENTIONS, Mentions, find_mentions
from model.meaning.phrasing import Phrasing
from model.meaning.regression import fit, softmax

WORDS: Final = 0.5
"""Weight of the words,"""
NEAREST: Final = 6.0
"""and of the cosine to the nearest sentence; the regression's is 1."""
OUTSIDE: Final = 3.0
"""Log odds that are added for the negatives: there are more of them than any list has."""
SURE: Final = 0.696
"""Chance from which on an answer is taken as asked for."""
CLEAR: Final = 0.7
"""Confidence of a recogniser in its words from which on `SURE` holds for them;"""
SURE_DOUBTED: Final = 0.88
"""below, this does: misheard words easily ask for another answer."""
POSSIBLE: Final = 0.124
"""Chance from which on the caller is asked; below, nothing was understood."""
AGREED: Final = 0.65
"""Chance from which on a yes is a yes, and a no a no."""
NEAR: Final = 0.5
"""A second answer is near when its chance is this share of the first one's."""
THINKING: Final = frozenset({"um", "umm", "uh", "uhm", "er", "erm", "hmm", "mm", "ah"})
"""What is no word of a sentence."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a sentence asks for. `intent` is None when it asks for nothing that the plan knows."""

    intent: str | None
    sure: bool
    rival: str | None = None
    """a second answer that is near, where it is not sure"""
    agrees: bool | None = None
    """it says yes, or no"""
    confidence: float = 0.0
    """chance of the likeliest answer, in [0, 1]"""
    slots: Mentions = NO_MENTIONS
    chances: Mapping[str, float] = field(default_factory=dict)
    """of each answer"""


UNHEARD: Final = Judgement(None, False)


class AnswerHead:
    """One plan's; not changed once it is fitted, so that any thread may ask it."""

    def __init__(
        self,
        embedder: Embedder,
        names: Sequence[str],
        texts: Sequence[Sequence[str]],
        points: Sequence[Floats],
        exact: Mapping[str, str],
    ) -> None:
        """`texts` and `points` `(n, 384)` of each class: first those of `names`, last the negatives.

        `exact`: sentences, `plain`, that ask for an answer whatever else is near.
        """
        self._embedder = embedder
        self.names = tuple(names)
        self._points = tuple(points)
        self._weights = fit(points)
        self._phrasing = Phrasing(texts)
        self._exact = dict(exact)

    def judge(self, text: str, today: date | None = None, confidence: float = 1.0) -> Judgement:
        """What `text` (as a recogniser writes it) asks for. `today` is the day that "tomorrow" follows.

        `confidence` in [0, 1] is the recogniser's in its words: the geometric mean of the probabilities of
        their tokens.
        """
        said = plain(text)
        if not said:
            return UNHEARD
        slots = find_mentions(text, today)
        if (intent := self._exact.get(said)) is not None:
            return Judgement(intent, True, None, slots.agrees, 1.0, slots, {intent: 1.0})
        return self.weigh(self.chances(said, self._embedder.embed([said])[0]), slots, confidence)

    def chances(self, said: str, point: Floats) -> dict[str, float]:
        """The chance of each answer, and of yes and no. `point` `(384,)` is of `said`, which is `plain`."""
        odds = np.array([1.0, NEAREST, WORDS], np.float32) @ self.evidence(said, point)
        odds[-1] += OUTSIDE
        each = softmax(odds[None])[0, : len(self.names)]
        return {name: round(float(chance), 4) for name, chance in zip(self.names, each, strict=True)}

    def evidence(self, said: str, point: Floats) -> Floats:
        """`(3, classes)`: log odds by regression, cosine to the nearest sentence, log odds by words."""
        nearest = [(known @ point).max() for known in self._points]
        regression = point @ self._weights[:-1] + self._weights[-1]
        return np.array([regression, nearest, self._phrasing.odds(said)], np.float32)

    def nearest(self, point: Floats) -> float:
        """The cosine to the nearest sentence that this head was fitted on, of any class."""
        return max(float((known @ point).max()) for known in self._points)

    def weigh(
        self, chances: Mapping[str, float], slots: Mentions = NO_MENTIONS, confidence: float = 1.0
    ) -> Judgement:
        """The judgement on these chances; `confidence` as `judge` has it."""
        answers = {name: chance for name, chance in chances.items() if name not in (YES, NO)}
        agrees = slots.agrees
        if agrees is None and max(chances.get(YES, 0.0), chances.get(NO, 0.0)) >= AGREED:
            agrees = chances.get(YES, 0.0) > chances.get(NO, 0.0)
        first, second = [*sorted(answers, key=answers.__getitem__, reverse=True), None, None][:2]
        if first is None:
            return Judgement(None, False, None, agrees, 0.0, slots)
        chance = answers[first]
        if chance >= (SURE if confidence >= CLEAR else SURE_DOUBTED):
            return Judgement(first, True, None, agrees, chance, slots, answers)
        if second is not None and answers[second] < NEAR * chance:
            second = None
        if chance < POSSIBLE:
            return Judgement(None, False, None, agrees, chance, slots, answers)
        return Judgement(first, False, second, agrees, chance, slots, answers)


def plain(text: str) -> str:
    """A sentence as it is compared: lower case, without its marks, without the sounds of thinking."""
    words = "".join(
        mark if mark.isalnum() or mark in "' " else " " for mark in text.lower().replace("’", "'")
    ).split()
    said = [word for word in words if word not in THINKING]
    return " ".join(said or words)
