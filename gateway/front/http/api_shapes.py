"""What the API takes and gives, as JSON: bodies of requests are checked by it, answers described.

Times are seconds since the epoch. A call has more fields than are named here; which, its state says.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.front.admission.rights import Right
from gateway.store.call_order import Sort

PRINTED = r"^[^\x00-\x1f\x7f]*$"
"""A text without control characters."""
Role = Literal["admin", "operator", "watcher", "caller", "nobody"]


class BodyShape(BaseModel):
    """A body that we are given: a key that is not known is a mistake."""

    model_config = ConfigDict(extra="forbid", strict=True)


class AnswerShape(BaseModel):
    """An answer; it may get more fields."""

    model_config = ConfigDict(extra="allow")


class Problem(AnswerShape):
    """RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    retry_after_s: int | None = None
    right: Right | None = None
    """The right that was missing."""


class Me(AnswerShape):
    """Who asks."""

    name: str
    role: str
    rights: list[Right]
    token_id: str
    expires_at: float | None


class Description(AnswerShape):
    """An OpenAPI document."""

    openapi: str


class Offer(BaseModel):
    """A browser's offer."""

    sdp: str
    dialled: Annotated[str, Field(max_length=64)] = "demo"


class Placed(AnswerShape):
    """A call that was placed."""

    call_id: str
    sdp: str
    location: str


class IceServerList(AnswerShape):
    """For `RTCPeerConnection`."""

    iceServers: list[dict[str, Any]]  # the browser's name for it


class EmbedWish(BaseModel):
    """Which page shall have a call button, and for which number."""

    origin: Annotated[str, Field(max_length=300)]
    dialled: Annotated[str, Field(pattern=r"^[A-Za-z0-9+*#._~-]{1,64}$")] = "demo"


class EmbedToken(AnswerShape):
    """What that page calls with."""

    token: str
    expires_s: int


class CauseShown(AnswerShape):
    """Why a call was a bad one, with its evidence: an event, its time and a number."""

    name: str
    since: float
    """When it began, as far as that can be told."""
    at: float
    """When the event happened that tells it."""
    event: str
    number: str
    what: str
    remedy: str


class RefusedShown(AnswerShape):
    """A call that was not taken, or several that are alike; then the ids are the newest one's."""

    call_id: str
    sip_call_id: str
    caller: str
    called: str
    source: str
    transport: str
    status: int
    """What the caller heard: a status of SIP, or of HTTP for a browser."""
    reason: str
    started_at: float
    """When it came, or the newest of them."""
    first_at: float | None
    count: int


class ShownCall(AnswerShape):
    """A call. `wrong`, `causes` and `not_known` come where one call is asked for."""

    call_id: str
    state: str = ""
    caller: str = ""
    called: str = ""
    source: str = ""
    route: str = ""
    plan: str = ""
    """Version of the dialplan that it began with."""
    started_at: float = 0.0
    ended_at: float | None = None
    how: str | None = None
    sip_call_id: str | None = None
    """Its caller's own Call-ID."""
    sounded: float | None = None
    """How it sounded, the worse way's MOS, 1 to 4.5; known at its end."""
    turns: Any = None
    events: list[dict[str, Any]] | None = None
    wrong: bool | None = None
    causes: list[CauseShown] | None = None
    """The first cause first; none: nothing was wrong, as far as is known."""
    not_known: list[str] | None = None
    """What nobody can say of it."""
    refused: RefusedShown | None = None
    """Why it was not taken; then its state is `refused`."""
    silence: str | None = None
    """Why its turns and events are not known, and whether it lives."""


class SoundPart(AnswerShape):
    """Levels without a gap, one each `step_s`."""

    began_at: float
    caller: list[int | None]
    """What came from the caller, dBFS; null: nothing came."""
    voice: list[int | None]
    """What the caller was sent of ours."""
    flags: list[int]
    """Bits; `flag_names` says which."""


class CallSound(AnswerShape):
    """How loud both sides were."""

    step_s: float
    parts: list[SoundPart]
    quality: list[dict[str, float]] = []
    """How packets came and went, `at` a time; as `quality` among a call's events."""
    marks: list[dict[str, float]] = []
    """Whether what was sent before that time carries its mark: `found` 1 or 0, `score`."""
    grants: list[dict[str, float]] = []
    """When the call was allowed to speak, and `until` when."""
    ducks: list[dict[str, float]] = []
    """When our voice came back, after so many `seconds` more softly."""
    flag_names: dict[str, int]
    """By name, the bit of `flags`."""
    ended_early: bool
    """It was longer than what is kept."""


class LadderMessage(AnswerShape):
    """A SIP message; secrets in it are blanked."""

    at: float
    sender: Annotated[str, Field(alias="from")]
    to: str
    protocol: str
    first: str
    """Its first line."""
    text: str
    left_out: int | None = None
    """So many before it are not kept."""


class CallLogLine(AnswerShape):
    """A line of the log that names the call."""

    at: float
    process: str
    level: str
    event: str
    fields: dict[str, Any]
    left_out: int | None = None
    """So many before it are not kept."""


class CallRecording(AnswerShape):
    """What the caller left in this call."""

    href: str
    began_at: float
    duration_s: float


class CallCourse(AnswerShape):
    """One call, to time."""

    call: ShownCall
    wrong: bool
    causes: list[CauseShown]
    not_known: list[str]
    sound: CallSound
    ladder: list[LadderMessage]
    log: list[CallLogLine]
    recordings: list[CallRecording] | None
    """Null: who asks may not hear recordings."""


class CallPage(AnswerShape):
    """A page of calls."""

    calls: list[ShownCall]
    next: str | None
    """The next page's `cursor`; null: there is none."""
    previous: str | None
    """The `cursor` of the page before."""
    found: int | None
    """How many there are, counted to 10,000; null: `count` was not asked."""
    found_more: bool
    """There are more than that."""
    silence: str | None
    """Why it is not known which calls still live; null: it is."""


class RefusedPage(AnswerShape):
    """A page of calls that were not taken."""

    refused: list[RefusedShown]
    next: str | None
    previous: str | None
    found: int | None


class RefusedAsked(BaseModel):
    """Which calls, and which page of them: what stands behind the question mark."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, Field(max_length=128, pattern=PRINTED)] = ""
    """how its id begins, or its caller's SIP Call-ID"""
    caller: Annotated[str, Field(max_length=128, pattern=PRINTED)] = ""
    """a part of who called: of a number its digits"""
    called: Annotated[str, Field(max_length=128, pattern=PRINTED)] = ""
    """likewise of who was called"""
    since: Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)] | None = None
    """began at this time or later"""
    until: Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)] | None = None
    """began before it"""
    count: bool = False
    """tell how many there are, too"""
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    """how many at most"""
    cursor: Annotated[str, Field(max_length=100)] | None = None
    """`next` or `previous` of a page; good for the same search and order alone"""


class CallsAsked(RefusedAsked):
    """Which calls that were taken, and in which order."""

    state: Literal["live", "ended"] | None = None
    """live: those that have not ended"""
    route: Annotated[str, Field(max_length=64, pattern=PRINTED)] = ""
    """the route that took it"""
    voice: Annotated[str, Field(max_length=80, pattern=PRINTED)] = ""
    """the voice that it was given"""
    how: Annotated[str, Field(max_length=200, pattern=PRINTED)] = ""
    """how the text begins that says how it ended"""
    failed: bool = False
    """ended by a failure"""
    poor: bool = False
    """sounded poor, one way or the other; known once it is over"""
    least_s: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None = None
    """lasted so many seconds or more"""
    most_s: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None = None
    """lasted so many seconds or less"""
    sort: Sort = ""
    """by what, `-`: downwards; without it those that have not ended, then the others, the newest first"""


class SayWish(BodyShape):
    """What a conversation's voice shall say."""

    text: Annotated[str, Field(min_length=1, max_length=500, pattern=PRINTED)]


class TransferWish(BodyShape):
    """Whom a caller shall be handed to."""

    target: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,80}$")]
    """by its name among the plan's targets"""


class MuteWish(BodyShape):
    """Whether a conversation's voice is still, and hears nothing."""

    muted: bool


class UserWish(BodyShape):
    """A telephone's user."""

    password: Annotated[str, Field(min_length=8, max_length=128, pattern=PRINTED)] | None = None
    """one is made, and told this once, where none is given"""
    legacy: bool = False
    """its telephone may log in by RFC 2069"""
    srtp: Literal["required", "optional", "off"] | None = None
    role: Role = "caller"


class UserShown(AnswerShape):
    """A telephone's user."""

    name: str
    role: str
    legacy: bool
    srtp: str | None


class MadeUser(UserShown):
    """A user that was added; `password` where one was made."""

    password: str | None


class UserList(AnswerShape):
    """Telephones' users."""

    users: list[UserShown]


class RecordingShown(AnswerShape):
    """What a caller left."""

    day: str
    file: str
    call_id: str
    at: float
    bytes: int


class RecordingList(AnswerShape):
    """Recordings, the newest first."""

    recordings: list[RecordingShown]


class RecordingsAsked(BaseModel):
    """Which recordings."""

    model_config = ConfigDict(extra="forbid")

    call_id: Annotated[str, Field(max_length=64)] = ""
    """of this call alone"""
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    """how many at most"""


class TokenWish(BodyShape):
    """A token to be made."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    role: Role
    expires_s: Annotated[float, Field(ge=1, le=366 * 86_400)] = 90 * 86_400


class Token(AnswerShape):
    """A token without its secret."""

    token_id: str
    name: str
    role: str
    made_by: str
    made_at: float
    expires_at: float
    revoked_by: str | None
    revoked_at: float | None
    used_at: float | None
    used_from: str | None
    state: Literal["holds", "revoked", "expired"]


class MadeToken(Token):
    """A new token; `token` is its secret, told this once."""

    token: str


class TokenList(AnswerShape):
    """Tokens."""

    tokens: list[Token]


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


class SpeechClaims(AnswerShape):
    """The signed statement (a JWS), what it says, and the public keys by kid."""

    statement: str
    claims: dict[str, Any]
    keys: Any


class Alive(AnswerShape):
    """The front lives."""

    alive: bool


class Ready(AnswerShape):
    """Whether calls would be taken, and how each part is."""

    ready: bool
    parts: dict[str, str]
    ledger: str | None = None
    busy: str | bool | None = None
