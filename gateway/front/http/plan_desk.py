"""Dialplans over HTTP: what is in force, whether what lies there would load, reload; no plan's text."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from consent.errors import ConsentError
from gateway.dialplan import Dialplan
from gateway.errors import DialplanError
from gateway.front.http.problems import refusal
from gateway.ipc.front_messages import Reloaded

log = structlog.get_logger("http")


class PlanHouse(Protocol):
    """Who has the plans; the front."""

    def plan(self) -> Dialplan:
        """The one in force."""

    async def tried_plan(self) -> str:
        """The version of the plans that lie there now. Raises `DialplanError` when they do not load."""

    async def reloaded(self) -> Reloaded:
        """Dialplans, users, trunks, certificates and webhooks, read anew; what became of each."""

    def voices_named(self) -> list[str]:
        """The names of the voices that may be used; blocks. Raises `ConsentError`."""


class PlanDesk:
    """The handlers."""

    def __init__(self, house: PlanHouse) -> None:
        self._house = house

    async def listed(self, _: Request) -> Response:
        """The routes in force."""
        plan = self._house.plan()
        routes = [
            {
                "name": route.name,
                "file": Path(route.file).name,
                "line": route.line,
                "called": list(route.called),
                "voice": route.voice,
                "language": route.language,
                "verbs": [verb.verb for verb in route.do],
            }
            for route in plan.routes
        ]
        return JSONResponse({"version": plan.version, "routes": routes})

    async def tried(self, _: Request) -> Response:
        """Whether a reload would take what lies there."""
        try:
            return JSONResponse({"version": await self._house.tried_plan()})
        except DialplanError as error:
            return refusal(409, str(error))

    async def reload(self, request: Request) -> Response:
        """Takes it."""
        log.info("reload.asked", asker=request.state.asker.name, id=request.state.asker.token_id)
        done = await self._house.reloaded()
        if done.failed:
            why = "; ".join(f"{part}: {why}" for part, why in done.failed.items())
            return refusal(409, why, more={**asdict(done), "notes": list(done.notes)})
        return JSONResponse(asdict(done))

    async def voices(self, _: Request) -> Response:
        """The voices' names."""
        try:
            return JSONResponse({"voices": sorted(await asyncio.to_thread(self._house.voices_named))})
        except ConsentError as error:
            return refusal(503, str(error), retry_after_s=5)
