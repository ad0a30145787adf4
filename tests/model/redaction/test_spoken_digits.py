"""Numbers are read out of what was said."""

from __future__ import annotations

import pytest

from model.redaction.spoken_digits import digit_words, read_digits


def digits(text: str, language: str = "en") -> list[str]:
    return [piece.digits for piece in read_digits(text, language) if piece.digits]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("four one double oh seven", ["4", "1", "00", "7"]),
        ("triple 7 and three nines", ["777", "999"]),
        ("forty-one eleven", ["41", "11"]),
        ("twenty, five", ["20", "5"]),
        ("two hundred and six", ["206"]),
        ("four thousand one hundred and eleven", ["4111"]),
        ("nineteen hundred", ["1900"]),
        ("one hundred one", ["101"]),
        ("I won to ate", []),
        ("one for two", ["1", "4", "2"]),
        ("4111", ["4111"]),
        ("٤١١١", ["4111"]),
        ("at 10:30 for $5, the 3rd of 2019", ["2019"]),
        ("once upon a time", []),
        ("niner zero nought", ["9", "0", "0"]),
    ],
)
def test_english(text: str, found: list[str]) -> None:
    assert digits(text) == found


@pytest.mark.parametrize(
    ("language", "value", "said"),
    [
        ("de", 0, "null"), ("de", 17, "siebzehn"), ("de", 35, "fünfunddreißig"), ("de", 99, "neunundneunzig"),
        ("fr", 17, "dix-sept"), ("fr", 21, "vingt et un"), ("fr", 71, "soixante et onze"),
        ("fr", 80, "quatre-vingts"), ("fr", 81, "quatre-vingt-un"), ("fr", 99, "quatre-vingt-dix-neuf"),
        ("fr", 95, "nonante-cinq"), ("es", 16, "dieciséis"), ("es", 22, "veintidós"),
        ("es", 31, "treinta y uno"), ("es", 99, "noventa y nueve"), ("it", 23, "ventitré"),
        ("it", 28, "ventotto"), ("it", 41, "quarantuno"), ("it", 90, "novanta"),
    ],
)  # fmt: skip
def test_other_languages(language: str, value: int, said: str) -> None:
    assert digits(said, language) == [str(value)]


@pytest.mark.parametrize("language", ["en", "de", "fr", "es", "it"])
def test_each_language_has_every_number_below_a_hundred(language: str) -> None:
    assert {int(number) for number in digit_words(language).numbers.values()} == set(range(100))


def test_a_language_without_a_table_is_read_as_english() -> None:
    assert digits("one 2", "nl") == ["1", "2"]
    assert digits("eins", "de-CH") == ["1"]
