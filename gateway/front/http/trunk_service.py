"""Trunks over HTTP: how they are, and whether they are in service. No user, no password."""

from __future__ import annotations

from dataclasses import asdict
from typing import Protocol

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.front.admission.trunks_out import NoSuchTrunk, TrunksOut
from gateway.front.http.house_shapes import ServiceWish
from gateway.front.http.operations import body_of
from gateway.front.http.problems import refusal
from gateway.ipc.front_messages import TrunkState

log = structlog.get_logger("http")


class TrunkHouse(Protocol):
    """Who has the trunks; the front."""

    trunks: TrunksOut


class TrunkService:
    """The handlers."""

    def __init__(self, house: TrunkHouse) -> None:
        self._house = house

    async def listed(self, _: Request) -> Response:
        """All trunks, and how the edge finds them."""
        return JSONResponse({"trunks": [_shown(state) for state in self._house.trunks.states()]})

    async def put(self, request: Request) -> Response:
        """Takes one out of service, or puts it back."""
        wish = await body_of(request, ServiceWish)
        if isinstance(wish, Response):
            return wish
        name, asker = request.path_params["trunk"], request.state.asker
        log.info("trunk.asked", trunk=name, in_service=wish.in_service, asker=asker.name, id=asker.token_id)
        try:
            if wish.in_service:
                await self._house.trunks.put_back(name, asker.name)
            else:
                await self._house.trunks.take_out(name, wish.why, asker.name)
        except NoSuchTrunk as error:
            return refusal(404, str(error))
        except OSError as error:
            return refusal(503, f"it cannot be kept: {error.strerror or error}", retry_after_s=5)
        return Response(status_code=204)


def _shown(state: TrunkState) -> dict[str, object]:
    return {
        "name": state.name,
        "up": state.why is None,
        "why": state.why,
        "registered": state.registered,
        "addresses": dict(state.ways),
        "calls": state.calls,
        "calls_at_most": state.calls_at_most,
        "answers": dict(state.answers),
        "not_let_out": dict(state.not_let_out),
        "out": None if state.out is None else asdict(state.out),
    }
