"""Tokens over HTTP: whose one is, make, list, revoke. Nobody gives a right that he has not."""

from __future__ import annotations

import asyncio

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.front.admission.rights import RIGHTS, Principal
from gateway.front.http.api_shapes import TokenWish
from gateway.front.http.boundary import source_of
from gateway.front.http.operations import body_of
from gateway.front.http.problems import refusal
from gateway.store.api_tokens import ApiTokens, TokenError
from gateway.store.registry import RegistryError

log = structlog.get_logger("http")


class TokenDesk:
    """The handlers. `tokens` None: this house has none (a test's)."""

    def __init__(self, tokens: ApiTokens | None) -> None:
        self._tokens = tokens

    async def me(self, request: Request) -> Response:
        """Who asks, and what it may."""
        asker: Principal = request.state.asker
        return JSONResponse(
            {
                "name": asker.name,
                "role": asker.role,
                "rights": [right for right in RIGHTS if asker.may(right)],
                "token_id": asker.token_id,
                "expires_at": asker.expires_at,
            }
        )

    async def listed(self, _: Request) -> Response:
        """All tokens, without their secrets."""
        if self._tokens is None:
            return _away("this gateway keeps no tokens")
        try:
            tokens = await asyncio.to_thread(self._tokens.listed)
        except RegistryError as error:
            return _away(str(error))
        return JSONResponse({"tokens": [token.to_json() for token in tokens]})

    async def made(self, request: Request) -> Response:
        """A new token, with its secret."""
        wish = await body_of(request, TokenWish)
        asker: Principal = request.state.asker
        if isinstance(wish, Response):
            return wish
        if not asker.may_give(wish.role):
            return refusal(403, f"the role {wish.role} has rights that {asker.name!r} has not")
        if self._tokens is None:
            return _away("this gateway keeps no tokens")
        by = f"{asker.name} {asker.token_id}, from {source_of(request.scope)}"
        try:
            made, text = await asyncio.to_thread(self._tokens.make, wish.name, wish.role, wish.expires_s, by)
        except TokenError as error:
            return refusal(400, str(error))
        except RegistryError as error:
            return _away(str(error))
        log.info("token.made", id=made.token_id, name=made.name, role=made.role, by=by)
        return JSONResponse({**made.to_json(), "token": text}, 201)

    async def revoked(self, request: Request) -> Response:
        """From now on it opens nothing."""
        asker: Principal = request.state.asker
        token_id, by = request.path_params["token_id"], f"{asker.name} {asker.token_id}"
        if self._tokens is None:
            return _away("this gateway keeps no tokens")
        try:
            if not await asyncio.to_thread(self._tokens.revoke, token_id, by):
                return refusal(404, "there is no such token that holds")
        except RegistryError as error:
            return _away(str(error))
        log.info("token.revoked", id=token_id, by=by)
        return Response(status_code=204)


def _away(why: str) -> Response:
    return refusal(503, why, retry_after_s=5)
