"""Text as Whisper's tokens, and back."""

from __future__ import annotations

import pytest

from consent.models.model_files import locked_model
from consent.whisper.vocabulary import TokenNumbers, text_of
from consent.whisper.whisper import MANY
from tests.needs import need_model

LETTERS = ["a", "b", "c", "\u0120"]


def test_pairs_are_joined_in_the_order_of_the_vocabulary() -> None:
    vocabulary = [*LETTERS, "bc", "ab", "\u0120a", "abc"]
    numbers = TokenNumbers(vocabulary).of("abc")
    assert [vocabulary[number] for number in numbers] == ["\u0120a", "bc"], "bc stands before ab"


@pytest.mark.parametrize(
    "text",
    ["I consent to Acme making a copy, until June 30, 2027.", "don't",
     "Ana García, über die Straße; d'accord", "a_b", "数字 7"],
)  # fmt: skip
def test_a_text_comes_back_from_its_tokens(text: str) -> None:
    directory = need_model(MANY)
    model = locked_model(MANY)
    vocabulary = model.read(directory, "vocabulary.txt").decode().split("\n")
    numbers = TokenNumbers(vocabulary).of(text)
    assert text_of(vocabulary[number] for number in numbers) == text
    assert len(numbers) <= len(text.encode())


def test_nothing_has_no_tokens() -> None:
    assert TokenNumbers(LETTERS).of(" ") == []
