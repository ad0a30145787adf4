"""Numbers as they are said: "twenty five", "two hundred and six", "five five five oh one", "2.5"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

UNITS: Final = {
    word: value
    for value, word in enumerate(
        [
            "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
            "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
            "nineteen",
        ]
    )
}  # fmt: skip
TENS: Final = {
    word: 10 * value
    for value, word in enumerate(
        ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], 2
    )
}
SCALES: Final = {"hundred": 100, "thousand": 1_000, "million": 1_000_000}
DIGITS: Final = {**{word: str(value) for word, value in UNITS.items() if value < 10}, "oh": "0", "o": "0"}
REPEATED: Final = {"double": 2, "triple": 3}
RUN: Final = 3
"""So many digits one after another are dictated."""
_WRITTEN: Final = re.compile(r"\d+(?:\.\d+)?|\d+(?:,\d{3})+")


def read_number(words: Sequence[str], at: int) -> tuple[str, int] | None:
    """(the number at `words[at]`, the index after it); None when there is none."""
    digits, after = _digits(words, at)
    if len(digits) >= RUN:
        return digits, after
    whole = read_whole(words, at)
    if whole is not None:
        value, after = whole
        if words[after : after + 3] == ["and", "a", "half"]:
            return f"{value}.5", after + 3
        if words[after : after + 1] == ["point"]:
            digits, end = _digits(words, after + 1)
            if digits:
                return f"{value}.{digits}", end
        return str(value), after
    if _WRITTEN.fullmatch(words[at]):
        return words[at].replace(",", ""), at + 1
    return None


def read_whole(words: Sequence[str], at: int) -> tuple[int, int] | None:
    """(the whole number at `words[at]`, in words or in figures; the index after it); None without one."""
    if words[at].isdecimal():
        value = int(words[at])
        after = at + 1
        while after < len(words) and words[after] in SCALES:
            value, after = value * SCALES[words[after]], after + 1
        return value, after
    total = part = 0
    after, begun = at, False
    while after < len(words):
        word = words[after]
        if word in TENS and part % 100 == 0:
            part += TENS[word]
        elif word in UNITS and (
            part % 100 == 0 or (part % 100 >= 20 and part % 10 == 0 and 0 < UNITS[word] < 10)
        ):
            part += UNITS[word]
        elif word == "hundred" and 0 < part < 100:
            part *= 100
        elif word in SCALES and SCALES[word] > 100 and part:
            total, part = total + part * SCALES[word], 0
        elif word == "a" and not begun and after + 1 < len(words) and words[after + 1] in SCALES:
            part = 1
        elif (
            word == "and"
            and begun
            and after + 1 < len(words)
            and words[after - 1] in SCALES
            and (words[after + 1] in UNITS or words[after + 1] in TENS)
        ):
            pass
        else:
            break
        begun = True
        if part == 0 and word == "zero":
            return 0, after + 1
        after += 1
    return (total + part, after) if begun else None


def _digits(words: Sequence[str], at: int) -> tuple[str, int]:
    """(the digits dictated from `words[at]` on, the index after them); figures count as they are."""
    found = ""
    spoken = 0
    while at < len(words):
        times = REPEATED.get(words[at], 1)
        word = words[at + 1] if times > 1 and at + 1 < len(words) else words[at]
        if word in DIGITS:
            found += DIGITS[word] * times
        elif word.isdecimal() and times == 1:
            found += word
        else:
            break
        spoken += 1
        at += 2 if times > 1 else 1
    return (found, at) if spoken > 1 or len(found) > RUN else ("", at)
