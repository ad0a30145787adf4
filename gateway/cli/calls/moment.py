"""Times as an operator writes them (`2h` ago, `3d` ago, a date, or an ISO time), and as they are shown."""

from __future__ import annotations

import re
import time
from datetime import date, datetime, timedelta
from typing import Any, Final

import click

UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_AGO: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*([smhdw])")
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")


class Moment(click.ParamType[float]):
    """Seconds since the epoch. A date is its first moment in this machine's zone, or with `ends` its last."""

    name = "time"

    def __init__(self, *, ends: bool = False) -> None:
        self._ends = ends

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The time that was written. Fails as click has it, saying what can be written."""
        text = str(value).strip()
        try:
            return _read(text, ends=self._ends)
        except (ValueError, OverflowError, OSError):
            self.fail(
                f"{text!r} is not a time; write how long ago (30m, 2h, 3d, 1w), a date (2026-03-02), "
                'or a time ("2026-03-02 18:30"; a zone may follow: +01:00, Z)',
                param,
                ctx,
            )


def _read(text: str, *, ends: bool) -> float:
    if ago := _AGO.fullmatch(text.lower()):
        at = time.time() - float(ago[1]) * UNITS[ago[2]]
    elif text.lower() in ("today", "yesterday"):
        day = date.today() - timedelta(days=text.lower() == "yesterday")
        at = _midnight(day + timedelta(days=ends))
    elif _DATE.fullmatch(text):
        at = _midnight(date.fromisoformat(text) + timedelta(days=ends))
    else:
        at = datetime.fromisoformat(text).timestamp()
    datetime.fromtimestamp(at).astimezone()  # a year that no clock shows is a mistake, not a time
    return at


def _midnight(day: date) -> float:
    return datetime(day.year, day.month, day.day).timestamp()


def time_of_day(at: float) -> str:
    """Seconds since the epoch as 17:31:05.250, in this machine's zone."""
    return f"{datetime.fromtimestamp(at):%H:%M:%S.%f}"[:-3]


def day_and_time(at: float) -> str:
    """Seconds since the epoch as 2026-03-02 17:31:05, in this machine's zone."""
    return f"{datetime.fromtimestamp(at):%Y-%m-%d %H:%M:%S}"
