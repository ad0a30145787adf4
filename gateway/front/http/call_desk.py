"""What operators and their programs ask about calls: list, show, hang up, say, transfer, mute."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from typing import Any, Final, Protocol

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.errors import CallRefused
from gateway.front.calls.call_list import CallsWanted, ListedCalls
from gateway.front.calls.refused_list import ListedRefusals
from gateway.front.http.call_shapes import CallsAsked, MuteWish, RefusedAsked, SayWish, TransferWish
from gateway.front.http.operations import body_of, query_of
from gateway.front.http.problems import refusal, refused_call
from gateway.front.http.recording_desk import RecordingDesk
from gateway.ipc.ending import End
from gateway.ipc.hall_messages import Steering
from gateway.store.call_search import CallSearch

CALL_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,64}\Z")

log = structlog.get_logger("http")


class CallHouse(Protocol):
    """Who has the calls; the front."""

    async def hang_up(self, call_id: str, how: End) -> None:
        """Ends a call, and notes how. Raises `CallRefused` (404) when no such call runs."""

    async def steer(self, call_id: str, act: Steering, what: str, by: str) -> None:
        """Has a running conversation do something.

        Raises `CallRefused`: 404 when no such call runs, 409 when it is in no conversation, or may not go
        there.
        """

    async def list_calls(self, wanted: CallsWanted) -> ListedCalls:
        """A page of the calls.

        Raises `CallRefused` while they cannot be known, `ValueError` for a cursor that is none of ours.
        """

    async def list_refused(
        self, search: CallSearch, count: int, cursor: str | None, *, counted: bool
    ) -> ListedRefusals:
        """A page of the calls that were not taken. Raises as `list_calls` does."""

    async def show_call(self, call_id: str) -> dict[str, Any] | None:
        """One call with its events, or None. Raises `CallRefused` as `list_calls` does."""

    async def call_course(self, call_id: str) -> dict[str, Any] | None:
        """The same with its causes, sound, SIP and log, as `CallCourse` has it but for recordings."""


class CallDesk:
    """The handlers."""

    def __init__(self, house: CallHouse, recordings: RecordingDesk) -> None:
        self._house = house
        self._recordings = recordings

    async def listed(self, request: Request) -> Response:
        """Running calls, then the others, or as they shall be sorted."""
        asked = query_of(request, CallsAsked)
        if isinstance(asked, Response):
            return asked
        ended = None if asked.state is None else asked.state == "ended"
        search = CallSearch(
            id=asked.id, caller=asked.caller, called=asked.called, route=asked.route, voice=asked.voice,
            how=asked.how, since=asked.since, until=asked.until, failed=asked.failed, poor=asked.poor,
            least_s=asked.least_s, most_s=asked.most_s, ended=ended,
        )  # fmt: skip
        wanted = CallsWanted(
            search=search, sort=asked.sort, count=asked.limit, cursor=asked.cursor, counted=asked.count
        )
        return await _told(self._house.list_calls(wanted))

    async def refused(self, request: Request) -> Response:
        """Calls that were not taken."""
        asked = query_of(request, RefusedAsked)
        if isinstance(asked, Response):
            return asked
        search = CallSearch(
            id=asked.id, caller=asked.caller, called=asked.called, since=asked.since, until=asked.until
        )
        return await _told(self._house.list_refused(search, asked.limit, asked.cursor, counted=asked.count))

    async def shown(self, request: Request) -> Response:
        """One call."""
        call_id = request.path_params["call_id"]
        if not CALL_ID.match(call_id):
            return refusal(404, "there is no such call")
        try:
            call = await self._house.show_call(call_id)
        except CallRefused as refused:
            return refused_call(refused)
        return refusal(404, "there is no such call") if call is None else JSONResponse(call)

    async def course(self, request: Request) -> Response:
        """One call, as its page draws it; with its recordings, for whoever may hear them."""
        call_id = request.path_params["call_id"]
        if not CALL_ID.match(call_id):
            return refusal(404, "there is no such call")
        try:
            course = await self._house.call_course(call_id)
        except CallRefused as refused:
            return refused_call(refused)
        if course is None:
            return refusal(404, "there is no such call")
        may_hear = request.state.asker.may("recordings.read")
        events = course["call"].get("events") or ()
        recordings = await self._recordings.of_call(call_id, events) if may_hear else None
        return await asyncio.to_thread(JSONResponse, {**course, "recordings": recordings})  # some are 2 MB

    async def ended(self, request: Request) -> Response:
        """The operator hangs up."""
        call_id = request.path_params["call_id"]
        if not CALL_ID.match(call_id):
            return refusal(404, "there is no such call")
        log.info("call.end_asked", call_id=call_id, asker=request.state.asker.name)
        try:
            await self._house.hang_up(call_id, End.CONSOLE)
        except CallRefused as refused:
            return refused_call(refused)
        return Response(status_code=204)

    async def say(self, request: Request) -> Response:
        """The conversation's voice says a text, word for word."""
        wish = await body_of(request, SayWish)
        return wish if isinstance(wish, Response) else await self._steer(request, "say", wish.text)

    async def transfer(self, request: Request) -> Response:
        """The caller is handed to a target of the plan's."""
        wish = await body_of(request, TransferWish)
        return wish if isinstance(wish, Response) else await self._steer(request, "transfer", wish.target)

    async def mute(self, request: Request) -> Response:
        """The voice is still, or speaks again."""
        wish = await body_of(request, MuteWish)
        if isinstance(wish, Response):
            return wish
        return await self._steer(request, "mute" if wish.muted else "unmute", "")

    async def _steer(self, request: Request, act: Steering, what: str) -> Response:
        call_id = request.path_params["call_id"]
        if not CALL_ID.match(call_id):
            return refusal(404, "there is no such call")
        try:
            await self._house.steer(call_id, act, what, request.state.asker.name)
        except CallRefused as refused:
            return refused_call(refused)
        return Response(status_code=204)


async def _told(page: Awaitable[ListedCalls | ListedRefusals]) -> Response:
    """A page of a list, or why there is none."""
    try:
        return JSONResponse((await page).to_json())
    except ValueError as error:
        return refusal(400, str(error))
    except CallRefused as refused:
        return refused_call(refused)
