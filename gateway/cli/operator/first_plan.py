"""A house's first dialplan: made of a few answers, so that a newcomer's own number is answered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

from gateway.dialplan.routes import DAYS, Hours, weekdays_of

ALWAYS: Final = "always"
"""Opening hours without an end."""
_WINDOW: Final = re.compile(
    r"([a-z,\- ]+?)\s+(?:from\s+)?([0-9]{1,2}(?::[0-9]{2})?)\s*(?:-|to)\s*([0-9]{1,2}(?::[0-9]{2})?)"
)
_DAY_NAMES: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_HOUR_NAMES: Final = (
    "twelve", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
)  # fmt: skip
_PLACE: Final = """
[[route.do.answers]]
intent = "place"
library = "place"
about = "where we are"
ask = ["where are you", "where can i find you", "what is your address", "how do i get there"]
say = "You find us {address}."
"""
_MESSAGE: Final = """
# The same numbers outside the hours above: the first route that fits wins.
[[route]]
name = "message"
called = $called

[[route.do]]
verb = "answer"

[[route.do]]
verb = "disclose"
principal = $principal
language = "en"
before = "Hello. We are closed."

[[route.do]]
verb = "record"
announce = "Please leave a message after the tone. It will be recorded."
max_s = 60.0
silence_s = 4.0

[[route.do]]
verb = "hangup"
say = "Thank you. Goodbye."
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstPlan:
    """What a newcomer answered. Whether it can be meant is what the loader of dialplans says of `text`."""

    principal: str
    """for whom the machine speaks"""
    called: tuple[str, ...] = ("demo",)
    """what callers dial"""
    hours: tuple[Hours, ...] = ()
    """when the house is open; empty: always"""
    address: str = ""
    """where it is, as it is said after "You find us"; empty: nobody is told"""
    target: str = ""
    """whom callers are put through to; empty: nobody"""
    transcript: bool = False
    """whether what is said is written down"""
    processor: str = ""
    """who else processes what callers say"""

    def text(self) -> str:
        """The plan as TOML."""
        words = {"called": _list(self.called), "principal": _text(self.principal)}
        windows = ",\n".join(
            f'  {{ days = "{one.days}", from = "{one.opens}", to = "{one.closes}" }}' for one in self.hours
        )
        can_ask = "our opening hours, or where we are" if self.address else "our opening hours"
        return Template(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")).substitute(
            words,
            targets=f"\n[targets]\nperson = {_text(self.target)}\n" if self.target else "",
            hours=f"hours = [\n{windows},\n]" if self.hours else "# no hours: it is always open",
            transcript="true" if self.transcript else "false",
            processor=f"processor = {_text(self.processor)}"
            if self.processor
            else "# processor = nobody else",
            kept='text = "What you say is written down."' if self.transcript else "# text = nothing more",
            can_ask=f"You can ask about {can_ask}.",
            transfer='transfer = "person"'
            if self.target
            else "# transfer = to nobody: there are no [targets]",
            hours_said=_text(said_hours(self.hours)),
            address_said=_text(self.address or "unknown"),
            place=_PLACE if self.address else "",
            message=Template(_MESSAGE).substitute(words) if self.hours else "",
        )


def read_hours(text: str) -> tuple[Hours, ...]:
    """The windows of "mon-fri 9-18, sat 10:00-14:00"; none for "always". Raises `ValueError`."""
    if text.strip().lower() in (ALWAYS, ""):
        return ()
    found = []
    for part in re.split(r"(?<=[0-9])\s*[,;]", text.strip().lower()):
        window = _WINDOW.fullmatch(part.strip())
        if window is None:
            raise ValueError(
                f'{part.strip()!r} are not hours; write "mon-fri 9:00-18:00, sat 10-14", or always'
            )
        hours = Hours(days=window[1].replace(" ", ""), opens=_clock(window[2]), closes=_clock(window[3]))
        _ = hours.weekdays, hours.minutes()
        found.append(hours)
    return tuple(found)


def said_hours(hours: Iterable[Hours]) -> str:
    """The hours as they are said aloud: "Monday to Friday from nine in the morning to six in the evening"."""
    said = [f"{_said_days(one.days)} {_said_window(one)}" for one in hours]
    if not said:
        return "at all times"
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])}, and {said[-1]}"


def _said_window(one: Hours) -> str:
    if one.minutes() == (0, 24 * 60):
        return "around the clock"
    return f"from {_said_time(one.opens)} to {_said_time(one.closes)}"


def _said_days(days: str) -> str:
    named = []
    for part in days.split(","):
        first, _, last = part.partition("-")
        names = [_DAY_NAMES[DAYS.index(one)] for one in (first, last) if one]
        named.append(" to ".join(names))
    if weekdays_of(days) == frozenset(range(7)):
        return "every day"
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"


def _said_time(clock: str) -> str:
    hour, minute = (int(part) for part in clock.split(":"))
    if minute == 0 and hour in (0, 12, 24):
        return "noon" if hour == 12 else "midnight"
    part = "in the morning" if hour < 12 else "in the afternoon" if hour < 18 else "in the evening"
    name = _HOUR_NAMES[hour % 12]
    spoken = {0: name, 15: f"quarter past {name}", 30: f"half past {name}"}
    return f"{spoken.get(minute, f'{hour % 12 or 12}:{minute:02d}')} {part}"


def _clock(text: str) -> str:
    hour, _, minute = text.partition(":")
    return f"{int(hour):02d}:{minute or '00'}"


def _text(text: str) -> str:
    """As a TOML string: JSON's escapes are TOML's, but for what is above the sixteen bits."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _list(texts: Iterable[str]) -> str:
    return f"[{', '.join(map(_text, texts))}]"
