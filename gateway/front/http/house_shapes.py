"""What the API takes and gives about the house, as JSON: its plans, trunks, parts and telephones.

Times are seconds since the epoch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.front.http.api_shapes import PRINTED, AnswerShape, BodyShape


class RouteShown(AnswerShape):
    """A route of the dialplans; an empty condition holds for every call."""

    name: str
    file: str
    line: int
    called: list[str]
    """none: no call comes here by itself, only from another route"""
    caller: list[str] = []
    source: list[str] = []
    headers: dict[str, list[str]] = {}
    hours: list[str] = []
    emergency: bool = False
    zone: str | None = None
    voice: str
    language: str
    verbs: list[str]


class TargetShown(AnswerShape):
    """Whom calls may be handed to."""

    name: str
    by: Literal["trunk", "telephone", "caller"]
    """caller: the caller is asked to call it"""
    address: str | None
    """for whoever has plans.reload"""


class PlanShown(AnswerShape):
    """The dialplans in force."""

    version: str
    folder: str | None = None
    """for whoever has plans.reload"""
    routes: list[RouteShown]
    """in order: the first that fits takes a call"""
    targets: list[TargetShown] = []


class RouteAsked(BaseModel):
    """A call that is not placed."""

    model_config = ConfigDict(extra="forbid")

    called: Annotated[str, Field(min_length=1, max_length=256, pattern=PRINTED)] = "demo"
    """SIP URI, user or number"""
    caller: Annotated[str, Field(max_length=256, pattern=PRINTED)] = ""
    """likewise"""
    source: Annotated[str, Field(max_length=64, pattern=PRINTED)] = ""
    """address that it comes from"""
    at: Annotated[str, Field(max_length=40, pattern=PRINTED)] = ""
    """when: 2026-03-02 18:30, a zone may follow (+01:00); now unless given"""
    header: Annotated[list[Annotated[str, Field(max_length=300, pattern=PRINTED)]], Field(max_length=16)] = []
    """NAME=VALUE: what a trusted peer says of it"""


class PassedRoute(AnswerShape):
    """A route that does not take it."""

    name: str
    why: str


class RouteTold(AnswerShape):
    """Which route a call would take."""

    plan: str
    at: str
    route: RouteShown | None
    passed: list[PassedRoute]
    """the routes before it"""
    status: int | None
    """what the caller hears where no route takes it"""
    why: str


class PlanTried(AnswerShape):
    """Dialplans that would load."""

    version: str


class ServiceWish(BodyShape):
    """Whether a trunk is in service, and why not."""

    in_service: bool
    why: Annotated[str, Field(max_length=200, pattern=PRINTED)] = ""


class TrunkOutShown(AnswerShape):
    """Since when a trunk is out of service, and by whose token."""

    since: float
    by: str
    why: str


class TrunkShown(AnswerShape):
    """A trunk; no user, no password."""

    name: str
    up: bool
    why: str | None
    """why no call can leave by it"""
    registered: bool | None
    """null: it wants no registration"""
    addresses: dict[str, str]
    """why each does not answer; empty: it does"""
    calls: int
    calls_at_most: int
    answers: dict[str, int]
    """how often calls that left got each final status"""
    not_let_out: dict[str, int]
    out: TrunkOutShown | None
    """null: it is in service"""


class TrunkList(AnswerShape):
    """All trunks."""

    trunks: list[TrunkShown]


class ReloadShown(AnswerShape):
    """What became of a reload. A problem (409) has the same members: there something did not load."""

    plan: str
    """Version of the dialplans in force."""
    was: str
    failed: dict[str, str]
    """Parts that stay as they were, and why."""
    notes: list[str]


class VoiceList(AnswerShape):
    """Voices."""

    voices: list[str]


class PlacesTold(AnswerShape):
    """How many there are, and how many are free."""

    all: int
    free: int


class HallTold(AnswerShape):
    """A hall's time, as it told last."""

    name: str
    calls: int
    at_most: int | None
    full: bool
    strain: dict[str, float]
    """each measure as a part of its bound: from 1 on there is no time left"""
    told_ago_s: float


class ProcessTold(AnswerShape):
    """A process of the house."""

    name: str
    state: Literal["up", "down", "failing"]
    since: float | None
    restarts: int | None
    memory_bytes: int | None
    error: str
    """why it died last"""


class EngineTold(AnswerShape):
    """What speaks."""

    kind: str
    state: str
    model: str
    at: list[str]


class CertificateTold(AnswerShape):
    """What TLS shows, or a trunk's own."""

    what: str
    sha256: str
    """empty of a trunk's"""
    ends_at: float | None


class ReceiverTold(AnswerShape):
    """Who is told events."""

    name: str
    waiting: int
    missed: int
    """it will never be told these"""


class RefusalTold(AnswerShape):
    """Calls that were refused for the same reason."""

    status: int
    reason: str
    count: int
    last_at: float


class HouseTold(AnswerShape):
    """How the whole house is."""

    at: float
    ready: bool
    why: list[str]
    parts: dict[str, str]
    draining: bool
    plan: str
    """version of the dialplans in force"""
    calls: int
    places: dict[str, PlacesTold]
    halls: list[HallTold]
    registered: int
    unreachable: int
    processes: list[ProcessTold]
    build: dict[str, str]
    engine: EngineTold
    watermark: str
    ledger: str
    ledger_doubt: str
    office: str
    """who can read the consent office's keys, for whoever has plans.reload; else empty"""
    certificates: list[CertificateTold]
    receivers: list[ReceiverTold]
    collector: str | None
    alarms: dict[str, int]
    refused: list[RefusalTold] | None
    """within the last hour; null: the database does not say"""
    disk: PlacesTold | None
    """bytes"""


class TelephoneTold(AnswerShape):
    """A registered telephone."""

    user: str
    source: str
    transport: str
    user_agent: str
    registered_at: float
    expires_at: float
    lost_at: float | None
    """since when its connection is gone"""
    answers: bool | None
    """null: nobody asks it, or not yet"""
    round_trip_ms: float | None


class TelephoneList(AnswerShape):
    """Registered telephones."""

    telephones: list[TelephoneTold]
