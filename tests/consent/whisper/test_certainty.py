"""How sure a model is of a word: over its spellings and pieces, and not over the comma after it."""

from __future__ import annotations

import numpy as np
import pytest

from consent.whisper.certainty import Spellings, certain_words

TOKENS = ["\u0120castle", "\u0120Castle", "castle", "\u0120velvet", ",", ".", "\u0120"]


def test_a_word_in_capitals_is_the_same_word() -> None:
    scores = np.log(np.array([0.3, 0.25, 0.05, 0.2, 0.1, 0.05, 0.05], np.float32))
    spellings = Spellings(TOKENS)
    assert spellings.certainty(scores, 0) == pytest.approx(0.6)
    assert spellings.certainty(scores, 1) == pytest.approx(0.6)
    assert spellings.certainty(scores, 3) == pytest.approx(0.2)
    assert spellings.certainty(scores, 4) == pytest.approx(0.1), "a comma is no full stop"


def test_scores_of_any_size_are_probabilities() -> None:
    spellings = Spellings(TOKENS)
    for shift in (-5e4, 0.0, 5e4):
        scores = np.array([5, 1, 1, 1, 1, 1, 1], np.float32) + np.float32(shift)
        assert 0.0 < spellings.certainty(scores, 0) <= 1.0


def test_a_word_is_as_sure_as_its_least_sure_piece_and_punctuation_says_nothing() -> None:
    tokens = ["\u0120voice", "-", "app", "rent", ".", "\u0120velvet", ","]
    words = list(certain_words(tokens, [0.9, 0.1, 0.8, 0.3, 0.2, 0.7, 0.05]))
    assert words == [("voice-apprent.", 0.3), ("velvet,", 0.7)]
    assert list(certain_words([], [])) == []
