"""What stands between the network and the console: every request passes here first.

* Host: an address, localhost, or a name we know. A page of somebody else's whose name was made to point at
  us (DNS rebinding) is refused.
* Origin: what changes something must come from our own page, or from no page at all (curl has no Origin).
* Who asks: `credentials` says; a request of nobody's gets no further, and the handler finds out what its
  asker may do (`operations`). An answer that lasts ends when its asker's token is revoked or over.
* Bodies are bounded, answers carry the headers that keep a browser strict, and an error is a problem
  (`problems`) without a traceback.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import quote

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.config.settings import Settings
from gateway.edge.flows.transport import plain_host
from gateway.errors import StartError
from gateway.front.admission.rights import ROLES, Principal
from gateway.front.http.credentials import Gatekeeper
from gateway.front.http.embedding import Embedding, EmbedRefused, preflight, sharing
from gateway.front.http.problems import refusal
from model.tasks import race

MAX_BODY: Final = 64 * 1024
"""Bytes; a browser's offer is 2 to 6 kB."""
OPEN_PATHS: Final = frozenset(
    {
        "/healthz",
        "/readyz",
        "/login",
        "/login/oidc",
        "/login/oidc/back",
        "/console/console.css",
        "/console/icon.svg",
        "/engine/voice",
        "/engine/withdrawn",
        "/engine/redeem",
    }
)
"""Need no token; engines show their own."""
OPEN_FOLDER: Final = "/synthetic/"
"""What a call says of itself is for whoever has its id."""
PAGES: Final = re.compile(
    r"/|/house|/calls(/[A-Za-z0-9._~-]{1,64})?(\?[A-Za-z0-9._~%=&+*:-]{0,2000})?", re.ASCII
)
"""Pages for people: who may not see one is led to the login, and back."""
SIP_PATH: Final = "/sip"
"""The one WebSocket; telephones' passwords hold there."""
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
STILL_EVERY_S: Final = 2.0
"""How often it is looked whether the asker of an answer that lasts may still have it."""
LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
FORWARDED: Final = ("x-forwarded-for", "forwarded", "x-forwarded-host", "x-real-ip")
"""What a request has that came through a proxy: whoever asked does not sit at this machine."""
WHY: Final = {401: "token", 403: "page", 413: "size", 421: "host", 429: "wait", 503: "away"}
"""What requests that get no further are counted as, by status."""
NOBODY: Final = Principal("nobody", "nobody", ROLES["nobody"])

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

Counted = Callable[[str], None]
"""Takes why a request was refused: a word of a short list, or the right that was missing."""


class TooLarge(Exception):
    """A body beyond `MAX_BODY`."""


class Boundary:
    """ASGI middleware; see the module. Raises `StartError` when a token is needed and none was given."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        credentials: Gatekeeper,
        embedding: Embedding | None = None,
        counted: Counted = lambda _: None,
    ) -> None:
        if credentials.console is None and not settings.local_only:
            raise StartError("the console needs a token, since it is not bound to loopback only")
        self._app = app
        self._credentials = credentials
        self._counted = counted
        self._hosts = _hosts(settings)
        self._origins = frozenset(settings.web_origins)
        self._embedding = embedding or Embedding(settings)
        self._proxies = [ipaddress.ip_network(one, strict=False) for one in settings.trusted_proxies]
        # whoever names the gateway, or a proxy before it, means others to reach it
        self._alone = settings.local_only and not (
            settings.public_url or settings.http_names or settings.trusted_proxies
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        self._look_behind_proxy(scope)
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

        judged = await self._judge(scope) if embedded is None else self._judge_embedded(scope, embedded)
        if isinstance(judged, Response):
            if judged.status_code >= 400:
                self._counted(WHY.get(judged.status_code, "other"))
            await judged(scope, receive, strict)
            return
        scope.setdefault("state", {}).update(asker=judged, here=self._is_here(Headers(scope=scope)))
        try:
            if judged.token_id and scope["method"] in SAFE:
                await self._while_it_may(judged, scope, _bounded(receive), strict)
            else:
                await self._app(scope, _bounded(receive), strict)
        except TooLarge:
            if not begun:
                await refusal(413, f"a request may have {MAX_BODY} bytes")(scope, receive, strict)
        except Exception:
            log.exception("http.failed", method=scope["method"], path=scope["path"])
            if not begun:
                await refusal(500, "the gateway failed; its log says why")(scope, receive, strict)

    async def _judge(self, scope: Scope) -> Principal | Response:
        """Whose request it is; or the refusal of one that may not pass."""
        headers = Headers(scope=scope)
        if (refused := self._judge_place(headers)) is not None:
            if refused.status_code == 403:
                refused = refusal(403, self._embedding.turned_away(scope["path"], headers["origin"]))
            return refused
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and scope["method"] not in SAFE:
            return refusal(403, "requests from other pages are refused")
        if (refused := _too_long(headers)) is not None:
            return refused
        if scope["path"] in OPEN_PATHS or scope["path"].startswith(OPEN_FOLDER):
            return NOBODY
        asker = await self._credentials.asker(headers, source_of(scope), here=self._is_here(headers))
        is_page = PAGES.fullmatch(scope["path"]) is not None
        if isinstance(asker, Response) and asker.status_code == 401 and is_page:
            query = scope["query_string"].decode("latin-1")
            there = scope["path"] + (f"?{query}" if query else "")
            then = "" if there == "/" else f"?then={quote(there)}"
            return asker if "authorization" in headers else RedirectResponse(f"/login{then}", 303)
        return asker

    def _is_here(self, headers: Headers) -> bool:
        """Whether it was asked for by loopback's own name, and not through a proxy."""
        by_name = _name(headers.get("host", "")) in LOOPBACK_NAMES
        return self._alone and by_name and not any(name in headers for name in FORWARDED)

    def _judge_embedded(self, scope: Scope, page: str) -> Principal | Response:
        """The same of a page that the operator let have a call button."""
        headers = Headers(scope=scope)
        if (refused := self._judge_place(headers, frozenset({page.lower()}))) is not None:
            return refused
        if scope["method"] == "OPTIONS":
            return preflight(page)
        if (refused := _too_long(headers)) is not None:
            return refused
        try:
            self._embedding.admit(scope, headers, source_of(scope))
        except EmbedRefused as why:
            return refusal(why.status, str(why), why.retry_after_s)
        return Principal(f"a page of {page}", "caller", ROLES["caller"])

    async def _while_it_may(self, asker: Principal, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves; an answer that lasts ends when its asker may not have it any more."""
        begun = over = False

        async def watched(message: Message) -> None:
            nonlocal begun, over
            begun = True
            over = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        served, _ = await race(self._app(scope, receive, watched), self._over(asker, scope["path"]))
        if served is not None:
            served.result()
        elif begun and not over:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _over(self, asker: Principal, path: str) -> None:
        """Returns when it may not have that any more."""
        may = True
        while may:
            await asyncio.sleep(STILL_EVERY_S)
            may = await self._credentials.still(asker)
        log.info("answer.cut_off", path=path, asker=asker.name, id=asker.token_id)
        self._counted("over")

    def _look_behind_proxy(self, scope: Scope) -> None:
        """Where a proxy that is trusted sent it, the address, and the scheme, of whoever asked the proxy.

        The last address that is not such a proxy's: what stands before it anybody may have written.
        """
        if not self._proxies or not scope.get("client"):
            return
        headers = Headers(scope=scope)
        told = [part.strip() for value in headers.getlist("x-forwarded-for") for part in value.split(",")]
        host, port = source_of(scope), scope["client"][1]
        if not self._is_proxy(host):
            return
        for address in reversed(told):
            if not self._is_proxy(host) or not _is_address(address):
                break
            host = plain_host(address)
        scope["client"] = (host, port)
        if headers.get("x-forwarded-proto") == "https" and scope["type"] == "http":
            scope["scheme"] = "https"

    def _is_proxy(self, host: str) -> bool:
        return _is_address(host) and any(ipaddress.ip_address(host) in one for one in self._proxies)

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


def _too_long(headers: Headers) -> Response | None:
    length = headers.get("content-length", "0")
    if length.isascii() and length.isdigit() and int(length[:20]) <= MAX_BODY:
        return None
    return refusal(413, f"a request may have {MAX_BODY} bytes")


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
