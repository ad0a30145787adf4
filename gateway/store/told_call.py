"""One call's JSON, read with care, and a cause of its being a bad one as it is told."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.ipc.ending import CallEnding
from gateway.store import cause_texts

LONGEST: Final = 160
"""Characters of an evidence, which others may have written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallCause:
    """One cause, with its evidence: an event, its time and a number. Times are seconds since the epoch."""

    name: str
    since: float
    """when it began, as far as that can be told: the first cause is the one that began first"""
    at: float
    """the time of the event"""
    event: str
    """the kind of the event that tells it, or the fact"""
    number: str
    what: str
    remedy: str

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class ToldCall:
    """One call's JSON, read with care."""

    def __init__(self, call: Mapping[str, Any]) -> None:
        self.call = call
        given = call.get("events")
        found = [one for one in given if _is_event(one)] if isinstance(given, list) else []
        self.events: list[Mapping[str, Any]] = sorted(found, key=lambda one: float(one["at"]))
        self.began = self.number("started_at") or (self.events[0]["at"] if self.events else 0.0)
        self.answered = self.number("answered_at")
        self.ended = self.number("ended_at")
        how = call.get("how")
        self.how = CallEnding.read(how) if isinstance(how, str) else None

    @property
    def until(self) -> float:
        """Its end, or the last that is known of it."""
        return (
            self.ended if self.ended is not None else max((e["at"] for e in self.events), default=self.began)
        )

    @property
    def talk_s(self) -> float:
        """From its answer on."""
        return 0.0 if self.answered is None else max(0.0, self.until - self.answered)

    def number(self, fact: str) -> float | None:
        """A fact that is a finite number."""
        return finite(self.call.get(fact))

    def of(self, *kinds: str) -> Iterator[tuple[float, Mapping[str, Any]]]:
        """Times and data of the events of these kinds, the oldest first."""
        return ((float(e["at"]), e["data"]) for e in self.events if e["kind"] in kinds)

    def has(self, *kinds: str) -> bool:
        """Whether there is one."""
        return any(True for _ in self.of(*kinds))


Found = Iterator[CallCause]


def cause(name: str, since: float, event: str, number: str, at: float | None = None) -> CallCause:
    """The cause of that name, one of `cause_texts.TEXTS`; `at` where the event came later than `since`."""
    what, remedy = cause_texts.TEXTS[name]
    told_at = since if at is None else at
    return CallCause(
        name=name, since=round(since, 3), at=round(told_at, 3), event=event, number=number[:LONGEST],
        what=what,
        remedy=remedy,
    )  # fmt: skip


def _is_event(one: object) -> bool:
    return (
        isinstance(one, Mapping)
        and finite(one.get("at")) is not None
        and isinstance(one.get("kind"), str)
        and isinstance(one.get("data"), Mapping)
    )


def finite(value: object) -> float | None:
    """A number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
