"""The gateway's HTTP side: the console page, and the API that `operations` lists.

What a request must show to get here is `boundary`'s matter, what its asker may do `rights`'. Beside the API
there are the pages (`GET /`, `/calls`, `/house`), their files (`/console`), `/login`, `/login/oidc` and
`/logout`, SIP over WebSocket (`/sip`, RFC 7118; telephones' passwords hold there), and doors of their own
(`engine_door`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from gateway.config.ice_servers import IceServers
from gateway.config.paths import recordings_dir
from gateway.config.settings import Settings
from gateway.edge.dialogs.wire_tap import OnWire
from gateway.errors import VoicegateError
from gateway.front.admission.rights import Principal
from gateway.front.http.boundary import SIP_PATH, Boundary, source_of
from gateway.front.http.call_desk import CALL_ID, CallDesk, CallHouse
from gateway.front.http.credentials import Gatekeeper
from gateway.front.http.embedding import Embedding
from gateway.front.http.house_desk import HouseDesk, ShownHouse
from gateway.front.http.identity_provider import IdentityProvider
from gateway.front.http.login import PAGE, LoginDoor
from gateway.front.http.openapi import description
from gateway.front.http.operations import doors, routes
from gateway.front.http.plan_desk import PlanDesk, PlanHouse
from gateway.front.http.problems import refusal
from gateway.front.http.provider_login import ProviderLogin
from gateway.front.http.recording_desk import RecordingDesk
from gateway.front.http.sip_socket import SipHouse, SipSocket
from gateway.front.http.token_desk import TokenDesk
from gateway.front.http.trunk_service import TrunkHouse, TrunkService
from gateway.front.http.user_desk import UserDesk
from gateway.front.http.whip_door import CallPlace, WhipDoor
from gateway.ipc.front_messages import HouseState
from gateway.store.api_tokens import ApiTokens
from gateway.store.sip_users import SipUsers

READY_FOR_S: Final = 1.0
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

log = structlog.get_logger("http")


class Gateway(SipHouse, CallPlace, CallHouse, PlanHouse, ShownHouse, TrunkHouse, Protocol):
    """What the app needs of the gateway; the front implements it."""

    async def statement(self, call_id: str) -> dict[str, Any] | None:
        """The signed statement that this call's voice is synthetic, with what it says, or None."""

    async def prometheus(self) -> bytes:
        """The metrics, in Prometheus' text form."""

    async def ready(self) -> HouseState:
        """Whether calls can be taken; only `ready`, `parts` and a doubt about the ledger are shown."""


def build_app(
    house: Gateway,
    settings: Settings,
    token: str | None = None,
    more: Sequence[Route] = (),
    *,
    tokens: ApiTokens | None = None,
    counted: Callable[[str], None] = lambda _: None,
    on_wire: OnWire | None = None,
    provider: IdentityProvider | None = None,
) -> Starlette:
    """The ASGI app. `token` is the console's; it may be None only while `settings.local_only`. `more` are
    doors of their own (`engines`); `tokens`: those that were made for programs and people; `counted` takes
    why each refused request was refused; `on_wire` hears what browsers say of their calls; `provider`: by
    whom people may log in.

    Raises `StartError` when a token is needed and none is given, `SettingsError` for roles that are none.
    """
    credentials = Gatekeeper(token, tokens, local_only=settings.local_only)
    embedding = Embedding(settings)
    users, recordings = UserDesk(SipUsers(settings.data_dir)), RecordingDesk(recordings_dir(settings))
    calls, made, plans = CallDesk(house, recordings), TokenDesk(tokens), PlanDesk(house)
    trunks, shown = TrunkService(house), HouseDesk(house)
    whip = WhipDoor(house, credentials, IceServers(settings), embedding, on_wire)
    machines = MachineDoor(house, credentials)
    handlers = {
        "who_am_i": made.me, "describe": _described,
        "place_call": whip.place, "ask_offers": whip.offers, "trickle": whip.trickle,
        "leave_call": whip.leave, "ice_servers": whip.ice, "embed": whip.embed,
        "list_calls": calls.listed, "list_refused": calls.refused, "show_call": calls.shown,
        "call_course": calls.course, "end_call": calls.ended,
        "say": calls.say, "transfer": calls.transfer, "mute": calls.mute,
        "list_recordings": recordings.listed, "hear_recording": recordings.heard,
        "list_users": users.listed, "put_user": users.put, "remove_user": users.removed,
        "list_trunks": trunks.listed, "put_trunk": trunks.put,
        "list_tokens": made.listed, "make_token": made.made, "revoke_token": made.revoked,
        "list_routes": plans.listed, "check_plans": plans.tried, "reload": plans.reload,
        "list_voices": plans.voices, "try_route": plans.route,
        "show_house": shown.shown, "list_telephones": shown.telephones,
        "synthetic": machines.statement, "metrics": machines.metrics, "alive": machines.healthz,
        "ready": machines.readyz,
    }  # fmt: skip
    by_provider = None if provider is None else ProviderLogin(settings, credentials, provider)
    login = LoginDoor(credentials, "" if by_provider is None else by_provider.begin_url)
    paths: list[BaseRoute] = [
        Route("/", login.page),
        Route("/calls", login.calls_page),
        Route("/calls/{call_id}", login.call_page),
        Route("/house", login.house),
        Route("/login", login.login, methods=["GET", "POST"]),
        Route("/logout", login.logout, methods=["POST"]),
        *(by_provider.routes() if by_provider is not None else ()),
        *routes(handlers, counted),
        WebSocketRoute(SIP_PATH, SipSocket(house).serve),
        Mount("/console", StaticFiles(directory=PAGE)),
        *doors(more, counted),
    ]
    boundary = {"settings": settings, "credentials": credentials, "embedding": embedding, "counted": counted}
    app = Starlette(
        routes=paths,
        middleware=[Middleware(Boundary, **boundary)],  # type: ignore[arg-type]  # its types are the boundary's
        exception_handlers={HTTPException: _http_error},
    )
    Boundary(app, settings, credentials)  # a missing token is found at start, not at the first request
    return app


async def _described(_: Request) -> Response:
    return JSONResponse(description())


class MachineDoor:
    """What programs ask: metrics, health, and what a call says of itself."""

    def __init__(self, house: Gateway, credentials: Gatekeeper) -> None:
        self._house = house
        self._credentials = credentials
        self._readiness: tuple[float, HouseState] | None = None

    async def statement(self, request: Request) -> Response:
        """For whoever has the call's id: `gateway.front.http.speech_statement`."""
        call_id = request.path_params["call_id"]
        found = await self._house.statement(call_id) if CALL_ID.match(call_id) else None
        return refusal(404, "there is no such call") if found is None else JSONResponse(found)

    async def metrics(self, _: Request) -> Response:
        return Response(await self._house.prometheus(), headers={"Content-Type": METRICS_TYPE})

    async def healthz(self, _: Request) -> Response:
        return JSONResponse({"alive": True})

    async def readyz(self, request: Request) -> Response:
        state = await self._ready()
        more: dict[str, str | bool] = {"ledger": state.ledger_doubt} if state.ledger_doubt else {}
        if state.busy:  # the figures are for whoever may read of the calls
            asker = await self._credentials.asker(
                request.headers, source_of(request.scope), here=request.state.here
            )
            known = isinstance(asker, Principal) and asker.may("calls.read")
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


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # for mypy: it is registered for HTTPException alone
    response = refusal(error.status_code, error.detail)
    response.headers.update(error.headers or {})
    if error.status_code == 405:  # RFC 9110 §15.5.6; where it serves files, starlette does not say it
        response.headers.setdefault("Allow", "GET, HEAD")
    return response
