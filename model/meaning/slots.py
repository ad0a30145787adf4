"""Times, dates, numbers, yes and no in an English sentence, by rules."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Final


@dataclass(frozen=True, slots=True)
class Slots:
    """What was found, in the order in which it was said."""

    agrees: bool | None = None
    """yes or no; None: neither, or both"""


NO_SLOTS: Final = Slots()


def find_slots(text: str, today: date | None = None) -> Slots:
    """The slots of `text`."""
    return Slots()
