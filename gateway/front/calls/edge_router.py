"""What the edge is told about calls: which hall, whether one may come in, where it may go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from gateway.dialplan.target_address import TrunkTarget, target_address
from gateway.edge.router import Accept, IncomingCall, Refuse, RefusedInvite, WebAnswer
from gateway.errors import CallRefused, HallRefused
from gateway.front.admission.rights import rights_of
from gateway.front.admission.routing import Routing
from gateway.front.admission.trunks_out import TrunksOut
from gateway.front.calls.closing import Closing
from gateway.front.calls.refusals import Refusals
from gateway.front.calls.web_calls import WebCalls
from gateway.front.halls.hall_choice import HallChoice
from gateway.ipc.call_facts import CallFacts
from gateway.ipc.ending import CallEnding
from gateway.store.sip_users import UsersError

log = structlog.get_logger("front")


class EdgeRouter:
    """The edge's `Router`."""

    def __init__(
        self,
        routing: Routing,
        halls: HallChoice,
        web: WebCalls,
        refusals: Refusals,
        closing: Closing,
        role_of: Callable[[str], str],
        trunks: TrunksOut,
    ) -> None:
        """`role_of` a telephone's user (`gateway.front.admission.rights`); it may raise `UsersError`."""
        self._role_of = role_of
        self._trunks = trunks
        self._routing = routing
        self._halls = halls
        self._web = web
        self._refusals = refusals
        self._closing = closing

    def hall_for(self, held: Mapping[str, int]) -> str | None:
        """The hall with the fewest calls, by telephone or from a browser, of those that have time for one."""
        return self._halls.of(held)

    def no_hall(self) -> Refuse:
        """What a caller hears for whom no hall has time, or none is there."""
        why = self._halls.none()
        return Refuse(why.status, why.reason, why.retry_after_s)

    def answers_emergencies(self) -> bool:
        """Whether some route says to those who call for help that nobody hears them here."""
        return self._routing.dialplan.answers_emergencies

    async def offered(self, call: IncomingCall) -> Accept | Refuse:
        """A new INVITE that passed the edge's limits."""
        if (barred := self._barred(call.facts)) is not None:
            return barred
        try:
            routed = await self._routing.offer(call.facts, hall=call.hall)
        except CallRefused as refusal:
            elsewhere = isinstance(refusal, HallRefused)
            return Refuse(refusal.status, refusal.reason, refusal.retry_after_s, refusal.call_id, elsewhere)
        except Exception:
            facts = call.facts
            log.exception("routing.failed", caller=facts.caller, called=facts.called, source=facts.source)
            call_id = structlog.contextvars.get_contextvars().get("call_id")  # it may have had one by then
            return Refuse(500, "Server Internal Error", call_id=call_id)
        return Accept(routed.call_id)

    def _barred(self, facts: CallFacts) -> Refuse | None:
        """The refusal of a trunk that is out of service, or of a user whose role may not call."""
        if (out := self._trunks.refusal(facts.trunk)) is not None:
            return out
        try:
            if not facts.user or "calls.place" in rights_of(self._role_of(facts.user)):
                return None
        except UsersError as error:
            log.error("users.unreadable", error=str(error))
            return Refuse(503, "Service Unavailable", 5)
        return Refuse(403, f"the user {facts.user} has not the right calls.place")

    async def web_offered(self, facts: CallFacts, offer: str) -> WebAnswer | Refuse:
        """A new INVITE with a browser's offer."""
        if (barred := self._barred(facts)) is not None:
            return barred
        try:
            return WebAnswer(*await self._web.place(facts, offer))
        except CallRefused as refusal:
            return Refuse(refusal.status, refusal.reason, refusal.retry_after_s, refusal.call_id)
        except Exception:
            log.exception("routing.failed", caller=facts.caller, called=facts.called, source=facts.source)
            return Refuse(500, "Server Internal Error")

    async def web_renewed(self, call_id: str, offer: str) -> WebAnswer | Refuse:
        """Another offer in such a call."""
        try:
            return WebAnswer(call_id, await self._web.renew(call_id, offer))
        except CallRefused as refusal:
            return Refuse(refusal.status, refusal.reason, refusal.retry_after_s)

    async def web_pressed(self, call_id: str, digit: str) -> None:
        """A key by INFO, in such a call."""
        await self._web.press(call_id, digit)

    def on_web_line(self, call_id: str) -> bool:
        """Whether a browser's line has a call."""
        return self._web.has(call_id)

    def target_of(self, call_id: str, target: str) -> str | Refuse:
        """Where a running call may be handed to, by its dialplan."""
        where = self._routing.target_of(call_id, target)
        if where is None:
            return Refuse(403, f"the call's dialplan names no target {target}")
        address = target_address(where)
        return (self._trunks.refusal(address.trunk) if isinstance(address, TrunkTarget) else None) or where

    def refused(self, call: RefusedInvite) -> str | None:
        """A telephone was told that its call is not taken. Its id, if its messages are to be kept."""
        return self._refusals.note(
            call.facts, call.status, call.reason, sip_call_id=call.sip_call_id, call_id=call.call_id
        )

    async def ended(self, call_id: str, how: CallEnding) -> None:
        """The edge saw a dialog end, or gave up an INVITE."""
        await self._closing.ended(call_id, how)
