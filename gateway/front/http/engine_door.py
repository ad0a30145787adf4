"""The doors for engines that run elsewhere, with the token that they share with us.

`POST /engine/voice`: the body is `{"grant", "voice_hash"}`, and a valid grant opens its own voice and no
other, as on the socket. `POST /engine/withdrawn`: the body is `{"series", "known"}`, see `AskWithdrawn`.
`POST /engine/redeem`: the body is `{"grant", "connection", "give_back"}`, see `RedeemGrant`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.errors import RpcError
from gateway.front.http.boundary import source_of
from gateway.front.http.credentials import SharedToken
from gateway.front.http.problems import refusal
from gateway.ipc.codec import to_json
from gateway.ipc.front_messages import VoiceClip, WithdrawnVoices

log = structlog.get_logger("http")

Fetch = Callable[[str, str], Awaitable[VoiceClip]]
"""(grant's token, voice hash) -> the voice. Raises `RpcError` with the refusal."""


def engine_door(fetch: Fetch, token: str) -> Route:
    """The route; wrong tokens are counted, and must wait, as at the console."""
    keys = SharedToken(token)

    async def voice(request: Request) -> Response:
        source = source_of(request.scope)
        if (refused := keys.admits(request.headers, source)) is not None:
            return refused
        try:
            asked = await request.json()
            grant, voice_hash = str(asked["grant"]), str(asked["voice_hash"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return refusal(400, 'the body must be {"grant": …, "voice_hash": …}')
        try:
            return JSONResponse(to_json(VoiceClip, await fetch(grant, voice_hash)))
        except RpcError as error:
            log.warning("voice.refused", source=source, error=str(error))
            return refusal(403, str(error))

    return Route("/engine/voice", voice, methods=["POST"])


def withdrawn_door(withdrawn: Callable[[str, int], WithdrawnVoices], token: str) -> Route:
    """The route by which an engine asks which voices were withdrawn."""
    keys = SharedToken(token)

    async def voices(request: Request) -> Response:
        if (refused := keys.admits(request.headers, source_of(request.scope))) is not None:
            return refused
        try:
            asked = await request.json()
            series, known = str(asked["series"]), int(asked["known"])
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
            return refusal(400, 'the body must be {"series": …, "known": …}')
        return JSONResponse(to_json(WithdrawnVoices, withdrawn(series, known)))

    return Route("/engine/withdrawn", voices, methods=["POST"])


def redeem_door(redeem: Callable[[str, str, bool], Awaitable[bool]], token: str) -> Route:
    """The route by which an engine redeems a grant for a connection."""
    keys = SharedToken(token)

    async def grant(request: Request) -> Response:
        source = source_of(request.scope)
        if (refused := keys.admits(request.headers, source)) is not None:
            return refused
        try:
            asked = await request.json()
            granted, connection = str(asked["grant"]), str(asked["connection"])
            give_back = bool(asked.get("give_back", False))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return refusal(400, 'the body must be {"grant": …, "connection": …, "give_back": …}')
        try:
            return JSONResponse({"redeemed": await redeem(granted, connection, give_back)})
        except RpcError as error:
            log.warning("grant.not_redeemed", source=source, error=str(error))
            return refusal(403, str(error))

    return Route("/engine/redeem", grant, methods=["POST"])
