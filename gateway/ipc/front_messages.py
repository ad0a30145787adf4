"""What the supervisor, the doctor and the engine ask the front."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from gateway.ipc.envelope import Ask
from gateway.ipc.readiness import PartState


@dataclass(frozen=True, slots=True)
class TrunkOut:
    """A trunk that its operator took out of service."""

    since: float
    """Seconds since the epoch."""
    by: str
    """Whose token it was."""
    why: str


@dataclass(frozen=True, slots=True)
class TrunkState:
    """How one trunk is."""

    name: str
    why: str | None
    """why no call can leave by it; None: it is up"""
    registered: bool | None
    """None: it wants no registration"""
    ways: dict[str, str] = field(default_factory=dict)
    """its addresses, and why each does not answer; empty: it does"""
    calls: int = 0
    calls_at_most: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    """how often calls that left got each final status"""
    not_let_out: dict[str, int] = field(default_factory=dict)
    """calls that did not leave: for the number of `calls`, for the `rate`, for the `number`"""
    out: TrunkOut | None = None
    """None: it is in service"""


@dataclass(frozen=True, slots=True)
class TelephoneState:
    """What the front knows of a registered telephone and keeps in no database."""

    user: str
    key: str
    """its binding's"""
    there: bool | None
    """whether it answers; None: nobody asks it, or not yet"""
    round_trip_ms: float | None
    """of the last OPTIONS that it answered"""


@dataclass(frozen=True, slots=True)
class Telephones:
    """All that are registered."""

    all: tuple[TelephoneState, ...] = ()


@dataclass(frozen=True, slots=True)
class AskTelephones(Ask[Telephones]):
    """Asks how registered telephones are."""

    wire: ClassVar[str] = "telephones"


@dataclass(frozen=True, slots=True)
class HouseState:
    """Whether the gateway can take calls, and what the panel shows."""

    ready: bool
    parts: dict[str, PartState] = field(default_factory=dict)
    """What it consists of, and how that is."""
    busy: str = ""
    """Why there is no time for one more call, for whoever may know it; empty while there is."""
    draining: bool = False
    calls: int = 0
    """Calls that run now."""
    lines: dict[str, int] = field(default_factory=dict)
    """Calls that its lines take, by kind."""
    watermark: str = "unknown"
    voices: tuple[str, ...] = ()
    ledger: str = ""
    """How the ledger of consent is witnessed from outside."""
    ledger_doubt: str = ""
    """Two or three words when that is not as it should be."""
    office: str = ""
    """What user the consent office runs as, and so who can read its keys."""
    certificate: str = ""
    """Whose certificate TLS shows, with its SHA-256 fingerprint; empty where there is none."""
    trunks: tuple[TrunkState, ...] = ()
    registered: int = 0
    """Telephones that are registered."""
    unreachable: int = 0
    """Those of them whose flow is gone, or that do not answer."""


@dataclass(frozen=True, slots=True)
class AskState(Ask[HouseState]):
    """Asks how the gateway is."""

    wire: ClassVar[str] = "state"


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What became of a reload."""

    plan: str
    """Version of the dialplan in force."""
    was: str
    """The one before."""
    failed: dict[str, str] = field(default_factory=dict)
    """Parts that stay as they were (`dialplans`, `users`, `trunks`, `certificates`, `webhooks`), and why."""
    notes: tuple[str, ...] = ()
    """What somebody should know of what was taken, or what only a start can give."""


@dataclass(frozen=True, slots=True)
class ReloadHouse(Ask[Reloaded]):
    """Asks to read dialplans, users, trunks, certificates and webhooks anew."""

    wire: ClassVar[str] = "reload"


@dataclass(frozen=True, slots=True)
class VoiceClip:
    """A voice's sound.

    The engine knows nothing of the gateway: it reads the same message by itself (`model.reference`).
    """

    voice: str
    voice_hash: str
    text: str
    """What is said in the clip."""
    stock: bool
    pcm_f32: bytes | None = field(repr=False)
    """float32 little-endian, 24 kHz mono; None: the engine has this voice itself."""


@dataclass(frozen=True, slots=True)
class FetchVoice(Ask[VoiceClip]):
    """Asks for the voice of a grant."""

    wire: ClassVar[str] = "voice.reference"
    token: str = field(repr=False)
    voice_hash: str


@dataclass(frozen=True, slots=True)
class RedeemGrant(Ask[bool]):
    """Asks whether a grant opens this connection of an engine's; one grant opens one."""

    wire: ClassVar[str] = "grant.redeem"
    token: str = field(repr=False)
    connection: str
    """An id that the engine made up for it."""
    give_back: bool = False
    """The connection opened no session after all: another may redeem the grant."""


@dataclass(frozen=True, slots=True)
class WithdrawnVoices:
    """Signed revocations, from a number in a series on. The engine reads it by itself, as it does a voice."""

    series: str
    """Another front, or the same after a restart, has another series, which begins at 0."""
    tokens: tuple[str, ...]
    looked_ago_s: float | None
    """How old the front's last good look into the ledger is."""


@dataclass(frozen=True, slots=True)
class AskWithdrawn(Ask[WithdrawnVoices]):
    """Asks which voices were withdrawn after the first `known` of the series."""

    wire: ClassVar[str] = "voices.withdrawn.since"
    series: str
    known: int
