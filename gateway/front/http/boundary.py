"""What stands between the network and the console: every request passes here first.

* Host: an address, localhost, or a name we know. A page of somebody else's whose name was made to point at
  us (DNS rebinding) is refused.
* Origin: what changes something must come from our own page, or from no page at all (curl has no Origin).
* Token: `Authorization: Bearer …`, or the cookie that the login form sets. None is asked for while the
  gateway is bound to loopback.
* Bodies are bounded, answers carry the headers that keep a browser strict, and an error is JSON without a
  traceback.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
import time
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.config.settings import Settings
from gateway.edge.flows.transport import plain_host
from gateway.errors import StartError
from gateway.front.http.embedding import Embedding, EmbedRefused, preflight, sharing

MAX_BODY: Final = 64 * 1024
"""Bytes; a browser's offer is 2 to 6 kB."""
COOKIE: Final = "voicegate"
COOKIE_S: Final = 12 * 3600
OPEN_PATHS: Final = frozenset(
    {
        "/healthz",
        "/readyz",
        "/login",
        "/console/console.css",
        "/console/icon.svg",
        "/engine/voice",
        "/engine/withdrawn",
        "/engine/redeem",
    }
)
"""Need no console token; engines show their own."""
OPEN_FOLDER: Final = "/synthetic/"
"""What a call says of itself is for whoever has its id."""
SIP_PATH: Final = "/sip"
"""The one WebSocket; telephones' passwords hold there."""
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
WRONG_TOKENS: Final = 10
"""Wrong tokens from one source in `WRONG_WITHIN_S` before it must wait."""
WRONG_WITHIN_S: Final = 60.0
SOURCES: Final = 10_000

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; media-src 'self' blob:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer, our own login form would come as Origin: null
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

log = structlog.get_logger("http")


def refusal(status: int, reason: str, retry_after_s: int | None = None) -> Response:
    """An error as the API says it: `{"error": {"status", "reason", "retry_after_s"}}`."""
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="voicegate"'
    body = {"error": {"status": status, "reason": reason, "retry_after_s": retry_after_s}}
    return JSONResponse(body, status, headers)


class TooLarge(Exception):
    """A body beyond `MAX_BODY`."""


class Keys:
    """The console's token and what follows from it. `token` None: nobody is asked for one."""

    def __init__(self, token: str | None) -> None:
        self.token = token
        self._cookie = ""
        if token is not None:
            self._cookie = hmac.new(token.encode(), b"voicegate console cookie", hashlib.sha256).hexdigest()
        self._wrong: dict[str, list[float]] = {}

    @property
    def cookie(self) -> str:
        """What the login form's cookie holds: proves the token without being it."""
        return self._cookie

    def admits(self, headers: Headers, source: str) -> Response | None:
        """The refusal of a request that shows neither token nor cookie. A right cookie never waits."""
        if self.token is None or self._has_cookie(headers):
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return refusal(401, "the console's token is needed: Authorization: Bearer …")
        if self.must_wait(source):
            return refusal(429, "too many wrong tokens", retry_after_s=int(WRONG_WITHIN_S))
        if not self.is_token(given.strip()):
            self.was_wrong(source)
            return refusal(401, "that is not the console's token")
        return None

    def _has_cookie(self, headers: Headers) -> bool:
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return morsel is not None and hmac.compare_digest(morsel.value.encode(), self._cookie.encode())

    def is_token(self, given: str) -> bool:
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())

    def must_wait(self, source: str) -> bool:
        """True when this source guessed too often of late."""
        since = time.monotonic() - WRONG_WITHIN_S
        recent = [at for at in self._wrong.get(source, ()) if at > since]
        if recent:
            self._wrong[source] = recent
        else:
            self._wrong.pop(source, None)
        return len(recent) >= WRONG_TOKENS

    def was_wrong(self, source: str) -> None:
        if len(self._wrong) >= SOURCES:
            self._wrong.pop(next(iter(self._wrong)))
        self._wrong.setdefault(source, []).append(time.monotonic())


class Boundary:
    """ASGI middleware; see the module. Raises `StartError` when a token is needed and none was given."""

    def __init__(
        self, app: ASGIApp, settings: Settings, keys: Keys, embedding: Embedding | None = None
    ) -> None:
        if keys.token is None and not settings.local_only:
            raise StartError("the console needs a token, since it is not bound to loopback only")
        self._app = app
        self._keys = keys
        self._hosts = _hosts(settings)
        self._origins = frozenset(settings.web_origins)
        self._embedding = embedding or Embedding(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            if scope["path"] == SIP_PATH and self._judge_place(Headers(scope=scope), self._origins) is None:
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        begun = False
        page = Headers(scope=scope).get("origin")
        embedded = page if page is not None and self._embedding.serves(scope, page) else None

        async def strict(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                if embedded is not None:
                    headers.update(sharing(embedded))
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._judge(scope) if embedded is None else self._judge_embedded(scope, embedded)
        if refused is not None:
            await refused(scope, receive, strict)
            return
        try:
            await self._app(scope, _bounded(receive), strict)
        except TooLarge:
            if not begun:
                await refusal(413, f"a request may have {MAX_BODY} bytes")(scope, receive, strict)
        except Exception:
            log.exception("http.failed", method=scope["method"], path=scope["path"])
            if not begun:
                await refusal(500, "the gateway failed; its log says why")(scope, receive, strict)

    def _judge(self, scope: Scope) -> Response | None:
        """The refusal of a request that may not pass."""
        headers = Headers(scope=scope)
        if (refused := self._judge_place(headers)) is not None:
            if refused.status_code == 403:
                refused = refusal(403, self._embedding.turned_away(scope["path"], headers["origin"]))
            return refused
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and scope["method"] not in SAFE:
            return refusal(403, "requests from other pages are refused")
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY:
            return refusal(413, f"a request may have {MAX_BODY} bytes")
        if scope["path"] in OPEN_PATHS or scope["path"].startswith(OPEN_FOLDER):
            return None
        refused = self._keys.admits(headers, source_of(scope))
        if refused is not None and scope["path"] == "/" and "authorization" not in headers:
            return RedirectResponse("/login", 303)
        return refused

    def _judge_embedded(self, scope: Scope, page: str) -> Response | None:
        """The same of a page that the operator let have a call button."""
        headers = Headers(scope=scope)
        if (refused := self._judge_place(headers, frozenset({page.lower()}))) is not None:
            return refused
        if scope["method"] == "OPTIONS":
            return preflight(page)
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY:
            return refusal(413, f"a request may have {MAX_BODY} bytes")
        try:
            self._embedding.admit(scope, headers, source_of(scope))
        except EmbedRefused as why:
            return refusal(why.status, str(why), why.retry_after_s)
        return None

    def _judge_place(self, headers: Headers, others: frozenset[str] = frozenset()) -> Response | None:
        """Whether it was asked for here, and by a page of ours or by none; `others`: origins that may too."""
        host = headers.get("host", "")
        if not self._knows(host):
            return refusal(421, f"{host[:100]!r} is not this gateway; ask for it by its address or localhost")
        origin = headers.get("origin")
        if origin is None or origin.lower() in others or origin.partition("://")[2].lower() == host.lower():
            return None
        return refusal(403, "requests from other pages are refused")

    def _knows(self, host: str) -> bool:
        name = _name(host)
        return name in self._hosts or ("*addresses*" in self._hosts and _is_address(name))


def source_of(scope: Scope) -> str:
    """Its address; IPv4's as IPv4's, where one socket has both."""
    client = scope.get("client")
    return plain_host(str(client[0])) if client else "unknown"


def _bounded(receive: Receive) -> Receive:
    """`receive` that raises `TooLarge` once more came than a body may have."""
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_BODY:
            raise TooLarge
        return message

    return bounded


def _hosts(settings: Settings) -> frozenset[str]:
    """Names we answer to. An address cannot be rebound, so on a LAN every address will do."""
    names: Iterable[str] = {"localhost", "127.0.0.1", "::1", settings.host.lower()}
    if not settings.local_only:
        machine = socket.gethostname().lower()
        names = {*names, machine, f"{machine.partition('.')[0]}.local", "*addresses*"}
        if settings.public_address:
            names = {*names, settings.public_address.lower()}
    if settings.public_url:
        names = {*names, _name(settings.public_url.partition("://")[2].partition("/")[0])}
    return frozenset((*names, *(name.lower() for name in settings.http_names)))


def _name(host: str) -> str:
    """The host without its port; an IPv6 address without its brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
