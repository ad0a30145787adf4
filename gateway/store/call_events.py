"""What a call tells of its life: one frozen dataclass for each type of event. See docs/events.md.

A hall writes them by `gateway.store.call_session`; `kind` is the word under which they stand in Redis and in
`voicegate calls show`, `type` the one under which the front tells them on (`gateway.front.events`). Fields
that are None are left out. Lines and the edge tell nothing by these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Final, Literal

VERSION: Final = 1
"""Of every type so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallData:
    """What one event says beside its time and its call."""

    types: ClassVar[tuple[str, ...]] = ()
    words: ClassVar[tuple[str, ...]] = ()
    """Fields that hold what people said or pressed, or who they are: not told on without need."""

    @property
    def type(self) -> str:
        """Which type of event it is."""
        return self.types[0]

    @property
    def kind(self) -> str:
        """How Redis calls it."""
        return self.types[0]

    def to_json(self) -> dict[str, Any]:
        """The fields by name, without those that are None."""
        table = ((one.name, getattr(self, one.name)) for one in fields(self))
        return {name: value for name, value in table if value is not None}

    def noted(self) -> dict[str, Any]:
        """What stands in Redis of it: what `kind` does not say."""
        return self.to_json()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOffered(CallData):
    """A hall has taken the call. `caller` and `called` are SIP URIs, numbers or names."""

    types: ClassVar[tuple[str, ...]] = ("call.offered",)
    words: ClassVar[tuple[str, ...]] = ("caller", "called", "source", "user", "name")

    caller: str | None = None
    called: str | None = None
    name: str | None = None
    """what the caller calls itself"""
    source: str | None = None
    """the caller's address"""
    transport: str | None = None
    """udp, tcp, tls, webrtc, …"""
    user: str | None = None
    """who logged in"""
    trunk: str | None = None
    """by which trunk it came"""
    route: str | None = None
    voice: str | None = None
    plan: str | None = None
    """the version of the dialplan that it follows"""
    grant_refused: str | None = None
    """why the route's own voice may not speak; the stock voice stands in"""

    @property
    def kind(self) -> str:
        """How Redis calls it."""
        return "opened"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallNotTaken(CallData):
    """A call was refused. `status` is SIP's, or HTTP's for a browser's offer."""

    types: ClassVar[tuple[str, ...]] = ("call.refused",)
    words: ClassVar[tuple[str, ...]] = ("caller", "called", "source")

    caller: str | None = None
    called: str | None = None
    source: str | None = None
    transport: str
    status: int
    reason: str
    untold: int | None = None
    """calls refused before this one that no event told, since there were too many"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallAnswered(CallData):
    """The call is answered: its caller hears us, and pays."""

    types: ClassVar[tuple[str, ...]] = ("call.answered",)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDisclosed(CallData):
    """The caller has heard from the first word to the last that a machine speaks, and for whom."""

    types: ClassVar[tuple[str, ...]] = ("call.disclosed",)

    principal: str
    language: str
    voice: str | None = None
    """whose voice it sounds like; None: nobody's"""
    text: str

    @property
    def kind(self) -> str:
        """How Redis calls it."""
        return "disclosed"


@dataclass(frozen=True, slots=True)
class Turn(CallData):
    """One utterance of either side.

    `latency_ms` splits a reply's delay by stage: endpointing, engine, playout, whole. `text` is None where
    nothing transcribed it, or where the plan keeps no transcript.
    """

    types: ClassVar[tuple[str, ...]] = ("turn.heard", "turn.said")
    words: ClassVar[tuple[str, ...]] = ("text", "intent")

    who: Literal["caller", "bot"]
    text: str | None = None
    intent: str | None = None
    duration_s: float | None = None
    heard_s: float | None = None
    """How much of a bot's turn was really played."""
    interrupted: bool = False
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    speech_ended_at: float | None = None
    """When the caller's speech ended that a bot's turn replies to, seconds since the epoch."""
    course_ms: Mapping[str, float] = field(default_factory=dict)
    """How long after that each stage of the reply was over, as far as it came: endpoint (the turn is taken to
    be over), asked (the engine was), word and sound (its first ones came), frame (the first one went to the
    line), wire (the line had sent it)."""

    @property
    def type(self) -> str:
        """Which type of event it is."""
        return self.types[self.who != "caller"]

    @property
    def kind(self) -> str:
        """How Redis calls it."""
        return "turn"

    def to_json(self) -> dict[str, Any]:
        """The turn as a history keeps it: what is None is left out, times are rounded."""
        table = {
            "who": self.who,
            "text": self.text,
            "intent": self.intent,
            "duration_s": _rounded(self.duration_s),
            "heard_s": _rounded(self.heard_s),
            "interrupted": self.interrupted or None,
            "latency_ms": {stage: round(ms, 1) for stage, ms in self.latency_ms.items()} or None,
            "speech_ended_at": _rounded(self.speech_ended_at),
            "course_ms": {stage: round(ms, 1) for stage, ms in self.course_ms.items()} or None,
        }
        return {key: value for key, value in table.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInput(CallData):
    """A key that the caller pressed, or what a menu gathered of them."""

    types: ClassVar[tuple[str, ...]] = ("key",)
    words: ClassVar[tuple[str, ...]] = ("digit", "digits")

    digit: str | None = None
    """None also where it may be one of a card's"""
    digits: str | None = None
    """what a menu gathered; of a number that may be an account's, only how many they are"""

    @property
    def kind(self) -> str:
        """How Redis calls it."""
        return "dtmf" if self.digits is None else "gathered"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferStep(CallData):
    """One step of handing the caller to a target of the dialplan."""

    types: ClassVar[tuple[str, ...]] = ("transfer",)

    step: Literal["started", "rings", "failed", "refused"] = "started"
    """refused: the plan has no such target"""
    target: str | None = None
    via: str | None = None
    """trunk:…, when our line calls the target"""
    status: int | None = None
    """what the target answered (RFC 3261 §21); 0: nobody could be asked"""
    why: str | None = None

    @property
    def kind(self) -> str:
        """How Redis calls it."""
        return "transfer" if self.step == "started" else f"transfer_{self.step}"

    def noted(self) -> dict[str, Any]:
        """What stands in Redis of it: the kind says which step."""
        return {name: value for name, value in self.to_json().items() if name != "step"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentRefused(CallData):
    """A voice may not be heard: from the beginning, on another route, or no longer."""

    types: ClassVar[tuple[str, ...]] = ("consent.refused",)

    reason: str
    """revoked, expired, …: one of `consent.grants.grant.REASONS`"""
    voice: str | None = None
    stands_in: bool | None = None
    """the stock voice speaks instead; else the call falls silent and ends"""

    @property
    def kind(self) -> str:
        """How Redis calls it."""
        return "voice_refused" if self.stands_in else "muted"


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkAlarm(CallData):
    """Something is wrong with the watermark of what the caller was sent."""

    types: ClassVar[tuple[str, ...]] = ("mark.alarm",)

    reason: Literal["not marked", "not found"]
    """not marked: a frame went out as silence; not found: the call falls silent and ends"""
    error: str | None = None

    @property
    def kind(self) -> str:
        """How Redis calls it."""
        return "mark_failed" if self.reason == "not marked" else "mark_not_found"

    def noted(self) -> dict[str, Any]:
        """What stands in Redis of it: the kind says the reason."""
        return {} if self.error is None else {"error": self.error}


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundRated(CallData):
    """How the call sounds: of the time since the last event, or of the whole call when it is over.

    What begins with `far_` is our sound as it comes to the caller, by the caller's RTCP.
    """

    types: ClassVar[tuple[str, ...]] = ("quality",)

    whole: bool = False
    target: str | None = None
    """to whom the call was handed: it is that one's sound, and no longer the caller's"""
    line: str | None = None
    codec: str | None = None
    srtp: str | None = None
    packets: int | None = None
    lost: int | None = None
    loss_percent: float | None = None
    jitter_ms: float | None = None
    buffer_ms: float | None = None
    round_trip_ms: float | None = None
    mos: float | None = None
    """of 1 to 5 (G.107); None for a codec that nobody has rated"""
    mos_worst: float | None = None
    far_sent: int | None = None
    far_lost: int | None = None
    far_loss_percent: float | None = None
    far_jitter_ms: float | None = None
    far_mos: float | None = None

    @property
    def kind(self) -> str:
        """How Redis calls it."""
        if self.target is not None:
            return "target_quality"
        return "line_quality" if self.whole else "quality"


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundRecorded(CallData):
    """A recording is over; a front makes a `MessageLeft` of it. `error`: why the disk did not take it."""

    types: ClassVar[tuple[str, ...]] = ("recorded",)

    path: str
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageLeft(CallData):
    """A caller left a message after the tone."""

    types: ClassVar[tuple[str, ...]] = ("message.left",)
    words: ClassVar[tuple[str, ...]] = ("caller",)

    recording: str
    """which one: DAY/FILE"""
    seconds: float
    link: str
    """where it is fetched, by whoever may"""
    caller: str | None = None
    route: str | None = None
    cut_short: bool | None = None
    """the hall died meanwhile: this is what it had kept"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDetail:
    """A call's record when it is over (CDR). Times are seconds since the epoch, durations seconds."""

    call_id: str
    caller: str | None = None
    called: str | None = None
    source: str | None = None
    transport: str | None = None
    user: str | None = None
    trunk: str | None = None
    route: str | None = None
    """the last one that it followed"""
    dialplan: str | None = None
    """file and line of the route that it began with"""
    plan: str | None = None
    """the version of the dialplan that it followed"""
    voice: str | None = None
    started_at: float | None = None
    answered_at: float | None = None
    ended_at: float
    duration_s: float | None = None
    """from its beginning to its end"""
    talk_s: float | None = None
    """from its answer to its end"""
    spoken_s: float | None = None
    """how much of our voice its caller was sent"""
    turns: int = 0
    how: str
    """how it ended, one of the texts of `gateway.ipc.ending.End`, with a detail behind a colon"""
    party: str
    """whose doing that was: the label `how` of voicegate_calls_total"""
    codec: str | None = None
    srtp: str | None = None
    packets: int | None = None
    lost: int | None = None
    jitter_ms: float | None = None
    mos: float | None = None
    mos_worst: float | None = None
    far_lost: int | None = None
    far_mos: float | None = None
    messages: int = 0

    def to_json(self) -> dict[str, Any]:
        """The fields by name, without those that are None."""
        table = ((one.name, getattr(self, one.name)) for one in fields(self))
        return {name: value for name, value in table if value is not None}


WHO: Final = ("caller", "called", "source", "user")
"""Fields of a CDR that say who called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSettled(CallData):
    """The call is over; there is one such event for each call that was offered."""

    types: ClassVar[tuple[str, ...]] = ("call.ended",)

    how: str
    cdr: CallDetail

    def to_json(self) -> dict[str, Any]:
        """The ending, and the CDR's fields."""
        return {"how": self.how, "cdr": self.cdr.to_json()}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallNote(CallData):
    """Anything else that happened. `what` and `facts` may change with each version."""

    types: ClassVar[tuple[str, ...]] = ("call.note",)
    words: ClassVar[tuple[str, ...]] = ("facts",)

    what: str
    """hold, barge_in, silence, tool, …"""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """How Redis calls it."""
        return self.what


EVENTS: Final[tuple[type[CallData], ...]] = (
    CallOffered, CallNotTaken, CallAnswered, CallDisclosed, Turn, KeyInput, TransferStep, ConsentRefused,
    MarkAlarm, SoundRated, MessageLeft, CallSettled, CallNote,
)  # fmt: skip
TYPES: Final[Mapping[str, type[CallData]]] = {name: cls for cls in EVENTS for name in cls.types}
"""Every type of event, and what its data are."""

NOTED: Final[Mapping[str, tuple[type[CallData], Mapping[str, Any]]]] = {
    "opened": (CallOffered, {}),
    "disclosed": (CallDisclosed, {}),
    "turn": (Turn, {}),
    "dtmf": (KeyInput, {}),
    "gathered": (KeyInput, {}),
    "transfer": (TransferStep, {"step": "started"}),
    "transfer_rings": (TransferStep, {"step": "rings"}),
    "transfer_failed": (TransferStep, {"step": "failed"}),
    "transfer_refused": (TransferStep, {"step": "refused"}),
    "muted": (ConsentRefused, {}),
    "voice_refused": (ConsentRefused, {"stands_in": True}),
    "mark_failed": (MarkAlarm, {"reason": "not marked"}),
    "mark_not_found": (MarkAlarm, {"reason": "not found"}),
    "quality": (SoundRated, {"whole": False}),
    "line_quality": (SoundRated, {"whole": True}),
    "target_quality": (SoundRated, {}),
}
"""What stands in Redis under which kind, and what the kind itself says. A front knows three more: `recorded`,
`state` and `ended` become `MessageLeft`, `CallAnswered` and `CallSettled`; what is in neither is a note."""


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
