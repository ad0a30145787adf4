"""What the front and its halls say to each other. A hall takes calls; the front decides about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final, Literal

from gateway.dialplan import Route
from gateway.ipc.call_facts import CallFacts
from gateway.ipc.ending import CallEnding
from gateway.ipc.envelope import Ask, Tell
from gateway.ipc.readiness import PartState

PROMPTS: Final = "prompts"
"""Stands for a call's id in the grant by which a hall has prompts rendered."""

# ── the front asks a hall ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class CallOffer(Ask[None]):
    """A call, and all that was decided about it. The hall takes it, or refuses.

    Redis keeps it without its grant, for a hall that takes the call up after another's death.
    """

    wire: ClassVar[str] = "call.offered"
    call_id: str
    facts: CallFacts
    routes: tuple[Route, ...]
    """The one that the call begins with, then those that it may go on as."""
    targets: dict[str, str]
    """SIP URIs that it may be transferred to, by name."""
    payload: int
    """All 64 bits of the mark's."""
    at: float
    """When the call came, seconds since the epoch."""
    grant: str | None = field(default=None, repr=False)
    grant_refused: str | None = None
    """Why the route's own voice may not speak."""
    plan: str = ""
    """Version of the dialplan that these routes are of."""

    def __post_init__(self) -> None:
        if not self.routes:
            raise ValueError("a call needs a route")

    @property
    def route(self) -> Route:
        """The route that the call begins with."""
        return self.routes[0]

    def resumed_in(self, name: str) -> CallOffer:
        """The same call, which begins again with the route of that name. Raises `KeyError`."""
        route = self.route_named(name)
        return replace(self, routes=(route, *(other for other in self.routes if other is not route)))

    def route_named(self, name: str) -> Route:
        """One of the call's routes. Raises `KeyError` when none has that name."""
        for route in self.routes:
            if route.name == name:
                return route
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class EndCall(Ask[None]):
    """Ends a call that has not ended yet; `how` says who wants it and why."""

    wire: ClassVar[str] = "call.hangup"
    call_id: str
    how: CallEnding


Steering = Literal["say", "transfer", "mute", "unmute"]


@dataclass(frozen=True, slots=True)
class SteerCall(Ask[None]):
    """An operator has a conversation's voice say `what`, hand the caller to a target, or be still."""

    wire: ClassVar[str] = "call.steer"
    call_id: str
    act: Steering
    what: str = field(default="", repr=False)
    by: str = ""
    """The operator's token, by name."""


@dataclass(frozen=True, slots=True)
class RenderPrompts(Ask[None]):
    """Texts that must be sayable when the engine is away, in the grant's voice."""

    wire: ClassVar[str] = "prompts"
    texts: tuple[str, ...]
    grant: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class LiveCall:
    """A call that runs in a hall."""

    call_id: str
    route: Route
    """The one it is in now."""
    at: float
    """When it came, seconds since the epoch."""
    state: str
    plan: str = ""
    """Version of the dialplan that it began with."""
    begun: str = ""
    """The name of the route that it began with."""


@dataclass(frozen=True, slots=True)
class HallHealth:
    """What a hall has and reaches."""

    calls: tuple[LiveCall, ...] = ()
    engine: bool = False
    redis: bool = False
    slow: tuple[str, ...] = ()
    """Of `engine` and `redis`, those that have not said in time how they are; they count as not there."""
    counters: dict[str, float] = field(default_factory=dict)
    """The floor's counters by name; see `gateway.front.house.metrics`."""
    sessions: dict[str, int] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    """Names of those that are connected."""
    task_failures: dict[str, int] = field(default_factory=dict)
    """Background tasks that failed since the hall's start, by name."""

    def state_of(self, part: Literal["engine", "redis"]) -> PartState:
        """How the engine or Redis is, as the hall sees it."""
        if part in self.slow:
            return "slow"
        return "ready" if (self.engine if part == "engine" else self.redis) else "down"


@dataclass(frozen=True, slots=True)
class Health(Ask[HallHealth]):
    """Asks how a hall is."""

    wire: ClassVar[str] = "health"


@dataclass(frozen=True, slots=True)
class Drain(Ask[None]):
    """Lets no new calls in from now on. The supervisor tells the front, the front its halls."""

    wire: ClassVar[str] = "drain"


@dataclass(frozen=True, slots=True)
class FeedState:
    """How a hall's own feed of revocations is, the one through Redis."""

    doubt: str | None = None
    """Why it may miss a revocation; None: it hears all of them."""
    forged: int = 0
    """How much it heard that the office never signed."""
    failed: int = 0
    refused: int = 0
    """How many of the front's own words it did not believe: it may not have read a new key yet."""


@dataclass(frozen=True, slots=True)
class VoicesWithdrawn(Ask[FeedState]):
    """The front's word on voices that may not be heard any more, told as soon as the ledger has it.

    It also comes without any voice, as a sign that the front still looks.
    """

    wire: ClassVar[str] = "voices.withdrawn"
    tokens: tuple[str, ...] = field(repr=False)
    """The office's signed revocations that this hall has not been told of."""
    looked_ago_s: float | None
    """How old the front's last good look into the ledger is; None: there was none."""


# ── a hall tells the front ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class SpokenUnder:
    """What was said to the caller under one grant, as far as the hall has sent it."""

    jti: str
    seconds: float


@dataclass(frozen=True, slots=True)
class CallClosed(Tell):
    """The call is over; `spoken` is what was said under the grants that the front may not have heard of."""

    wire: ClassVar[str] = "call.closed"
    call_id: str
    how: CallEnding
    spoken: tuple[SpokenUnder, ...]


@dataclass(frozen=True, slots=True)
class VoiceMuted(Tell):
    """The voice may not be heard any more."""

    wire: ClassVar[str] = "call.muted"
    call_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class MarkFailed(Tell):
    """A frame could not be marked."""

    wire: ClassVar[str] = "call.mark_failed"
    call_id: str


@dataclass(frozen=True, slots=True)
class TurnAnswered(Tell):
    """A caller's turn was answered; seconds by stage."""

    wire: ClassVar[str] = "call.turn"
    call_id: str
    latency: dict[str, float]


@dataclass(frozen=True, slots=True)
class WayRated:
    """How sound came one way."""

    mos: float | None
    """by `gateway.rtp.media.e_model`; None for a codec that it does not know"""
    loss: float
    """the share of packets that were not heard"""
    jitter_s: float | None


@dataclass(frozen=True, slots=True)
class CallRated(Tell):
    """How a call sounded that is over. None where nothing was measured."""

    wire: ClassVar[str] = "call.rated"
    call_id: str
    from_caller: WayRated | None
    to_caller: WayRated | None
    round_trip_s: float | None
    target: bool = False
    """of the target that had the caller, in the place of the caller"""


@dataclass(frozen=True, slots=True)
class HallLoad(Tell):
    """What a hall measured of its time in the last few seconds; it tells so twice a second."""

    wire: ClassVar[str] = "hall.load"
    calls: int = 0
    settled: int = 0
    """Those of them that have been speaking long enough to be in what was measured."""
    pass_s: float = 0.0
    """How long the slowest of 100 passes over the calls took."""
    late_s: float = 0.0
    """How late the latest of 100 passes was."""
    late_turns: float = 0.0
    """Passes that were late, of all; 0 to 1."""
    hearing_s: float = 0.0
    """How long a caller's words waited for a recogniser, on average."""
    first_sound_s: float = 0.0
    """How long the engine's slow replies took from their request to their first sound."""

    def strain(self, bounds: Mapping[str, float]) -> dict[str, float]:
        """Each measure that has a bound, as a part of it: from 1 on there is no time left."""
        return {measure: getattr(self, measure) / bound for measure, bound in bounds.items()}


# ── a hall asks the front ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class GrantRenewal:
    """A fresh grant, or why there is none (one of `consent.grants.grant.REASONS`)."""

    token: str | None = field(default=None, repr=False)
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class RenewGrant(Ask[GrantRenewal]):
    """Asks for a fresh token of the call's present grant.

    `token` is its last one, which a restarted front has not seen.
    """

    wire: ClassVar[str] = "grant.renew"
    call_id: str
    token: str = field(repr=False)
    spoken: tuple[SpokenUnder, ...] = ()
    """What was said under it by now, and under those that the call had before."""


@dataclass(frozen=True, slots=True)
class RouteGrant:
    """A grant for the route that was asked for, or the stock voice's where the plan lets that stand in."""

    token: str | None = field(default=None, repr=False)
    refused: str | None = None
    """Why the route's own voice may not speak (one of `consent.grants.grant.REASONS`)."""


@dataclass(frozen=True, slots=True)
class FollowRoute(Ask[RouteGrant]):
    """Asks for a new grant, for another of the call's routes, or for the same one in another hall."""

    wire: ClassVar[str] = "grant.follow"
    call_id: str
    route: str
    """Its name."""
    spoken: tuple[SpokenUnder, ...] = ()
    """What was said under the grants that the call had until now."""


@dataclass(frozen=True, slots=True)
class BeginEnrolment(Ask[tuple[str, ...] | None]):
    """Asks for the lines to repeat, by the code of an operator's challenge.

    The answer is None when the code is not valid.
    """

    wire: ClassVar[str] = "enroll.begin"
    call_id: str
    code: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class LineRepeated(Ask[str | None]):
    """A line as the caller said it; the answer says why it will not do."""

    wire: ClassVar[str] = "enroll.heard"
    call_id: str
    at: int
    pcm: bytes = field(repr=False)
    """int16 little-endian, 24 kHz mono."""
    source_hz: int
    """Rate of the telephone line that it came by."""


@dataclass(frozen=True, slots=True)
class EnrolmentOutcome:
    """The registered voice's name, or which check refused it."""

    voice: str | None = None
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class FinishEnrolment(Ask[EnrolmentOutcome]):
    """Hands everything in, for two operators to hear."""

    wire: ClassVar[str] = "enroll.finish"
    call_id: str
    pin: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class EnterOwner(Ask[str | None]):
    """Asks what to say of the voice's use; the answer is None when the PIN does not open it."""

    wire: ClassVar[str] = "owner.enter"
    call_id: str
    voice: str
    pin: str = field(repr=False)
    language: str


@dataclass(frozen=True, slots=True)
class RevokeVoice(Ask[bool]):
    """Takes the entered owner's voice back.

    The answer is false when the PIN, given once more, does not fit.
    """

    wire: ClassVar[str] = "owner.revoke"
    call_id: str
    pin: str = field(repr=False)
