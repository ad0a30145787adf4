"""How sure a model is of each word that it wrote, out of its scores for each token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consent.whisper.features import Floats
from consent.whisper.vocabulary import text_of

SPACE: Final = "\u0120"
"""A space before a word, as the vocabulary writes it."""


class Spellings:
    """Which tokens of a vocabulary are one piece of a word, with a space, in capitals or without."""

    def __init__(self, tokens: Iterable[str]) -> None:
        plain = [_plain(token) for token in tokens]
        numbers = {text: number for number, text in enumerate(dict.fromkeys(plain))}
        self._same: NDArray[np.int64] = np.array([numbers[text] for text in plain])

    def certainty(self, scores: Floats, token: int) -> float:
        """The probability, in [0, 1], of a token in any spelling; `scores` are float32 `(vocabulary,)`."""
        powers = np.exp(scores - scores.max())
        same = self._same[: len(scores)] == self._same[token]
        return float(powers[same].sum() / powers.sum())


def certain_words(tokens: Sequence[str], certainties: Sequence[float]) -> Iterator[tuple[str, float]]:
    """Each word of the tokens with the least certainty of its pieces; punctuation has none of its own."""
    pieces: list[str] = []
    least = 1.0
    for token, certainty in zip(tokens, certainties, strict=True):
        if token.startswith(SPACE) and pieces:
            yield text_of(pieces), least
            pieces, least = [], 1.0
        pieces.append(token)
        if any(sign.isalnum() for sign in token):
            least = min(least, certainty)
    if pieces:
        yield text_of(pieces), least


def _plain(token: str) -> str:
    text = text_of([token]).casefold()
    return text if text.isalnum() else token
