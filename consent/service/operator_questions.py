"""What operators' commands ask the office. What changes something carries an operator's signed act."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from consent.checks.checklist import Finding
from consent.checks.sound import MAX_BYTES
from consent.ledger.chain import Proof, Row
from consent.ledger.standing import OperatorStanding, VoiceStanding
from consent.office.usage import Use
from consent.office.withdrawal import Receipt
from consent.proof.evidence import ConsentOfCall
from consent.service.question import Blob, Question, Whose
from consent.statements.statement import Terms

RECORDINGS: Final = 8
"""Recordings of one registration, the statement among them."""
BACKUP_BYTES: Final = 256 << 20
PASSPHRASE_BYTES: Final = 4_096
ROWS: Final = 1_000
"""Rows of the ledger in one answer."""


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


# ── a voice's way in ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class IssuedChallenge:
    """A statement to be read aloud until `expires_at` (seconds since the epoch)."""

    challenge_id: str
    text: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class IssueChallenge(Question[IssuedChallenge]):
    """A challenge for these terms; the act signs their hash with the salt."""

    wire: ClassVar[str] = "challenge"
    whose: ClassVar[Whose] = "anyone"
    terms: Terms
    act: str = field(repr=False)
    salt: str
    by_phone: bool
    life_s: float


@dataclass(frozen=True, slots=True)
class ClipFile:
    """A recording as its file has it: the office reads, hashes and judges it. `text`: the words in it."""

    name: str
    wav: Blob = field(repr=False)
    text: str = ""


@dataclass(frozen=True, slots=True)
class TakenVoice:
    """A registration that was taken. `state` is `active` or `pending`."""

    voice_id: str
    handle: str
    state: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class ExaminedVoice:
    """What the checks found: `about` is what a registrar's second act binds, `draft` names it here."""

    draft: str
    about: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ExamineVoice(Question[ExaminedVoice]):
    """Check a registration by its registrar's act, and tell each finding. Nothing is kept yet."""

    wire: ClassVar[str] = "examine"
    whose: ClassVar[Whose] = "anyone"
    slow: ClassVar[bool] = True
    within_s: ClassVar[float] = 300.0
    blob_bytes: ClassVar[int] = RECORDINGS * MAX_BYTES
    handle: str
    references: tuple[ClipFile, ...]
    statement: ClipFile
    challenge_id: str
    adult: bool
    pin: str | None = field(repr=False)
    act: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ConfirmVoice(Question[TakenVoice]):
    """Keep what was examined, by the registrar's second act."""

    wire: ClassVar[str] = "confirm"
    whose: ClassVar[Whose] = "anyone"
    within_s: ClassVar[float] = 60.0
    draft: str
    act: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class HeardVoice:
    """What was handed to an ear: float32 little-endian, 24 kHz."""

    statement: Blob = field(repr=False)
    reference: Blob = field(repr=False)


@dataclass(frozen=True, slots=True)
class ListenToVoice(Question[HeardVoice]):
    """Statement and reference, for an operator's ear."""

    wire: ClassVar[str] = "listen"
    whose: ClassVar[Whose] = "anyone"
    handle: str
    act: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReviewVoice(Question[str]):
    """A second operator's decision; the answer is the voice's state."""

    wire: ClassVar[str] = "review"
    whose: ClassVar[Whose] = "anyone"
    handle: str
    act: str = field(repr=False)


# ── its way out ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class WithdrawVoice(Question[None]):
    """Take a voice back."""

    wire: ClassVar[str] = "revoke"
    whose: ClassVar[Whose] = "anyone"
    handle: str
    reason: str
    act: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ErasedVoice:
    """What an erasure left; `folder` is the office's data directory, whose files were searched."""

    receipt: Receipt
    folder: Path


@dataclass(frozen=True, slots=True)
class EraseVoice(Question[ErasedVoice]):
    """Destroy a voice's key and all that is sealed with it."""

    wire: ClassVar[str] = "erase"
    whose: ClassVar[Whose] = "anyone"
    slow: ClassVar[bool] = True
    within_s: ClassVar[float] = 600.0
    handle: str
    reason: str
    act: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BlockSpeaker(Question[None]):
    """Never take this speaker's voice; without a sample: take it again."""

    wire: ClassVar[str] = "block"
    whose: ClassVar[Whose] = "anyone"
    slow: ClassVar[bool] = True
    within_s: ClassVar[float] = 60.0
    blob_bytes: ClassVar[int] = MAX_BYTES
    label: str
    sample: ClipFile | None
    act: str = field(repr=False)


# ── looking ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class ListedVoice:
    """A voice in a list."""

    name: str
    state: str
    stock: bool


@dataclass(frozen=True, slots=True)
class ListVoices(Question[tuple[ListedVoice, ...]]):
    """The stock voice, and persons' voices in any state."""

    wire: ClassVar[str] = "voices"
    whose: ClassVar[Whose] = "anyone"
    again: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class VoiceFile:
    """What is known of a voice. `claims` is None when the record cannot be opened; `gone` says why."""

    standing: VoiceStanding
    claims: dict[str, Any] | None
    gone: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class ShowVoice(Question[VoiceFile]):
    """The newest voice of that name: whose it is, for what, and what happened since."""

    wire: ClassVar[str] = "show"
    whose: ClassVar[Whose] = "anyone"
    again: ClassVar[bool] = True
    handle: str


@dataclass(frozen=True, slots=True)
class ListUses(Question[tuple[Use, ...]]):
    """Where a voice was used, since then (seconds since the epoch)."""

    wire: ClassVar[str] = "uses"
    whose: ClassVar[Whose] = "anyone"
    again: ClassVar[bool] = True
    within_s: ClassVar[float] = 60.0
    handle: str
    since: float


@dataclass(frozen=True, slots=True)
class ProofFile:
    """A bundle's text (`consent.proof.bundle`)."""

    text: Blob = field(repr=False)


@dataclass(frozen=True, slots=True)
class ExportVoice(Question[ProofFile]):
    """A voice's proof; with its sounds where an act to listen is given."""

    wire: ClassVar[str] = "export"
    whose: ClassVar[Whose] = "anyone"
    within_s: ClassVar[float] = 60.0
    handle: str
    act: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class AskConsentOfCall(Question[ConsentOfCall]):
    """The consent behind a call's voices, as `consent.proof.evidence.gather` takes it; None for no call."""

    wire: ClassVar[str] = "evidence"
    whose: ClassVar[Whose] = "anyone"
    again: ClassVar[bool] = True
    slow: ClassVar[bool] = True
    within_s: ClassVar[float] = 300.0
    call: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class ListChecks(Question[dict[str, str]]):
    """Which instruments the office has, by what they do; or why it has none."""

    wire: ClassVar[str] = "checks"
    whose: ClassVar[Whose] = "anyone"
    again: ClassVar[bool] = True
    within_s: ClassVar[float] = 60.0


# ── the ledger, the operators, the keys ──────────────────────────────────────────────────────────────────


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
