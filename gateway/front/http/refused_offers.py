"""Browsers' offers that were refused, whoever refused them: the boundary, the app, the front.

It stands around the whole app, so no refusal passes it by, and it reads what the caller is told.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.front.http.boundary import source_of
from gateway.ipc.call_facts import CallFacts

OFFERED_AT: Final = ("POST", "/api/call")
MAX_BODY: Final = 4096
LONGEST_NUMBER: Final = 64

Noted = Callable[[CallFacts, int, str, str | None], None]
"""Takes who called whom, the HTTP status, the reason, and the call's id if it had one."""

CAUSES: Final = {
    400: "malformed", 401: "token", 403: "not allowed", 404: "no route", 405: "malformed", 413: "malformed",
    415: "malformed", 421: "not allowed", 429: "too often", 500: "failed", 503: "away",
}  # fmt: skip
"""What an offer's refusal counts as, by HTTP status, where nobody names its cause (`CallRefused.cause`)."""
OTHER_CAUSE: Final = "other"


class RefusedOffers:
    """The app `app`, with an eye on it. A request's `state` may say `dialled`, `call_id` and `cause`."""

    def __init__(self, app: ASGIApp, noted: Noted, counted: Callable[[str], None] = lambda _: None) -> None:
        """`counted` takes the cause, a word of few."""
        self._counted = counted
        self._app = app
        self._noted = noted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http" or (scope["method"], scope["path"]) != OFFERED_AT:
            await self._app(scope, receive, send)
            return
        status, body = 0, b""

        async def watched(message: Message) -> None:
            nonlocal status, body
            if message["type"] == "http.response.start":
                status = message["status"]
            elif status >= 400 and len(body) < MAX_BODY:
                body += message.get("body", b"")
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            if status >= 400:
                state = scope.get("state", {})
                facts = CallFacts(
                    caller="web",
                    called=str(state.get("dialled", "")) or _dialled(scope),
                    display="",
                    source=source_of(scope),
                    transport="webrtc",
                )
                self._counted(str(state.get("cause") or CAUSES.get(status, OTHER_CAUSE)))
                self._noted(facts, status, _reason(body), state.get("call_id"))


def _dialled(scope: Scope) -> str:
    """What the address says, of a request that nobody has read."""
    asked = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    return str(asked.get("dialled", [""])[0])[:LONGEST_NUMBER]


def _reason(body: bytes) -> str:
    """Of a problem as the API says it (`gateway.front.http.problems`); empty when it is none."""
    try:
        reason: str = json.loads(body)["detail"]
    except (ValueError, LookupError, TypeError):
        return ""
    return str(reason)
