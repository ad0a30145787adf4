"""What Redis knows of a call, read: the facts of its hash and the events of its stream.

What a stranger wrote there is left out, and spoils nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_MEASURED: Final = (
    "jitter_ms", "buffer_ms", "round_trip_ms", "mos", "mos_worst", "far_jitter_ms", "far_mos",
)  # fmt: skip
_COUNTED: Final = ("packets", "lost", "far_sent", "far_lost")
OF_TARGET: Final = "target_"
"""Before the name of a fact: of the target that had the caller."""
FRACTIONS: Final = (
    "started_at", "answered_at", "ended_at", "spoken_s", *_MEASURED, *(OF_TARGET + one for one in _MEASURED),
)  # fmt: skip
COUNTS: Final = ("turns", "underruns", *_COUNTED, *(OF_TARGET + one for one in _COUNTED))
"""Facts that are numbers."""
MOST_DIGITS: Final = 18
"""Of a whole number, its sign among them."""


@dataclass(frozen=True, slots=True)
class CallRecord:
    """What Redis knows of a call. `facts` is its hash; times are seconds since the epoch."""

    call_id: str
    facts: dict[str, str]
    events: tuple[dict[str, Any], ...] = ()

    @property
    def state(self) -> str:
        """Where the call stands: ringing, answered, talking, …, ended; `unknown` when Redis does not say."""
        return self.facts.get("state", "unknown")

    def number(self, key: str) -> float | None:
        """A fact that is a finite number; None when it is not there, or is anything else."""
        try:
            number = float(self.facts[key])
        except (KeyError, ValueError):
            return None
        return number if math.isfinite(number) else None

    @property
    def turns(self) -> tuple[dict[str, Any], ...]:
        """The turns among the events, the oldest first."""
        return tuple({"at": event["at"], **event["data"]} for event in self.events if event["kind"] == "turn")

    @property
    def spoken(self) -> dict[str, float]:
        """Seconds that a call which has ended was spoken to under each of its grants, by jti."""
        kept = read_json(self.facts.get("spoken", "{}"))
        found = kept.items() if isinstance(kept, dict) else ()
        return {jti: float(seconds) for jti, seconds in found if isinstance(seconds, int | float)}

    def to_json(self, *, events: bool = False) -> dict[str, Any]:
        """The call for the API and the command line.

        `offer` is left out: it is for a hall that takes the call up.
        """
        facts = {key: value for key, value in self.facts.items() if key != "offer"}
        table: dict[str, Any] = {**facts, "call_id": self.call_id}
        for key in FRACTIONS:
            _keep(table, key, self.number(key))
        for key in COUNTS:
            number = self.number(key)
            _keep(table, key, None if number is None else int(number))
        for key in ("disclosed", "spoken", "headers"):
            if key in facts:
                _keep(table, key, read_json(facts[key]))
        if events:
            table["turns"] = list(self.turns)
            table["events"] = list(self.events)
        return table


def _keep(table: dict[str, Any], key: str, value: object) -> None:
    """Puts a value that could be read; what could not be read is left out."""
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value


def read_json(text: str) -> Any:
    """What `text` says; None when it is not JSON, which knows neither NaN nor halves of characters.

    Some writers write them: NaN, and infinity, spoil the text, and so does a whole number of more than 18
    digits, which no column, clock or page can hold; a half becomes a question mark.
    """
    try:
        told = json.loads(text, parse_float=_finite, parse_constant=_finite, parse_int=_whole)
        if "\\ud" in text.lower():  # an engine may tell the halves of a character one by one
            told = json.loads(json.dumps(told, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return told


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(text[:MOST_DIGITS])
    return int(text)


def read_event(fields: Mapping[str, str]) -> dict[str, Any] | None:
    """An entry of a call's stream; None for what is not one."""
    data = read_json(fields.get("data", ""))
    try:
        at = float(fields["at"])
    except (KeyError, ValueError):
        return None
    if not math.isfinite(at) or "kind" not in fields or not isinstance(data, dict):
        return None
    return {"at": at, "kind": fields["kind"], "data": data}
