"""What single words and pairs of words speak for: naive Bayes, beside the points of whole sentences.

A point says what a sentence is like; that "address" or "speak to" was said is lost in it when the rest of the
sentence is about something else.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

from model.api import Floats

PRIOR: Final = 0.1
"""Sentences of each class in which a word is taken to stand unseen."""


class Phrasing:
    """The words of some classes of sentences."""

    def __init__(self, groups: Sequence[Sequence[str]]) -> None:
        """`groups`: each class's sentences, as `plain` makes them."""
        self._classes = len(groups)
        counts = [Counter(part for text in group for part in parts(text)) for group in groups]
        sizes = np.array([len(group) for group in groups], np.float32)
        self._odds: dict[str, Floats] = {}
        for part in set().union(*counts):
            here = np.array([count[part] for count in counts], np.float32)
            odds = np.log((here + PRIOR) / (sizes + 2 * PRIOR))
            self._odds[part] = (odds - odds.mean()).astype(np.float32)

    def odds(self, text: str) -> Floats:
        """`(classes,)`: for each class, what the words of `text` speak for it (log odds, about 0).

        Divided by the root of their number, since they do not stand beside each other by chance.
        """
        known = [self._odds[part] for part in parts(text) if part in self._odds]
        if not known:
            return np.zeros(self._classes, np.float32)
        total: Floats = np.sum(known, axis=0, dtype=np.float32)
        total /= np.float32(math.sqrt(len(known)))
        return total


def parts(text: str) -> set[str]:
    """The words of `text`, and the pairs of neighbours with its begin and end."""
    words = text.split()
    return {*words, *(f"{a} {b}" for a, b in zip(["^", *words], [*words, "$"], strict=True))}
