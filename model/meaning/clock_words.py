"""Times of day as they are said: "half past five", "quarter to six", "five thirty pm", "noon"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from model.meaning.number_words import TENS, UNITS

NAMED: Final = {"noon": "12:00", "midday": "12:00", "midnight": "00:00"}
BEFORE: Final = frozenset(
    {"at", "by", "until", "till", "before", "after", "around", "about", "from", "since"}
)
"""A bare number from one to twelve behind one of these is an hour."""
PARTS: Final = {"morning": "am", "afternoon": "pm", "evening": "pm", "night": "pm"}
COUNTED: Final = frozenset([
    "minutes", "minute", "hours", "hour", "days", "day", "weeks", "week", "months", "month",
    "years", "year", "people", "persons", "percent", "pounds", "euros", "dollars", "of", "hundred",
    "thousand",
])  # fmt: skip
"""What a number before it counts: "at five people" is no hour."""
_WRITTEN: Final = re.compile(r"(\d{1,2})[:.](\d\d)")


def read_time(words: Sequence[str], at: int) -> tuple[str, int] | None:
    """(the time at `words[at]`: "17:30", "05:30 or 17:30"; the index after it); None when there is none."""
    word = words[at]
    if word in NAMED:
        return NAMED[word], at + 1
    if (shifted := _past_or_to(words, at)) is not None:
        return _with_half(*shifted[:2], words, shifted[2])
    if (match := _WRITTEN.fullmatch(word)) is not None:
        sure = ":" in word or _half(words, at + 1)[0] is not None or _led(words, at)
        if int(match[1]) < 24 and int(match[2]) < 60 and sure:
            return _with_half(int(match[1]), int(match[2]), words, at + 1)
        return None
    hour = _number(words, at)
    if hour is None or hour > 23:
        return None
    after = at + 1
    if words[after : after + 1] in (["o'clock"], ["oclock"]):
        return _with_half(hour, 0, words, after + 1)
    half, _ = _half(words, after)
    minute, end = _minutes(words, after)
    if minute is not None and 1 <= hour <= 12 and (_led(words, at) or _half(words, end)[0] or minute >= 10):
        if words[end : end + 1] and words[end] in COUNTED:
            return None
        return _with_half(hour, minute, words, end)
    if half is not None and 1 <= hour <= 12:
        return _with_half(hour, 0, words, after)
    follows = words[after] if after < len(words) else ""
    if _led(words, at) and 1 <= hour <= 12 and follows not in COUNTED and _number(words, after) is None:
        return _with_half(hour, 0, words, after)
    return None


def _past_or_to(words: Sequence[str], at: int) -> tuple[int, int, int] | None:
    """ "half past five", "quarter to six", "ten past", "half five": (hour, minute, index after)."""
    shift: int | None
    if words[at] == "a" and words[at + 1 : at + 2] == ["quarter"]:
        at += 1
    if words[at] == "half":
        hour = _number(words, at + 2) if words[at + 1 : at + 2] == ["past"] else _number(words, at + 1)
        after = at + 3 if words[at + 1 : at + 2] == ["past"] else at + 2
        return (hour, 30, after) if hour is not None and 1 <= hour <= 12 else None
    shift, after = (15, at + 1) if words[at] == "quarter" else _minutes(words, at)
    if shift is None or shift > 30:
        return None
    if words[after : after + 1] in (["minutes"], ["minute"]):
        after += 1
    toward = words[after] if after < len(words) else ""
    hour = _number(words, after + 1)
    if toward not in ("past", "to", "after", "before", "till") or hour is None or not 1 <= hour <= 12:
        return None
    if toward in ("past", "after"):
        return hour, shift, after + 2
    return (hour - 1 or 12), 60 - shift, after + 2


def _number(words: Sequence[str], at: int) -> int | None:
    if at >= len(words):
        return None
    return int(words[at]) if words[at].isdecimal() and len(words[at]) < 3 else UNITS.get(words[at])


def _minutes(words: Sequence[str], at: int) -> tuple[int | None, int]:
    """(minutes said at `words[at]`, 1 to 59; the index after them)"""
    if at >= len(words):
        return None, at
    if words[at] in ("oh", "o") and (units := _number(words, at + 1)) is not None and 0 < units < 10:
        return units, at + 2
    if (tens := TENS.get(words[at])) is not None and tens < 60:
        units = _number(words, at + 1)
        return (tens + units, at + 2) if units is not None and 0 < units < 10 else (tens, at + 1)
    minute = _number(words, at)
    return (minute, at + 1) if minute is not None and 0 < minute < 60 else (None, at)


def _led(words: Sequence[str], at: int) -> bool:
    return at > 0 and words[at - 1] in BEFORE


def _half(words: Sequence[str], at: int) -> tuple[str | None, int]:
    """("am" or "pm" as it is said at `words[at]`, the index after it)"""
    here = words[at] if at < len(words) else ""
    if here in ("am", "pm"):
        return here, at + 1
    for lead in (("in", "the"), ("at",), ("this",), ("tomorrow",), ()):
        end = at + len(lead)
        if tuple(words[at:end]) == lead and end < len(words) and words[end] in PARTS and lead:
            return PARTS[words[end]], end + 1 if lead != ("tomorrow",) else at
    return ("pm", at) if here == "tonight" else (None, at)


def _with_half(hour: int, minute: int, words: Sequence[str], after: int) -> tuple[str, int]:
    half, end = _half(words, after)
    if hour == 0 or hour > 12:
        return f"{hour:02d}:{minute:02d}", end
    morning, later = f"{hour % 12:02d}:{minute:02d}", f"{hour % 12 + 12:02d}:{minute:02d}"
    return {"am": morning, "pm": later}.get(half or "", f"{morning} or {later}"), end
