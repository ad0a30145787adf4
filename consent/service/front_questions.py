"""What the front asks the office: grants and renewals, references, usage, enrolment and the owner's door."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from consent.grants.revocation import Revocation
from consent.grants.scope import Scope
from consent.office.withdrawal import Receipt
from consent.service.question import Blob, Question, Whose

FRONT_S: Final = 4.0
"""How long a call waits for the office."""
CLIP_BYTES: Final = 8 << 20
LINE_BYTES: Final = 4 << 20
"""A line that was repeated: 20 s of int16 at 24 kHz have 960,000 bytes."""
LEAF_BYTES: Final = 32
"""A leaf's hash."""
LEAVES_BYTES: Final = 16_384 * LEAF_BYTES


@dataclass(frozen=True, slots=True)
class AskGrant(Question[str]):
    """A grant for exactly this; the answer is its token."""

    wire: ClassVar[str] = "grant"
    whose: ClassVar[Whose] = "gateway"
    again: ClassVar[bool] = True  # a grant that nobody received opens nothing
    within_s: ClassVar[float] = FRONT_S
    scope: Scope


@dataclass(frozen=True, slots=True)
class AskRenewal(Question[str]):
    """The same grant from now on, for its token."""

    wire: ClassVar[str] = "renew"
    whose: ClassVar[Whose] = "gateway"
    again: ClassVar[bool] = True
    within_s: ClassVar[float] = FRONT_S
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class VoiceSound:
    """A voice for an engine; see `consent.office.voice.VoiceReference`. `pcm` is float32 little-endian."""

    voice: str
    voice_hash: str
    text: str
    stock: bool
    pcm: Blob | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class AskReference(Question[VoiceSound]):
    """The voice of a valid grant, by hash."""

    wire: ClassVar[str] = "reference"
    whose: ClassVar[Whose] = "gateway"
    again: ClassVar[bool] = True
    within_s: ClassVar[float] = FRONT_S
    token: str = field(repr=False)
    voice_hash: str


@dataclass(frozen=True, slots=True)
class NoteUsage(Question[None]):
    """How long a person's voice spoke in a call."""

    wire: ClassVar[str] = "used"
    whose: ClassVar[Whose] = "gateway"
    jti: str
    call_id: str
    seconds: float
    dialplan: str


@dataclass(frozen=True, slots=True)
class SealCalls(Question[int]):
    """Seal rows of the registry: the leaves' hashes one after the other; the answer is the row's number."""

    wire: ClassVar[str] = "calls.seal"
    whose: ClassVar[Whose] = "gateway"
    again: ClassVar[bool] = True  # both rows would say the same
    blob_bytes: ClassVar[int] = LEAVES_BYTES
    batch: str
    leaves: Blob = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignSpeechStatement(Question[str]):
    """The signed statement that a call's voice is synthetic, with these claims."""

    wire: ClassVar[str] = "speech"
    whose: ClassVar[Whose] = "gateway"
    again: ClassVar[bool] = True
    within_s: ClassVar[float] = FRONT_S
    claims: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AskRevocations(Question[tuple[Revocation, ...]]):
    """Every voice that may not be heard any more."""

    wire: ClassVar[str] = "withdrawn"
    whose: ClassVar[Whose] = "anyone"
    again: ClassVar[bool] = True
    within_s: ClassVar[float] = FRONT_S


@dataclass(frozen=True, slots=True)
class AskUsable(Question[tuple[str, ...]]):
    """The names of the voices that may be used now; an error while the database does not answer."""

    wire: ClassVar[str] = "usable"
    whose: ClassVar[Whose] = "anyone"
    again: ClassVar[bool] = True
    within_s: ClassVar[float] = FRONT_S


@dataclass(frozen=True, slots=True)
class LedgerState:
    """How the ledger is witnessed from outside; `doubt` says in a few words what is wrong with that."""

    state: str = ""
    doubt: str = ""
    alarms: int = 0
    """how often something new was wrong, since the office began"""


@dataclass(frozen=True, slots=True)
class AskLedger(Question[LedgerState]):
    """How the ledger is witnessed."""

    wire: ClassVar[str] = "ledger"
    whose: ClassVar[Whose] = "anyone"
    again: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class AskTime(Question[float]):
    """The time, by a clock that may be believed; `ClockError` while none may."""

    wire: ClassVar[str] = "time"
    whose: ClassVar[Whose] = "anyone"
    again: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class AskNames(Question[tuple[str, ...]]):
    """The names of all voices in any state, for whoever checks a dialplan."""

    wire: ClassVar[str] = "names"
    whose: ClassVar[Whose] = "anyone"
    again: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class AskKeys(Question[str]):
    """The office's public keys, as `grant-keys.json` has them."""

    wire: ClassVar[str] = "keys"
    whose: ClassVar[Whose] = "anyone"
    again: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class AskStockClip(Question[bool]):
    """Whether the office has a clip of the stock voice."""

    wire: ClassVar[str] = "stock.has"
    whose: ClassVar[Whose] = "anyone"
    again: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class KeepStockClip(Question[None]):
    """Keep this clip of the stock voice, which the gateway rendered: float32 little-endian, 24 kHz."""

    wire: ClassVar[str] = "stock.keep"
    whose: ClassVar[Whose] = "gateway"
    again: ClassVar[bool] = True
    blob_bytes: ClassVar[int] = CLIP_BYTES
    pcm: Blob = field(repr=False)
    text: str


@dataclass(frozen=True, slots=True)
class TidyVoices(Question[tuple[Receipt, ...]]):
    """Delete what may be kept no longer."""

    wire: ClassVar[str] = "tidy"
    whose: ClassVar[Whose] = "anyone"  # it deletes what is due, by rules that nobody who asks can change
    again: ClassVar[bool] = True
    within_s: ClassVar[float] = 60.0


# ── in a call ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class OpenEnrolment(Question[tuple[str, ...]]):
    """What the caller is to repeat, for a code; `ChallengeError` for one that opens nothing."""

    wire: ClassVar[str] = "enrol.open"
    whose: ClassVar[Whose] = "gateway"
    again: ClassVar[bool] = True
    call_id: str
    code: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class HearLine(Question[str | None]):
    """A line that was repeated (int16, 24 kHz); why it will not do, None when it will."""

    wire: ClassVar[str] = "enrol.line"
    whose: ClassVar[Whose] = "gateway"
    again: ClassVar[bool] = True
    blob_bytes: ClassVar[int] = LINE_BYTES
    call_id: str
    at: int
    pcm: Blob = field(repr=False)
    source_hz: int


@dataclass(frozen=True, slots=True)
class CloseEnrolment(Question[str]):
    """Hand everything in, with the owner's PIN; the answer is the pending voice's name."""

    wire: ClassVar[str] = "enrol.close"
    whose: ClassVar[Whose] = "gateway"
    slow: ClassVar[bool] = True
    within_s: ClassVar[float] = 60.0
    call_id: str
    pin: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class OpenOwnersDoor(Question[str]):
    """What to say of the voice's use, against its PIN."""

    wire: ClassVar[str] = "owner.enter"
    whose: ClassVar[Whose] = "gateway"
    call_id: str
    voice: str
    pin: str = field(repr=False)
    language: str


@dataclass(frozen=True, slots=True)
class TakeVoiceBack(Question[str]):
    """The owner revokes, the PIN given once more; the answer is the voice's name."""

    wire: ClassVar[str] = "owner.revoke"
    whose: ClassVar[Whose] = "gateway"
    call_id: str
    pin: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ForgetCall(Question[None]):
    """The call is over: nothing of it is remembered."""

    wire: ClassVar[str] = "forget"
    whose: ClassVar[Whose] = "gateway"
    again: ClassVar[bool] = True
    call_id: str
