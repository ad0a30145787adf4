"""Days as they are said: "tomorrow", "next friday", "the third of may", "in two weeks"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final

from model.meaning.number_words import UNITS, read_whole

WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS: Final = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december",
)  # fmt: skip
_FROM_TODAY: Final = {"today": 0, "tonight": 0, "tomorrow": 1, "yesterday": -1}
_ORDINALS: Final = {
    word: value
    for value, word in enumerate(
        [
            "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth",
            "tenth", "eleventh", "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth",
            "seventeenth", "eighteenth", "nineteenth", "twentieth",
        ],
        1,
    )
} | {"thirtieth": 30}  # fmt: skip
_SUFFIXES: Final = frozenset({"st", "nd", "rd", "th"})
_YEAR: Final = re.compile(r"20\d\d")


def read_date(words: Sequence[str], at: int, today: date) -> tuple[date, int] | None:
    """(the day at `words[at]`, the index after it); None when there is none."""
    word = words[at]
    if word in _FROM_TODAY:
        return today + timedelta(_FROM_TODAY[word]), at + 1
    if tuple(words[at : at + 3]) == ("day", "after", "tomorrow"):
        return today + timedelta(2), at + 3
    if word == "in" and at + 1 < len(words):
        return _in_some(words, at + 1, today)
    if word in ("next", "this") and at + 1 < len(words) and words[at + 1] in WEEKDAYS:
        day = WEEKDAYS.index(words[at + 1])
        monday = today - timedelta(today.weekday())
        if word == "next":
            return monday + timedelta(7 + day), at + 2
        return today + timedelta((day - today.weekday()) % 7), at + 2
    if word.removesuffix("s") in WEEKDAYS and word in WEEKDAYS:
        coming = today + timedelta((WEEKDAYS.index(word) - today.weekday()) % 7)
        exact = _month_day(words, at + 1, today)  # "friday the fourth of december"
        return exact if exact is not None else (coming, at + 1)
    return _month_day(words, at, today)


def _in_some(words: Sequence[str], at: int, today: date) -> tuple[date, int] | None:
    count = (1, at + 1) if words[at] in ("a", "one") else read_whole(words, at)
    if count is None or count[1] >= len(words):
        return None
    number, after = count
    days = {"day": 1, "days": 1, "week": 7, "weeks": 7}.get(words[after])
    return (today + timedelta(number * days), after + 1) if days and number < 1000 else None


def _month_day(words: Sequence[str], at: int, today: date) -> tuple[date, int] | None:
    """ "the third of may", "3 may", "may 3rd", "may the third", with a year behind or not."""
    start = at
    if words[at : at + 1] == ["the"]:
        at += 1
    if at < len(words) and words[at] in MONTHS:
        month = MONTHS.index(words[at]) + 1
        behind = at + 2 if words[at + 1 : at + 2] == ["the"] else at + 1
        day = _day(words, behind)
    else:
        day = _day(words, at)
        if day is None:
            return None
        of = day[1] + (words[day[1] : day[1] + 1] == ["of"])
        if of >= len(words) or words[of] not in MONTHS or (start != at and of == day[1]):
            return None
        month, day = MONTHS.index(words[of]) + 1, (day[0], of + 1)
    if day is None:
        return None
    number, after = day
    year, ends = (
        (int(words[after]), after + 1)
        if after < len(words) and _YEAR.fullmatch(words[after])
        else (None, after)
    )
    try:
        found = date(year or today.year, month, number)
        if year is None and found < today:
            found = date(today.year + 1, month, number)
    except ValueError:
        return None
    return found, ends


def _day(words: Sequence[str], at: int) -> tuple[int, int] | None:
    """(the day of a month at `words[at]`: 3, 3rd, three, third, twenty first; the index after it)"""
    if at >= len(words):
        return None
    word = words[at]
    if word.isdecimal() and 1 <= int(word) <= 31:
        return int(word), at + 1 + (words[at + 1 : at + 2] != [] and words[at + 1] in _SUFFIXES)
    if word in _ORDINALS:
        return _ORDINALS[word], at + 1
    tens = {"twenty": 20, "thirty": 30}.get(word)
    behind = words[at + 1] if at + 1 < len(words) else ""
    if tens is not None:
        unit = _ORDINALS.get(behind, UNITS.get(behind, 0))
        day = tens + unit if 0 < unit < 10 else tens
        return (day, at + 1 + (day != tens)) if day <= 31 else None
    return (UNITS[word], at + 1) if 1 <= UNITS.get(word, 0) <= 31 else None
