"""Words as they are compared, whoever wrote them down: a person, a lexicon, or a recogniser.

A recogniser writes "17" for "seventeen" or the other way round, "June 30th", "9-0-3-2"; none of that is
another word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product
from typing import Final

from consent.statements.lexicon import LEXICA

ORDINAL: Final = "st|nd|rd|th|er|re|e|ème|º|ª"
WORD: Final = re.compile(rf"(\d+)(?:(?:{ORDINAL})\b)?|([^\W\d_]+(?:['’][^\W\d_]+)*)")

Digits = Mapping[tuple[str, ...], str]


def tokens(text: str, language: str) -> list[str]:
    """Words in small letters, without accents and punctuation; numbers as single digits."""
    folded = [number or fold(word) for number, word in WORD.findall(text)]
    out: list[str] = []
    for token in _numbered([word for word in folded if word], language):
        out += token if token.isdigit() else [token]
    return out


def fold(word: str) -> str:
    """Small letters without accents, apostrophes or anything else."""
    plain = unicodedata.normalize("NFKD", word.casefold())
    return "".join(letter for letter in plain if letter.isalpha())


def _numbered(words: list[str], language: str) -> Iterator[str]:
    """`words` with numbers up to 99, and years, as digits: always the longest that is there."""
    digits = _digits(language)
    longest = max(map(len, digits))
    at = 0
    while at < len(words):
        for length in range(min(longest, len(words) - at), 0, -1):
            if (number := digits.get(tuple(words[at : at + length]))) is not None:
                yield number
                at += length
                break
        else:
            yield words[at]
            at += 1


@cache
def _digits(language: str) -> Digits:
    """What the words of a number, folded, are in digits."""
    lexicon = LEXICA[language]
    table: dict[tuple[str, ...], str] = {
        (fold(word),): str(digit) for digit, word in enumerate(lexicon.digits)
    }
    for (number, words), year in product(enumerate(lexicon.numbers, 10), ("{n}", *lexicon.years)):
        said = tuple(fold(word) for word in year.format(n=words).split("-"))
        table[said] = str(number if year == "{n}" else 2000 + number)
    return table
