"""Where a voice was used: calls, seconds, purposes, from the ledger. For its owner, an operator, a lawyer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from consent.books import Books

DAY_MS: Final = 86_400_000


@dataclass(slots=True)
class Use:
    """One call. `seconds` None: the call runs still, or nobody reported."""

    at: float
    call_id: str
    jti: str
    purpose: str
    dialplan: str
    language: str
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Total:
    """A voice's usage over a time."""

    calls: int
    seconds: float
    by_dialplan: dict[str, tuple[int, float]]
    """calls and seconds"""


def uses(books: Books, voice_id: str, since: float = 0.0) -> list[Use]:
    """Calls that were granted the voice, oldest first."""
    found: dict[str, Use] = {}
    kinds = ("voice.granted", "voice.used")
    for row in books.rows(subject=voice_id, kinds=kinds, since_ms=round(since * 1000)):
        body = row.table
        if row.kind == "voice.granted":
            found[body["jti"]] = Use(
                row.at_ms / 1000,
                body["call"],
                body["jti"],
                body["purpose"],
                body["dialplan"],
                body["language"],
            )
        elif body["jti"] in found:
            use = found[body["jti"]]
            use.seconds = (use.seconds or 0.0) + float(body["seconds"])
    return list(found.values())


def total(found: list[Use]) -> Total:
    """Sums."""
    by: dict[str, tuple[int, float]] = {}
    for use in found:
        calls, seconds = by.get(use.dialplan, (0, 0.0))
        by[use.dialplan] = (calls + 1, seconds + (use.seconds or 0.0))
    return Total(len(found), sum(use.seconds or 0.0 for use in found), by)


def spoken(found: list[Use], now: float, latest: int = 3) -> str:
    """The usage of the last 30 days as a person would say it on the telephone, in English."""
    recent = [use for use in found if (now - use.at) * 1000 < 30 * DAY_MS]
    if not recent:
        return "In the last thirty days your voice was not used."
    seconds = sum(use.seconds or 0.0 for use in recent)
    calls = "one call" if len(recent) == 1 else f"{len(recent)} calls"
    said = [f"In the last thirty days your voice was used in {calls}, for {_length(seconds)}."]
    for use in recent[: -latest - 1 : -1]:
        when = datetime.fromtimestamp(use.at, UTC)
        plan = use.dialplan.replace("-", " ").replace("_", " ")
        said.append(f"On {when:%B} {when.day}, for {use.purpose.replace('_', ' ')}, in {plan}.")
    return " ".join(said)


def _length(seconds: float) -> str:
    if seconds < 90:
        return f"{round(seconds)} seconds"
    return f"{round(seconds / 60)} minutes"
