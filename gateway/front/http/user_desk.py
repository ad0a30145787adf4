"""Telephones' users over HTTP: list, add, remove. Nobody gives a right that he has not."""

from __future__ import annotations

import asyncio

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.front.admission.rights import Principal, rights_of
from gateway.front.http.api_shapes import UserWish
from gateway.front.http.operations import body_of
from gateway.front.http.problems import refusal
from gateway.store.sip_users import SipUsers, UsersError, typed_secret

log = structlog.get_logger("http")


class UserDesk:
    """The handlers."""

    def __init__(self, users: SipUsers) -> None:
        self._users = users

    async def listed(self, _: Request) -> Response:
        """Names, roles and how each logs in; no password, no hash."""
        try:
            return JSONResponse({"users": await asyncio.to_thread(self._all)})
        except UsersError as error:
            return refusal(503, str(error), retry_after_s=5)

    def _all(self) -> list[dict[str, object]]:
        return [self._shown(name) for name in self._users.names()]

    def _shown(self, name: str) -> dict[str, object]:
        users = self._users
        return {
            "name": name,
            "role": users.role(name),
            "legacy": users.is_legacy(name),
            "srtp": users.srtp(name),
        }

    async def put(self, request: Request) -> Response:
        """Adds one, or gives it another password."""
        wish = await body_of(request, UserWish)
        if isinstance(wish, Response):
            return wish
        asker: Principal = request.state.asker
        name = request.path_params["name"]
        made = typed_secret() if wish.password is None else None
        try:
            had = await asyncio.to_thread(self._users.role, name)
            if not asker.may_give(wish.role) or not rights_of(had) <= asker.rights:
                return refusal(403, f"{asker.name!r} has not all rights that this user has or shall have")
            await asyncio.to_thread(
                self._users.add, name, wish.password or made or "", legacy=wish.legacy, srtp=wish.srtp,
                role=wish.role,
            )  # fmt: skip
            shown = await asyncio.to_thread(self._shown, name)
        except UsersError as error:
            return refusal(400, str(error))
        log.info("user.put", user=name, role=wish.role, by=asker.name, id=asker.token_id)
        return JSONResponse({**shown, "password": made})

    async def removed(self, request: Request) -> Response:
        """From now on its telephones cannot log in."""
        name = request.path_params["name"]
        try:
            await asyncio.to_thread(self._users.remove, name)
        except UsersError as error:
            return refusal(404, str(error))
        log.info("user.removed", user=name, by=request.state.asker.name, id=request.state.asker.token_id)
        return Response(status_code=204)
