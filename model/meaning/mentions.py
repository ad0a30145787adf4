"""Times, dates, numbers, yes and no in an English sentence, by rules.

A recogniser writes "half past five", "5:30 p.m." and "five thirty" for the same time; all are read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Final

from model.meaning.calendar_words import read_date
from model.meaning.clock_words import read_time
from model.meaning.number_words import read_number

_TOKEN: Final = re.compile(r"\d+(?::\d\d)+|\d+(?:,\d{3})+|\d+(?:\.\d+)?|[^\W\d_]+(?:'[^\W\d_]+)?")
_HALF_OF_DAY: Final = re.compile(r"\b([ap])\.? ?m\b\.?")

STRONG_YES: Final = frozenset([
    "yes", "yeah", "yep", "yup", "yea", "aye", "sure", "okay", "ok", "absolutely", "definitely",
    "certainly", "exactly", "indeed", "affirmative",
])  # fmt: skip
WEAK_YES: Final = frozenset({"right", "correct", "true"})
STRONG_NO: Final = frozenset({"no", "nope", "nah", "negative"})
DENIES: Final = frozenset([
    "not", "didn't", "don't", "isn't", "wasn't", "doesn't", "wrong", "never", "incorrect", "neither",
])  # fmt: skip
BESIDE: Final = frozenset([
    "that", "that's", "thats", "this", "it", "it's", "is", "was", "i", "did", "do", "please",
    "thanks", "thank", "you", "sir", "madam", "ma'am", "of", "course", "one", "all", "just", "so",
    "very", "much", "oh", "well", "the", "a", "quite", "at", "none",
])  # fmt: skip
"""What may stand beside a yes or a no without saying something else."""


@dataclass(frozen=True, slots=True)
class Mentions:
    """What was found, in the order in which it was said."""

    agrees: bool | None = None
    """yes or no; None: neither, or both, or something else besides"""
    times: tuple[str, ...] = ()
    """"17:30"; "05:30 or 17:30" where the half of the day was not said"""
    dates: tuple[str, ...] = ()
    """"2026-12-05"; a day without a year is the next one"""
    numbers: tuple[str, ...] = ()
    """"25", "2.5"; digits that were said one by one stand together, with their zeros ("0301234567")"""
    choice: int | None = None
    """1 or 2: which of two things is named by its place, as "the first one" or "the latter" do"""

    def as_json(self) -> dict[str, object]:
        """Those that were found."""
        lists = {"times": self.times, "dates": self.dates, "numbers": self.numbers}
        found: dict[str, object] = {name: list(some) for name, some in lists.items() if some}
        return found if self.agrees is None else {"agrees": self.agrees, **found}


CHOICES: Final = {"first": 1, "former": 1, "second": 2, "latter": 2, "last": 2}
CHOICE_WORDS: Final = 5
"""A longer sentence says more than which of two."""
NO_MENTIONS: Final = Mentions()


def find_mentions(text: str, today: date | None = None) -> Mentions:
    """The slots of `text`; what belongs to a date or a time is not a number as well."""
    words = _TOKEN.findall(_HALF_OF_DAY.sub(r" \1m ", text.lower().replace("’", "'")))
    times: list[str] = []
    dates: list[str] = []
    numbers: list[str] = []
    at = 0
    while at < len(words):
        if (day := read_date(words, at, today or date.today())) is not None:
            found, at = day
            dates.append(found.isoformat())
        elif (time := read_time(words, at)) is not None:
            said, at = time
            times.append(said)
        elif (number := read_number(words, at)) is not None:
            said, at = number
            numbers.append(said)
        else:
            at += 1
    return Mentions(agrees(words), tuple(times), tuple(dates), tuple(numbers), _choice(words))


def _choice(words: list[str]) -> int | None:
    named = [CHOICES[word] for word in words if word in CHOICES]
    return named[0] if len(named) == 1 and len(words) <= CHOICE_WORDS else None


def agrees(words: list[str]) -> bool | None:
    """Whether these words say yes, or no, and nothing else; None otherwise."""
    said = set(words)
    yes, right = said & STRONG_YES, said & WEAK_YES
    no, denied = said & STRONG_NO, said & DENIES
    if not (yes or right or no or denied) or said - (STRONG_YES | WEAK_YES | STRONG_NO | DENIES | BESIDE):
        return None
    if yes and (no or denied):  # "absolutely not"
        return False if not no and words[-1] == "not" else None
    if no and right and not denied:
        return None
    return not (no or denied)
