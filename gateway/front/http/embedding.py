"""The call button on somebody else's page: an origin that the operator named, with a token of minutes.

The shop's own server asks for a token (`POST /api/embed`, with the console's token) and writes it into its
page; the page's browser calls with it. A token is for one origin and one number; how often an origin and an
address may call is bounded, whatever tokens they have. Nothing but calls is open to such a page.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict, deque
from typing import Final
from urllib.parse import parse_qs

import structlog
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from gateway.config.settings import Settings

TOKEN_S: Final = 300
"""How long a token opens calls."""
MINUTE_S: Final = 60.0
ADDRESSES: Final = 10_000
"""Addresses whose calls are counted."""
STRANGERS: Final = 100
"""Origins that are not named, of which the log tells; after them it tells of no other."""
PLACE: Final = "/api/call"
ASKED: Final = ("/api/ice",)
OWN: Final = f"{PLACE}/"
METHODS: Final = "POST, PATCH, DELETE, GET"
HEADERS: Final = "Authorization, Content-Type, If-Match"
SHOWN: Final = "Location, ETag, Link, Retry-After"

log = structlog.get_logger("http")


class EmbedRefused(Exception):
    """A page's request may not pass: an HTTP status, and why."""

    def __init__(self, status: int, reason: str, retry_after_s: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after_s = retry_after_s


class _Calls:
    """When calls were placed, by whom; the oldest ones who called are forgotten."""

    def __init__(self, a_minute: int) -> None:
        self._most = a_minute
        self._at: OrderedDict[str, deque[float]] = OrderedDict()

    def has_room(self, who: str, now: float) -> bool:
        placed = self._at.get(who, deque())
        while placed and now - placed[0] >= MINUTE_S:
            placed.popleft()
        return len(placed) < self._most

    def note(self, who: str, now: float) -> None:
        self._at.setdefault(who, deque()).append(now)
        self._at.move_to_end(who)
        if len(self._at) > ADDRESSES:
            self._at.popitem(last=False)


class Embedding:
    """Off while the settings name no origin."""

    def __init__(self, settings: Settings) -> None:
        self._origins = frozenset(settings.embed_origins)
        self._key = secrets.token_bytes(32)
        self._by_origin = _Calls(settings.embed_per_origin)
        self._by_address = _Calls(settings.embed_per_address)
        self._strangers: set[str] = set()

    def token(self, origin: str, dialled: str) -> str:
        """Opens calls to that number from that origin's pages. Raises `EmbedRefused`."""
        if origin.lower() not in self._origins:
            raise EmbedRefused(403, "VOICEGATE_EMBED_ORIGINS does not name that origin")
        until = int(time.time()) + TOKEN_S
        return f"{until}.{self._mac(origin.lower(), dialled, until)}"

    def _mac(self, origin: str, dialled: str, until: int) -> str:
        said = "\n".join((origin, dialled, str(until))).encode()
        return hmac.new(self._key, said, hashlib.sha256).hexdigest()

    def serves(self, scope: Scope, origin: str | None) -> bool:
        """Whether a request is a page's of a named origin, for what such a page may ask."""
        return origin is not None and self._opens(scope["path"]) and origin.lower() in self._origins

    def _opens(self, path: str) -> bool:
        return path == PLACE or path.startswith(OWN) or path in ASKED

    def turned_away(self, path: str, origin: str) -> str:
        """Why another page may not ask for this. Its browser says nothing, so the log tells the operator."""
        if not self._opens(path):
            return "requests from other pages are refused"
        shown = origin[:100]
        why = f"the page's origin, {shown!r}, is not among VOICEGATE_EMBED_ORIGINS"
        if shown not in self._strangers and len(self._strangers) < STRANGERS:
            self._strangers.add(shown)
            log.warning("embed.refused", origin=shown, why=why)
        return why

    def admit(self, scope: Scope, headers: Headers, source: str) -> None:
        """Raises `EmbedRefused` for a request that `serves` but shows no good token, or comes too often."""
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        # of two numbers the app might take the other one
        origin, dialled = headers["origin"].lower(), "&".join(asked.get("dialled", ["demo"]))
        until, _, mac = headers.get("authorization", "").removeprefix("Bearer ").partition(".")
        if not until.isascii() or not until.isdigit() or len(until) > 12 or int(until) < time.time():
            raise EmbedRefused(401, "a token for this page is needed, and this one is over or none")
        if not hmac.compare_digest(mac.encode(), self._mac(origin, dialled, int(until)).encode()):
            raise EmbedRefused(401, "that token is not for this page and number")
        if scope["path"] == PLACE and scope["method"] == "POST":
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/sdp":
                raise EmbedRefused(415, "an offer (application/sdp), please")
            self._count(origin, source)

    def _count(self, origin: str, source: str) -> None:
        now = time.monotonic()
        if not (self._by_origin.has_room(origin, now) and self._by_address.has_room(source, now)):
            raise EmbedRefused(429, "too many calls from that page or address", int(MINUTE_S))
        self._by_origin.note(origin, now)
        self._by_address.note(source, now)


def preflight(origin: str) -> Response:
    """What a browser asks before it asks."""
    more = {"Access-Control-Allow-Methods": METHODS, "Access-Control-Allow-Headers": HEADERS}
    return Response(status_code=204, headers={**sharing(origin), **more, "Access-Control-Max-Age": "600"})


def sharing(origin: str) -> dict[str, str]:
    """What lets that origin's page read an answer."""
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": SHOWN,
        "Cross-Origin-Resource-Policy": "cross-origin",
        "Vary": "Origin",
    }
