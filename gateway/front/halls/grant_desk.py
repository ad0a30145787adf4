"""The desk at which halls ask for a call's grants: another for the same route, one for another route."""

from __future__ import annotations

from collections.abc import Awaitable

from consent.errors import GrantRefused
from consent.service.front_office import FrontOffice
from gateway.errors import RpcError
from gateway.front.admission.routing import Routing
from gateway.front.halls.hall_peers import prompts_grant
from gateway.ipc.envelope import Handled
from gateway.ipc.hall_messages import PROMPTS, FollowRoute, GrantRenewal, RenewGrant, RouteGrant
from gateway.ipc.rpc import Peer


class GrantDesk:
    """Asks `routing` for a call's grant, and `office` for that of the prompts."""

    def __init__(self, routing: Routing, office: FrontOffice) -> None:
        self._routing = routing
        self._office = office

    @property
    def for_halls(self) -> list[Handled[Peer, Awaitable[object]]]:
        """What a hall may ask."""
        return [RenewGrant.handled_by(self.renew), FollowRoute.handled_by(self.follow)]

    async def renew(self, _: Peer, asked: RenewGrant) -> GrantRenewal:
        """A fresh grant, or why there is none. Raises `RpcError` while the office is away."""
        try:
            if asked.call_id == PROMPTS:
                return GrantRenewal(token=await prompts_grant(self._office))
            return GrantRenewal(token=await self._routing.renew(asked.call_id, asked.token, asked.spoken))
        except GrantRefused as refusal:
            if refusal.reason == "office":  # it is asked again for as long as the old grant lasts
                raise RpcError(str(refusal)) from None
            return GrantRenewal(refused=refusal.reason)

    async def follow(self, _: Peer, asked: FollowRoute) -> RouteGrant:
        """A grant for another route, or why there is none. Raises `RpcError` while the office is away."""
        try:
            return await self._routing.follow(asked.call_id, asked.route, asked.spoken)
        except GrantRefused as refusal:
            if refusal.reason == "office":  # the hall asks again for a while
                raise RpcError(str(refusal)) from None
            return RouteGrant(refused=refusal.reason)
