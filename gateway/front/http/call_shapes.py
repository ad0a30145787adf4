"""What the API takes and gives about calls, as JSON: one, a list, and what a running one is told to do.

Times are seconds since the epoch. A call has more fields than are named here; which, its state says.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.front.http.api_shapes import PRINTED, AnswerShape, BodyShape
from gateway.store.call_order import Sort


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
