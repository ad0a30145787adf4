"""What calls speak by: their grants, verified, renewed in time, and obeyed when they are gone.

A grant is for one voice, purpose, route, language and call. `Grants.follow` is the only way from one route to
another, whatever verb wants it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from consent.errors import GrantRefused
from consent.grants.grant import GrantVerifier, VoiceGrant
from consent.grants.revocation import Revocation
from consent.grants.revocation_feed import RevocationFeed
from gateway.dialplan import Route
from gateway.errors import RpcError
from gateway.hall.calls.call import AskFront, Call
from gateway.hall.parts.clocks import Clocks
from gateway.hall.parts.inbox import CallEnded
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.hall_messages import PROMPTS, FollowRoute, GrantRenewal, RenewGrant, RouteGrant, SpokenUnder
from gateway.store.call_events import ConsentRefused
from model.tasks import failed, race

RENEW_BEFORE: Final = 0.5
"""A grant is renewed when this share of its life is left."""
RENEW_RETRY_S: Final = 1.0
FOLLOW_WITHIN_S: Final = 5.0
"""How long a call that goes on as another route waits for a front that is away."""
FOLLOW_RETRY_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Grants:
    """A call without a valid grant falls silent, whatever went wrong here."""

    verifier: GrantVerifier
    feed: RevocationFeed
    ask_front: AskFront
    calls: Mapping[str, Call]
    """those that live"""
    clocks: Clocks = time

    def use(self, call: Call, token: str | None) -> None:
        """The call speaks by this grant from now on; without a valid one it falls silent."""
        try:
            if token is None:
                raise GrantRefused("none", "the call has no grant")
            grant = self.verifier.verify(token, call_id=call.id)
            if self.feed.revocations.is_revoked(grant):
                raise GrantRefused("revoked", f"the voice {grant.voice} was revoked")
            call.use_grant(grant)
        except GrantRefused as refusal:
            call.mute(refusal.reason)

    async def follow(self, call: Call, route: Route) -> None:
        """The call goes on as `route`: silent, until the front has given a grant for that.

        Raises `CallEnded`, also when consent refuses the voice and the plan lets no other stand in.
        """
        if route.scope(call.id) == call.route.scope(call.id):
            return
        call.leave_for(route)
        try:
            found = await call.inbox.result_of(self._granted_in_time(call, route))
        except GrantRefused as refusal:
            call.mute(refusal.reason)
        else:
            self.use(call, found.token)
        grant = call.licence.grant
        if call.licence.muted is not None or grant is None:
            raise CallEnded(CallEnding(End.VOICE_REFUSED, call.licence.muted or "none"))
        facts = {"route": route.name, "voice": grant.voice, "grant_refused": found.refused or ""}
        call.session.note(**facts)
        scope = {"purpose": route.purpose, "language": route.language, "grant": grant.jti}
        call.session.event("route", **facts, **scope)
        if found.refused:
            refused = ConsentRefused(reason=found.refused, voice=route.voice, stands_in=True)
            call.session.tell(refused, important=True)
        call.log.info("call.route", **facts)

    async def _granted_in_time(self, call: Call, route: Route) -> RouteGrant:
        """Raises `GrantRefused`, also when the front is away for too long."""
        until = self.clocks.monotonic() + FOLLOW_WITHIN_S
        while True:
            try:
                return await self.granted(call.id, route, call.spoken)
            except RpcError as error:
                call.log.warning("grant.not_given", route=route.name, error=str(error))
            if self.clocks.monotonic() >= until:
                raise GrantRefused("none", "the front gave no grant in time")
            await asyncio.sleep(FOLLOW_RETRY_S)

    async def granted(self, call_id: str, route: Route, spoken: tuple[SpokenUnder, ...] = ()) -> RouteGrant:
        """A new grant for a route of a call.

        Raises `GrantRefused`, and `RpcError` when the front does not say.
        """
        found = await self.ask_front(FollowRoute(call_id, route.name, spoken))
        if found.token is None:
            reason = found.refused or "unknown"
            raise GrantRefused(reason, f"the front gives no grant: {reason}")
        return found

    async def keep(self, call: Call) -> None:
        """Has the grant renewed in time, and silences the voice when it lapses or anything here fails."""
        try:
            licence = call.licence
            while licence.muted is None:
                term = licence.term
                await term.granted.wait()
                if term.over.is_set() or (grant := licence.grant) is None:
                    continue
                left_s = grant.left_s(self.clocks.time())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(RENEW_RETRY_S / 2, left_s * (1 - RENEW_BEFORE))):
                        await term.over.wait()
                if term.over.is_set():
                    continue
                token, _ = await race(self._renewal(call, grant), term.over.wait())
                if term.over.is_set() or token is None:
                    continue  # what was renewed is another route's: it may not take the present one's place
                if (renewed := token.result()) is None:
                    call.mute("expired")
                else:
                    self.use(call, renewed)
        except GrantRefused as refusal:
            call.mute(refusal.reason)
        except Exception:
            call.log.exception("grant.failed")
            call.mute("unknown")

    async def _renewal(self, call: Call, grant: VoiceGrant) -> str | None:
        """A fresh token; None when none came before `grant` lapsed. Raises `GrantRefused`."""
        while (left_s := grant.left_s(self.clocks.time())) > 0:
            try:
                return await self._renewed(call, grant.token)
            except RpcError as error:
                call.log.warning("grant.not_renewed", error=str(error))
            await asyncio.sleep(min(RENEW_RETRY_S, max(0.05, left_s)))
        return None

    async def fresh(self, call: Call) -> None:
        """Another grant of the same scope, for another session: one opens one.

        The call has no grant meanwhile, so that nothing is renewed that the front has replaced.
        """
        if call.licence.muted is not None:
            return
        call.begin_again()
        try:
            found = await self._granted_in_time(call, call.route)
        except GrantRefused as refusal:
            call.mute(refusal.reason)
        else:
            self.use(call, found.token)

    async def prompts(self, token: str) -> str:
        """Another grant to render prompts with. Raises `GrantRefused`, and `RpcError` as `granted` does."""
        return _token_of(await self.ask_front(RenewGrant(PROMPTS, token)))

    async def _renewed(self, call: Call, token: str) -> str:
        """Raises `GrantRefused`, and `RpcError` when the front cannot be asked now."""
        return _token_of(await self.ask_front(RenewGrant(call.id, token, call.spoken)))

    async def revoked(self, _: Revocation) -> None:
        """Silences the calls whose voice is withdrawn; one that fails at it delays no other."""
        for call in list(self.calls.values()):
            try:
                grant = call.licence.grant
                if grant is not None and self.feed.revocations.is_revoked(grant):
                    call.mute("revoked")
            except Exception as error:
                failed("call.mute", error, call_id=call.id)


def _token_of(renewal: GrantRenewal) -> str:
    """Raises `GrantRefused` when there is none."""
    if renewal.token is None:
        reason = renewal.refused or "unknown"
        raise GrantRefused(reason, f"the front does not renew: {reason}")
    return renewal.token
