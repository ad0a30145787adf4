"""Where a voice was used: calls, seconds, purposes, from the ledger. For its owner, an operator, a lawyer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from consent.ledger.books import Books
from consent.statements.lexicon import LEXICA

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
        """For the command line."""
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
    for row in books.reader.rows(subject=voice_id, kinds=kinds, since_ms=round(since * 1000)):
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


def spoken(found: list[Use], now: float, language: str = "en", latest: int = 3) -> str:
    """The usage of the last 30 days as a person would say it on the telephone.

    It is in English where no statement can be read in the language.
    """
    lexicon = LEXICA.get(language.split("-")[0].lower(), LEXICA["en"])
    recent = [use for use in found if (now - use.at) * 1000 < 30 * DAY_MS]
    if not recent:
        return lexicon.usage["none"]
    seconds = sum(use.seconds or 0.0 for use in recent)
    unit, number = ("seconds", seconds) if seconds < 90 else ("minutes", seconds / 60)
    length = lexicon.usage[unit].format(n=round(number))
    said = [lexicon.usage["once" if len(recent) == 1 else "many"].format(calls=len(recent), length=length)]
    for use in recent[: -latest - 1 : -1]:
        when = datetime.fromtimestamp(use.at, UTC)
        date = lexicon.day.format(month=lexicon.months[when.month - 1], day=when.day)
        purpose, plan = (name.replace("-", " ").replace("_", " ") for name in (use.purpose, use.dialplan))
        said.append(lexicon.usage["on"].format(date=date, purpose=purpose, plan=plan))
    return " ".join(said)
