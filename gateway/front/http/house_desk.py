"""The house over HTTP: how all of it is, and which telephones are registered."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from typing import Any, Final, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.front.calls.house_report import HouseShown
from gateway.ipc.binding import Binding
from gateway.ipc.front_messages import TelephoneState

SHOWN_FOR_S: Final = 1.0
"""However many pages ask, the house's parts are asked this often."""


class ShownHouse(Protocol):
    """Who knows; the front."""

    async def house(self) -> HouseShown:
        """How the whole house is."""

    def telephones(self) -> list[tuple[Binding, TelephoneState | None]]:
        """The telephones that are registered, and what is known of each."""


class HouseDesk:
    """The handlers."""

    def __init__(self, house: ShownHouse) -> None:
        self._house = house
        self._asking = asyncio.Lock()
        self._told: tuple[float, dict[str, Any]] | None = None

    async def shown(self, request: Request) -> Response:
        """All of it; who can read the consent office's keys is for whoever may reload."""
        async with self._asking:
            if self._told is None or time.monotonic() - self._told[0] > SHOWN_FOR_S:
                shown = asdict(await self._house.house())
                self._told = (time.monotonic(), shown)
            told = self._told[1]
        office = told["office"] if request.state.asker.may("plans.reload") else ""
        return JSONResponse({**told, "office": office})

    async def telephones(self, _: Request) -> Response:
        """Those that are registered."""
        shown = [_telephone(one, state) for one, state in self._house.telephones()]
        return JSONResponse({"telephones": sorted(shown, key=lambda one: str(one["user"]))})


def _telephone(one: Binding, state: TelephoneState | None) -> dict[str, Any]:
    return {
        "user": one.user,
        "source": one.source,
        "transport": one.transport,
        "user_agent": one.user_agent,
        "registered_at": one.registered_at,
        "expires_at": one.expires_at,
        "lost_at": one.lost_at,
        "answers": None if state is None else state.there,
        "round_trip_ms": None if state is None else state.round_trip_ms,
    }
