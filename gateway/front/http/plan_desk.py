"""Dialplans over HTTP: what is in force, whether what lies there would load, reload; no plan's text."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from consent.errors import ConsentError
from gateway.dialplan import Dialplan, Route
from gateway.dialplan.route_trial import try_route
from gateway.dialplan.target_address import TrunkTarget, target_address
from gateway.errors import DialplanError
from gateway.front.admission.rights import Principal
from gateway.front.http.house_shapes import RouteAsked
from gateway.front.http.operations import query_of
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


def route_shown(route: Route) -> dict[str, Any]:
    """A route as the API has it: which calls it takes and what they go through, without its texts."""
    return {
        "name": route.name,
        "file": Path(route.file).name,
        "line": route.line,
        "called": list(route.called),
        "caller": list(route.caller),
        "source": list(route.source),
        "headers": {name: list(patterns) for name, patterns in route.headers.items()},
        "hours": [str(hours) for hours in route.hours],
        "emergency": route.emergency,
        "zone": route.zone,
        "voice": route.voice,
        "language": route.language,
        "verbs": [verb.verb for verb in route.do],
    }


def _target(name: str, address: str, asker: Principal) -> dict[str, Any]:
    """Somebody's number is for whoever may change plans."""
    where = target_address(address)
    by = "caller" if where is None else "trunk" if isinstance(where, TrunkTarget) else "telephone"
    return {"name": name, "by": by, "address": address if asker.may("plans.reload") else None}


class PlanDesk:
    """The handlers."""

    def __init__(self, house: PlanHouse) -> None:
        self._house = house

    async def listed(self, request: Request) -> Response:
        """The routes in force."""
        plan, asker = self._house.plan(), request.state.asker
        routes = [route_shown(route) for route in plan.routes]
        targets = [_target(name, address, asker) for name, address in plan.targets.items()]
        folder = str(plan.folder) if asker.may("plans.reload") else None
        return JSONResponse({"version": plan.version, "folder": folder, "routes": routes, "targets": targets})

    async def route(self, request: Request) -> Response:
        """Which route a call would take, and why not those before it."""
        asked = query_of(request, RouteAsked, several=("header",))
        if isinstance(asked, Response):
            return asked
        plan = self._house.plan()
        try:
            tried = try_route(
                plan, called=asked.called, caller=asked.caller, source=asked.source,
                at=asked.at, headers=asked.header,
            )  # fmt: skip
        except ValueError as error:
            return refusal(400, str(error))
        passed = [(name, why) for name, _, why in (line.partition(": ") for line in tried.passed)]
        return JSONResponse(
            {
                "at": tried.at.isoformat(timespec="seconds"),
                "route": None if tried.route is None else route_shown(tried.route),
                "passed": [{"name": name, "why": why} for name, why in passed],
                "status": tried.status,
                "why": tried.why,
                "plan": plan.version,
            }
        )

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
