"""Where browsers place calls: WHIP (RFC 9725), for our page, for clients, for buttons on others' pages.

Who placed a call is known by what stands behind its id in the Location: who has it may leave the call again,
and the id alone opens nothing here.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import time
from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.config.ice_servers import IceServers
from gateway.edge.dialogs.wire_tap import OnWire
from gateway.edge.grammar.blanking import blanked_description
from gateway.errors import CallRefused
from gateway.front.http.api_shapes import EmbedWish
from gateway.front.http.boundary import source_of
from gateway.front.http.credentials import Gatekeeper
from gateway.front.http.embedding import TOKEN_S, Embedding, EmbedRefused
from gateway.front.http.operations import body_of
from gateway.front.http.problems import refusal, refused_call
from gateway.ipc.ending import End
from gateway.ipc.line_messages import IceReply
from gateway.ipc.wire_message import CALLER, US, Standing, WireMessage
from model.tasks import race

DEFAULT_NUMBER: Final = "demo"
DIALLED: Final = re.compile(r"[A-Za-z0-9+*#._~-]{1,64}\Z")
FRAGMENT: Final = "application/trickle-ice-sdpfrag"
OFFERS: Final = "application/sdp"


class CallPlace(Protocol):
    """Who takes browsers' calls; the front."""

    async def place(self, offer_sdp: str, dialled: str, source: str, user_agent: str) -> tuple[str, str]:
        """A browser's call: (call id, SDP answer). Raises `CallRefused`."""

    async def trickle(self, call_id: str, fragment: str, etag: str) -> IceReply:
        """A browser's later candidates, or its ICE restart. Raises `CallRefused`."""

    async def hang_up(self, call_id: str, how: End) -> None:
        """Ends a call, and notes how. Raises `CallRefused` (404) when no such call runs."""


class WhipDoor:
    """The handlers."""

    def __init__(
        self,
        house: CallPlace,
        credentials: Gatekeeper,
        ice_servers: IceServers,
        embedding: Embedding,
        on_wire: OnWire | None = None,
    ) -> None:
        """`on_wire` hears what is said here of each call, as the edge's does of SIP."""
        self._on_wire = on_wire
        self._house = house
        self._credentials = credentials
        self._ice = ice_servers
        self._embedding = embedding

    async def offers(self, _: Request) -> Response:
        """RFC 9725 §4.2."""
        return Response(status_code=204, headers={"Allow": "OPTIONS, POST", "Accept-Post": OFFERS})

    async def place(self, request: Request) -> Response:
        """An offer becomes a call."""
        try:
            sdp, dialled, as_json = await _offer(request)
        except ValueError as error:
            return refusal(400, str(error))
        request.state.dialled = dialled
        user_agent = request.headers.get("user-agent", "")[:200]
        came_at = time.time()
        placing = self._house.place(sdp, dialled, source_of(request.scope), user_agent)
        placed, left = await race(placing, _left(request))
        if placed is None:
            return refusal(400, "nobody waited for the answer")
        try:
            call_id, answer = placed.result()
        except CallRefused as refused:
            request.state.call_id, request.state.cause = refused.call_id, refused.cause
            answered = refused_call(refused)
            if self._on_wire is not None:
                call_id = request.state.call_id = refused.call_id or secrets.token_hex(8)
                told = answered.status_code
                self._see(call_id, "POST /api/call", sdp, told, at=came_at, standing="refused")
            return answered
        self._see(call_id, "POST /api/call", sdp, 201, answer, at=came_at)
        if left is not None or await request.is_disconnected():
            with contextlib.suppress(CallRefused):
                await self._house.hang_up(call_id, End.CANCELLED)
        location = f"/api/call/{quote(call_id, safe='')}.{self._credentials.own_call(call_id)}"
        headers = {"Location": location, "ETag": _ice_session(answer)}
        if as_json:
            body = {"call_id": call_id, "sdp": answer, "location": location}
            return JSONResponse(body, 201, headers)
        response = Response(answer, 201, headers, "application/sdp")
        for server in self._ice.now():
            response.headers.append("Link", server.link())
        return response

    def _own_call(self, request: Request) -> str | None:
        """The id of the call that its caller asks about; None for anybody else."""
        call_id, _, shown = request.path_params["own_call"].rpartition(".")
        return call_id if self._credentials.is_own_call(call_id, shown) else None

    async def trickle(self, request: Request) -> Response:
        """RFC 9725 §4.3: which ICE session it is for is said by If-Match."""
        etag = request.headers.get("if-match", "")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FRAGMENT:
            return refusal(415, f"a fragment ({FRAGMENT}), please")
        if not etag:
            return refusal(428, "If-Match, please: the ETag of the answer, or * to restart ICE")
        try:
            fragment = (await request.body()).decode()
        except UnicodeDecodeError:
            return refusal(400, "the fragment is not UTF-8")
        if (call_id := self._own_call(request)) is None:
            return refusal(404, "there is no such call")
        came_at = time.time()
        try:
            reply = await self._house.trickle(call_id, fragment, etag)
        except CallRefused as refused:
            return refused_call(refused)
        self._see(call_id, "PATCH /api/call", fragment, reply.status, reply.fragment, at=came_at)
        if reply.wrong:
            return refusal(reply.status, reply.wrong)
        if not reply.fragment:
            return Response(status_code=reply.status)
        return Response(reply.fragment, reply.status, {"ETag": reply.etag}, FRAGMENT)

    async def leave(self, request: Request) -> Response:
        """The caller hangs up."""
        end = End.NO_MEDIA if request.query_params.get("why") == "no-sound" else End.CALLER
        if (call_id := self._own_call(request)) is None:
            return refusal(404, "there is no such call")
        came_at = time.time()
        try:
            await self._house.hang_up(call_id, end)
        except CallRefused as refused:
            return refused_call(refused)
        self._see(call_id, "DELETE /api/call", "", 204, at=came_at)
        return Response(status_code=204)

    def _see(
        self, call_id: str, asked: str, said: str, status: int, answer: str = "", *,
        at: float, standing: Standing = "new",
    ) -> None:  # fmt: skip
        """What a browser asked at that time, and what it is told now."""
        if self._on_wire is None:
            return
        told = f"{status} {HTTPStatus(status).phrase}"
        for when, ends, first, text in (
            (at, (CALLER, US), asked, said), (time.time(), (US, CALLER), told, answer)
        ):  # fmt: skip
            shown = blanked_description(text, first)
            self._on_wire(call_id, WireMessage(when, *ends, "http", shown.first, shown.text), standing)

    async def embed(self, request: Request) -> Response:
        """For the server of another site: what its page calls with, for some minutes."""
        wish = await body_of(request, EmbedWish)
        if isinstance(wish, Response):
            return wish
        try:
            token = self._embedding.token(wish.origin, wish.dialled)
        except EmbedRefused as why:
            return refusal(why.status, str(why))
        return JSONResponse({"token": token, "expires_s": TOKEN_S})

    async def ice(self, _: Request) -> Response:
        """For `RTCPeerConnection`; passwords hold for the longest call."""
        return JSONResponse({"iceServers": [server.for_page() for server in self._ice.now()]})


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
