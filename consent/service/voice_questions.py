"""What operators' commands ask about voices: taking one in, taking it back, and looking at it.

What changes something carries an operator's signed act.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

from consent.checks.checklist import Finding
from consent.checks.sound import MAX_BYTES
from consent.ledger.chain import Row
from consent.ledger.standing import VoiceStanding
from consent.office.usage import Use
from consent.office.withdrawal import Receipt
from consent.proof.evidence import ConsentOfCall
from consent.service.question import Blob, Question, Whose
from consent.statements.statement import Terms

RECORDINGS: Final = 8
"""Recordings of one registration, the statement among them."""


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
