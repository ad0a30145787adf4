"""What operators' commands ask about the ledger: its rows, its proof, its head, its clock, its restoring.

What changes something carries an auditor's signed act.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from consent.ledger.chain import Proof, Row
from consent.service.question import Question, Whose

ROWS: Final = 1_000
"""Rows of the ledger in one answer."""


@dataclass(frozen=True, slots=True)
class ProveLedger(Question[Proof]):
    """Verify every row; against an exported head and public keys (base64url by kid) where they are given."""

    wire: ClassVar[str] = "prove"
    whose: ClassVar[Whose] = "anyone"
    again: ClassVar[bool] = True
    slow: ClassVar[bool] = True
    within_s: ClassVar[float] = 600.0
    head: str | None
    keys: dict[str, str] | None
    revoked: dict[str, str] | None


@dataclass(frozen=True, slots=True)
class SignHead(Question[str]):
    """The signed head."""

    wire: ClassVar[str] = "head"
    whose: ClassVar[Whose] = "anyone"
    again: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class ListRows(Question[tuple[Row, ...]]):
    """The next `ROWS` rows after number `after`, as they are: whether they verify, a proof says."""

    wire: ClassVar[str] = "rows"
    whose: ClassVar[Whose] = "anyone"
    again: ClassVar[bool] = True
    within_s: ClassVar[float] = 60.0
    kinds: tuple[str, ...]
    since_ms: int
    after: int


@dataclass(frozen=True, slots=True)
class AskResumeTerms(Question[dict[str, Any]]):
    """What an act must bind to go on with a restored ledger, giving up what is lost (`AskLostRows`)."""

    wire: ClassVar[str] = "resume.terms"
    whose: ClassVar[Whose] = "anyone"
    again: ClassVar[bool] = True
    slow: ClassVar[bool] = True
    within_s: ClassVar[float] = 600.0
    lost: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class AskLostRows(Question[tuple[dict[str, Any], ...]]):
    """What witnesses have seen that is not here."""

    wire: ClassVar[str] = "resume.lost"
    whose: ClassVar[Whose] = "anyone"
    again: ClassVar[bool] = True
    within_s: ClassVar[float] = 60.0


@dataclass(frozen=True, slots=True)
class AskClock(Question[float]):
    """What the office's machine takes the time for."""

    wire: ClassVar[str] = "clock"
    whose: ClassVar[Whose] = "anyone"
    again: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class AskTip(Question[str]):
    """The newest row's hash."""

    wire: ClassVar[str] = "tip"
    whose: ClassVar[Whose] = "anyone"
    again: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class SetClock(Question[int]):
    """Believe this machine's clock, by an auditor's act; the answer is the row's number."""

    wire: ClassVar[str] = "clock.set"
    whose: ClassVar[Whose] = "anyone"
    reason: str
    act: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ResumeLedger(Question[tuple[str, ...]]):
    """Go on with a restored ledger; the answer names the voices that are withdrawn again."""

    wire: ClassVar[str] = "resume"
    whose: ClassVar[Whose] = "anyone"
    slow: ClassVar[bool] = True
    within_s: ClassVar[float] = 600.0
    reason: str
    act: str = field(repr=False)
