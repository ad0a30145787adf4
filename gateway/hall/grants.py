"""What calls speak by: their grants, verified, renewed in time, and obeyed when they are gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from consent.errors import GrantRefused
from consent.grants.grant import GrantVerifier, VoiceGrant
from consent.grants.revocation import Revocation
from consent.grants.revocation_feed import RevocationFeed
from gateway.errors import RpcError
from gateway.hall.call import AskFront, Call
from gateway.hall.clocks import Clocks
from gateway.ipc.hall_messages import RenewGrant
from model.tasks import failed

RENEW_BEFORE: Final = 0.5
"""A grant is renewed when this share of its life is left."""
RENEW_RETRY_S: Final = 1.0


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

    async def keep(self, call: Call) -> None:
        """Has the grant renewed in time, and silences the voice when it lapses or anything here fails."""
        try:
            licence = call.licence
            while licence.muted is None and (grant := licence.grant) is not None:
                left_s = grant.left_s(self.clocks.time())
                await asyncio.sleep(max(RENEW_RETRY_S / 2, left_s * (1 - RENEW_BEFORE)))
                token = await self._renewal(call, grant)
                if token is None:
                    call.mute("expired")
                else:
                    self.use(call, token)
        except GrantRefused as refusal:
            call.mute(refusal.reason)
        except Exception:
            call.log.exception("grant.failed")
            call.mute("unknown")

    async def _renewal(self, call: Call, grant: VoiceGrant) -> str | None:
        """A fresh token; None when none came before `grant` lapsed. Raises `GrantRefused`."""
        while (left_s := grant.left_s(self.clocks.time())) > 0:
            try:
                return await self.renewed(call.id, grant.token)
            except RpcError as error:
                call.log.warning("grant.not_renewed", error=str(error))
            await asyncio.sleep(min(RENEW_RETRY_S, max(0.05, left_s)))
        return None

    async def fresh(self, call: Call) -> None:
        """Another grant for another session: one opens one. Without a front the old one is tried again."""
        grant = call.licence.grant
        if grant is None or call.licence.muted is not None:
            return
        try:
            self.use(call, await self.renewed(call.id, grant.token, fresh=True))
        except GrantRefused as refusal:
            call.mute(refusal.reason)
        except RpcError as error:
            call.log.warning("grant.not_fresh", error=str(error))

    async def renewed(self, call_id: str, token: str | None, *, fresh: bool = False) -> str:
        """The grant of the call from now on; `token` is its last one, which a restarted front has not seen.

        `fresh`: under another id, for a session that is still to be opened.

        Raises `GrantRefused`, and `RpcError` when the front cannot be asked now.
        """
        renewal = await self.ask_front(RenewGrant(call_id, token, fresh))
        if renewal.token is None:
            reason = renewal.refused or "unknown"
            raise GrantRefused(reason, f"the front does not renew: {reason}")
        return renewal.token

    async def revoked(self, _: Revocation) -> None:
        """Silences the calls whose voice is withdrawn; one that fails at it delays no other."""
        for call in list(self.calls.values()):
            try:
                grant = call.licence.grant
                if grant is not None and self.feed.revocations.is_revoked(grant):
                    call.mute("revoked")
            except Exception as error:
                failed("call.mute", error, call_id=call.id)
