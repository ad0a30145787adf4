"""What the API takes and gives, as JSON: bodies of requests are checked by it, answers described.

Here is what is not about calls (`call_shapes`) nor about the house and its plans (`house_shapes`). Times are
seconds since the epoch.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.front.admission.rights import Right

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
