"""What operators' commands ask about the office itself: which it is, its operators, keys and backups.

What changes something carries an operator's signed act.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

from consent.ledger.standing import OperatorStanding
from consent.service.question import Blob, Question, Whose

BACKUP_BYTES: Final = 256 << 20
PASSPHRASE_BYTES: Final = 4_096


@dataclass(frozen=True, slots=True)
class OfficeFacts:
    """Which office this is: the user ids that it and its gateway run as, and what it has."""

    user: int
    gateway: int
    database: str
    """its `database_mark`"""
    process: int
    """the number of its process"""


@dataclass(frozen=True, slots=True)
class AskFacts(Question[OfficeFacts]):
    """Which office this is."""

    wire: ClassVar[str] = "facts"
    whose: ClassVar[Whose] = "anyone"
    again: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class AskIdentity(Question[str]):
    """Which ledger this is, as acts name it."""

    wire: ClassVar[str] = "identity"
    whose: ClassVar[Whose] = "anyone"
    again: ClassVar[bool] = True


def database_mark(sql_url: str) -> str:
    """SHA-256 of a database's URL, which may hold a password."""
    return hashlib.sha256(sql_url.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ListOperators(Question[tuple[OperatorStanding, ...]]):
    """Who may decide about voices."""

    wire: ClassVar[str] = "operators"
    whose: ClassVar[Whose] = "anyone"
    again: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class AddOperator(Question[None]):
    """Make somebody an operator, by an act; by none only as a founder."""

    wire: ClassVar[str] = "operator.add"
    whose: ClassVar[Whose] = "anyone"
    name: str
    role: str
    public: str
    act: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class RevokeOperator(Question[None]):
    """Take an operator's rights."""

    wire: ClassVar[str] = "operator.revoke"
    whose: ClassVar[Whose] = "anyone"
    name: str
    reason: str
    act: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AskNextKey(Question[dict[str, Any]]):
    """Make a new key, which waits for an act; the answer is what the act must bind, its `kid` among it."""

    wire: ClassVar[str] = "rotate.next"
    whose: ClassVar[Whose] = "anyone"
    which: Literal["signing", "master"]


@dataclass(frozen=True, slots=True)
class RevokeKey(Question[None]):
    """Declare a signing key stolen, since then (seconds since the epoch)."""

    wire: ClassVar[str] = "key.revoke"
    whose: ClassVar[Whose] = "anyone"
    kid: str
    since: float
    reason: str
    act: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RotateKey(Question[str]):
    """Put a new key in force; the answer is the new signing key's kid, or how many keys were wrapped anew."""

    wire: ClassVar[str] = "rotate"
    whose: ClassVar[Whose] = "anyone"
    within_s: ClassVar[float] = 60.0
    which: Literal["signing", "master"]
    kid: str
    act: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SealedBackup:
    """A backup (`consent.office.backup`) and how many rows are in it."""

    sealed: Blob = field(repr=False)
    rows: int


@dataclass(frozen=True, slots=True)
class MakeBackup(Question[SealedBackup]):
    """All of consent, keys included: for the user whose keys these are, and nobody else."""

    wire: ClassVar[str] = "backup"
    whose: ClassVar[Whose] = "office"
    slow: ClassVar[bool] = True
    within_s: ClassVar[float] = 600.0
    blob_bytes: ClassVar[int] = PASSPHRASE_BYTES
    passphrase: Blob = field(repr=False)


@dataclass(frozen=True, slots=True)
class RestoreBackup(Question[int]):
    """Fill an empty database from a backup; the answer is how many rows it has."""

    wire: ClassVar[str] = "restore"
    whose: ClassVar[Whose] = "office"
    slow: ClassVar[bool] = True
    within_s: ClassVar[float] = 600.0
    blob_bytes: ClassVar[int] = BACKUP_BYTES + PASSPHRASE_BYTES
    sealed: Blob = field(repr=False)
    passphrase: Blob = field(repr=False)
