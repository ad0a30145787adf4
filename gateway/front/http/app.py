"""The gateway's HTTP side: the console page, calls by WHIP-like offer and answer, the API, metrics, health.

    GET    /                 the console page
    POST   /api/call         an offer (application/sdp, or JSON {"sdp", "dialled"}) -> 201, answer, Location
    OPTIONS /api/call        what may be posted (Accept-Post)
    PATCH  /api/call/{id}    later candidates, or an ICE restart (application/trickle-ice-sdpfrag)
    POST   /api/embed        a token for the call button on another page: JSON {"origin", "dialled"}
    GET    /api/ice          STUN and TURN servers for a browser
    DELETE /api/call/{id}    the caller hangs up, at the Location of the 201; ?why=no-sound: it heard nothing
    GET    /api/events       what happens in calls, as it happens (`gateway.front.http.event_feed`)
    GET    /api/calls        running and recent calls
    GET    /api/calls/{id}   one call
    DELETE /api/calls/{id}   the operator hangs up
    GET    /synthetic/{id}   the signed statement that this call's voice is synthetic; needs no token
    GET    /sip              SIP over WebSocket (RFC 7118); telephones' passwords hold there
    GET    /metrics          Prometheus text
    GET    /healthz /readyz  alive; able to take calls
    GET    /login, POST /login /logout   the console's token for a cookie

`?dialled=` chooses the number (default `demo`). An error is `{"error": {"status", "reason",
"retry_after_s"}}`. What a request must show to get here is `boundary`'s matter.
"""

from __future__ import annotations

import contextlib
import html
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, quote

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from gateway.config.ice_servers import IceServers
from gateway.config.settings import Settings
from gateway.errors import CallRefused, VoicegateError
from gateway.front.http.boundary import COOKIE, COOKIE_S, SIP_PATH, Boundary, Keys, refusal, source_of
from gateway.front.http.embedding import TOKEN_S, Embedding, EmbedRefused
from gateway.front.http.sip_socket import SipHouse, SipSocket
from gateway.ipc.ending import End
from gateway.ipc.front_messages import HouseState
from gateway.ipc.line_messages import IceReply
from model.tasks import race

PAGE: Final = Path(__file__).with_name("console")
DEFAULT_NUMBER: Final = "demo"
DIALLED: Final = re.compile(r"[A-Za-z0-9+*#._~-]{1,64}\Z")
CALL_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,64}\Z")
READY_FOR_S: Final = 1.0
FRAGMENT: Final = "application/trickle-ice-sdpfrag"
OFFERS: Final = "application/sdp"
"""What `POST /api/call` takes, as a WHIP client asks for it (RFC 9725 §4.2)."""
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

HTTP_STATUS: Final = {
    380: 403, 400: 400, 401: 401, 403: 403, 404: 404, 410: 404, 415: 415, 429: 429, 480: 503, 486: 503,
    488: 400, 500: 500, 503: 503, 600: 503, 603: 403, 606: 400,
}  # fmt: skip
"""What a refusal's SIP status is in HTTP; others are 502."""

log = structlog.get_logger("http")

Call = dict[str, Any]


class Gateway(SipHouse, Protocol):
    """What the app needs of the gateway; the front implements it."""

    async def place(self, offer_sdp: str, dialled: str, source: str, user_agent: str) -> tuple[str, str]:
        """A browser's call: (call id, SDP answer). Raises `CallRefused`."""

    async def trickle(self, call_id: str, fragment: str, etag: str) -> IceReply:
        """A browser's later candidates, or its ICE restart. Raises `CallRefused`."""

    async def hang_up(self, call_id: str, how: End) -> None:
        """Ends a call, and notes how. Raises `CallRefused` (404) when no such call runs."""

    async def list_calls(self) -> list[Call]:
        """Running calls, then recent ones. Raises `CallRefused` while they cannot be known."""

    async def show_call(self, call_id: str) -> Call | None:
        """One call with its events, or None. Raises `CallRefused` as `list_calls` does."""

    async def statement(self, call_id: str) -> dict[str, Any] | None:
        """The signed statement that this call's voice is synthetic, with what it says, or None."""

    async def prometheus(self) -> bytes:
        """The metrics, in Prometheus' text form."""

    async def ready(self) -> HouseState:
        """Whether calls can be taken; only `ready`, `parts` and a doubt about the ledger are shown."""


def build_app(
    house: Gateway, settings: Settings, token: str | None = None, more: Sequence[Route] = ()
) -> Starlette:
    """The ASGI app. `token` is the console's; it may be None only while `settings.local_only`. `more` are
    doors of their own (`engines`).

    Raises `StartError` otherwise.
    """
    keys = Keys(None if settings.local_only else token)
    embedding = Embedding(settings)
    console = Console(house, keys, IceServers(settings), embedding)
    app = Starlette(
        routes=[
            Route("/", console.page),
            Route("/login", console.login, methods=["GET", "POST"]),
            Route("/logout", console.logout, methods=["POST"]),
            Route("/api/call", console.place, methods=["POST", "OPTIONS"]),
            Route("/api/call/{call_id}", console.own, methods=["DELETE", "PATCH"]),
            Route("/api/ice", console.ice),
            Route("/api/embed", console.embed, methods=["POST"]),
            Route("/api/calls", console.calls),
            Route("/api/calls/{call_id}", console.call, methods=["GET", "DELETE"]),
            Route("/synthetic/{call_id}", console.statement),
            Route("/metrics", console.metrics),
            Route("/healthz", console.healthz),
            Route("/readyz", console.readyz),
            WebSocketRoute(SIP_PATH, SipSocket(house).serve),
            Mount("/console", StaticFiles(directory=PAGE)),
            *more,
        ],
        middleware=[Middleware(Boundary, settings=settings, keys=keys, embedding=embedding)],
        exception_handlers={HTTPException: _http_error},
    )
    Boundary(app, settings, keys)  # a missing token is found at start, not at the first request
    return app


class Console:
    """The handlers."""

    def __init__(self, house: Gateway, keys: Keys, ice_servers: IceServers, embedding: Embedding) -> None:
        self._house = house
        self._embedding = embedding
        self._ice = ice_servers
        self._keys = keys
        self._readiness: tuple[float, HouseState] | None = None

    async def page(self, _: Request) -> Response:
        return FileResponse(PAGE / "index.html")

    # ── calls ────────────────────────────────────────────────────────────────────────────────────────

    async def place(self, request: Request) -> Response:
        if request.method == "OPTIONS":  # RFC 9725 §4.2
            return Response(status_code=204, headers={"Allow": "OPTIONS, POST", "Accept-Post": OFFERS})
        try:
            sdp, dialled, as_json = await _offer(request)
        except ValueError as error:
            return refusal(400, str(error))
        request.state.dialled = dialled
        user_agent = request.headers.get("user-agent", "")[:200]
        placing = self._house.place(sdp, dialled, source_of(request.scope), user_agent)
        placed, left = await race(placing, _left(request))
        if placed is None:
            return refusal(400, "nobody waited for the answer")
        try:
            call_id, answer = placed.result()
        except CallRefused as refused:
            request.state.call_id = refused.call_id
            return _refused(refused)
        if left is not None or await request.is_disconnected():
            with contextlib.suppress(CallRefused):
                await self._house.hang_up(call_id, End.CANCELLED)
        location = f"/api/call/{quote(call_id, safe='')}"
        headers = {"Location": location, "ETag": _ice_session(answer)}
        if as_json:
            body = {"call_id": call_id, "sdp": answer, "location": location}
            return JSONResponse(body, 201, headers)
        response = Response(answer, 201, headers, "application/sdp")
        for server in self._ice.now():
            response.headers.append("Link", server.link())
        return response

    async def trickle(self, request: Request) -> Response:
        """RFC 9725 §4.3: which ICE session it is for is said by If-Match."""
        call_id, etag = request.path_params["call_id"], request.headers.get("if-match", "")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FRAGMENT:
            return refusal(415, f"a fragment ({FRAGMENT}), please")
        if not etag:
            return refusal(428, "If-Match, please: the ETag of the answer, or * to restart ICE")
        try:
            fragment = (await request.body()).decode()
        except UnicodeDecodeError:
            return refusal(400, "the fragment is not UTF-8")
        if not CALL_ID.match(call_id):
            return refusal(404, "there is no such call")
        try:
            reply = await self._house.trickle(call_id, fragment, etag)
        except CallRefused as refused:
            return _refused(refused)
        if reply.wrong:
            return refusal(reply.status, reply.wrong)
        if not reply.fragment:
            return Response(status_code=reply.status)
        return Response(reply.fragment, reply.status, {"ETag": reply.etag}, FRAGMENT)

    async def embed(self, request: Request) -> Response:
        """For the server of another site: what its page calls with, for some minutes."""
        try:
            asked = await request.json()
            origin, dialled = str(asked["origin"]), str(asked.get("dialled") or DEFAULT_NUMBER)
        except (ValueError, LookupError, TypeError, AttributeError):
            return refusal(400, 'JSON, please: {"origin": "https://shop.example", "dialled": "demo"}')
        if not DIALLED.match(dialled):
            return refusal(400, "that is not a number")
        try:
            token = self._embedding.token(origin, dialled)
        except EmbedRefused as why:
            return refusal(why.status, str(why))
        return JSONResponse({"token": token, "expires_s": TOKEN_S})

    async def ice(self, _: Request) -> Response:
        """For `RTCPeerConnection`; passwords hold for the longest call."""
        return JSONResponse({"iceServers": [server.for_page() for server in self._ice.now()]})

    async def own(self, request: Request) -> Response:
        """What a caller asks of its own call."""
        if request.method == "PATCH":
            return await self.trickle(request)
        end = End.NO_MEDIA if request.query_params.get("why") == "no-sound" else End.CALLER
        return await self._hang_up(request.path_params["call_id"], end)

    async def _hang_up(self, call_id: str, how: End) -> Response:
        if not CALL_ID.match(call_id):
            return refusal(404, "there is no such call")
        try:
            await self._house.hang_up(call_id, how)
        except CallRefused as refused:
            return _refused(refused)
        return Response(status_code=204)

    async def calls(self, _: Request) -> Response:
        try:
            return JSONResponse({"calls": await self._house.list_calls()})
        except CallRefused as refused:
            return _refused(refused)

    async def call(self, request: Request) -> Response:
        call_id = request.path_params["call_id"]
        if request.method == "DELETE":
            return await self._hang_up(call_id, End.CONSOLE)
        if not CALL_ID.match(call_id):
            return refusal(404, "there is no such call")
        try:
            call = await self._house.show_call(call_id)
        except CallRefused as refused:
            return _refused(refused)
        return refusal(404, "there is no such call") if call is None else JSONResponse(call)

    async def statement(self, request: Request) -> Response:
        """For whoever has the call's id: `gateway.front.http.speech_statement`."""
        call_id = request.path_params["call_id"]
        found = await self._house.statement(call_id) if CALL_ID.match(call_id) else None
        return refusal(404, "there is no such call") if found is None else JSONResponse(found)

    # ── for machines ─────────────────────────────────────────────────────────────────────────────────

    async def metrics(self, _: Request) -> Response:
        return Response(await self._house.prometheus(), headers={"Content-Type": METRICS_TYPE})

    async def healthz(self, _: Request) -> Response:
        return JSONResponse({"alive": True})

    async def readyz(self, request: Request) -> Response:
        state = await self._ready()
        more: dict[str, str | bool] = {"ledger": state.ledger_doubt} if state.ledger_doubt else {}
        if state.busy:  # the figures are for whoever shows the token
            known = self._keys.admits(request.headers, source_of(request.scope)) is None
            more["busy"] = state.busy if known else True
        return JSONResponse({"ready": state.ready, "parts": state.parts, **more}, 200 if state.ready else 503)

    async def _ready(self) -> HouseState:
        """The house's state, not asked again within `READY_FOR_S`: anybody may ask us, it asks every hall."""
        now = time.monotonic()
        if self._readiness is None or now - self._readiness[0] > READY_FOR_S:
            try:
                state = await self._house.ready()
            except VoicegateError as error:
                log.warning("readyz.failed", error=str(error))
                state = HouseState(ready=False)
            self._readiness = (now, state)
        return self._readiness[1]

    # ── the token for a cookie ───────────────────────────────────────────────────────────────────────

    async def login(self, request: Request) -> Response:
        if self._keys.token is None:
            return RedirectResponse("/", 303)
        if request.method == "GET":
            return _login_page()
        source = source_of(request.scope)
        if self._keys.must_wait(source):
            return _login_page("Too many wrong tokens from here. Wait a minute.", 429)
        fields = parse_qs((await request.body()).decode("utf-8", "replace"))
        if not self._keys.is_token(fields.get("token", [""])[0].strip()):
            self._keys.was_wrong(source)
            log.warning("login.refused", source=source)
            return _login_page("That is not the token.", 401)
        response = RedirectResponse("/", 303)
        response.set_cookie(
            COOKIE,
            self._keys.cookie,
            max_age=COOKIE_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    async def logout(self, _: Request) -> Response:
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response


async def _left(request: Request) -> None:
    """Returns when nobody waits for the answer any more. The body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _offer(request: Request) -> tuple[str, str, bool]:
    """(SDP, number dialled, asked in JSON). Raises `ValueError` saying what is wrong with the request."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/sdp", "application/json"):
        raise HTTPException(415, "an offer is application/sdp or application/json")
    body = await request.body()
    dialled: Any = request.query_params.get("dialled", DEFAULT_NUMBER)
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise ValueError("the offer is not UTF-8") from None
    sdp: Any = text
    if kind == "application/json":
        try:
            asked = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError("the body is not JSON") from None
        if not isinstance(asked, dict):
            raise ValueError('the JSON must be {"sdp": …, "dialled": …}')
        sdp, dialled = asked.get("sdp"), asked.get("dialled", dialled)
    if not isinstance(sdp, str) or not sdp.startswith("v=0"):
        raise ValueError("the offer is not an SDP")
    if not isinstance(dialled, str) or not DIALLED.match(dialled):
        raise ValueError("the dialled number may have 1 to 64 letters, digits and + * # . _ ~ -")
    return sdp, dialled, kind == "application/json"


def _ice_session(answer: str) -> str:
    """The ETag of an answer (RFC 9725 §4.3): our ICE name in it."""
    found = re.search(r"^a=ice-ufrag:(\S+)", answer, re.MULTILINE)
    return f'"{found[1]}"' if found else '"0"'


def _refused(refused: CallRefused) -> Response:
    return refusal(HTTP_STATUS.get(refused.status, 502), refused.reason, refused.retry_after_s)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # for mypy: it is registered for HTTPException alone
    response = refusal(error.status_code, error.detail)
    response.headers.update(error.headers or {})
    if error.status_code == 405:  # RFC 9110 §15.5.6; where it serves files, starlette does not say it
        response.headers.setdefault("Allow", "GET, HEAD")
    return response


def _login_page(problem: str = "", status: int = 200) -> Response:
    page = (PAGE / "login.html").read_text()
    shown = f'<p class="problem" role="alert">{html.escape(problem)}</p>' if problem else ""
    return HTMLResponse(page.replace("<!-- problem -->", shown), status)
