"""What becomes of a new call: dialplan, voice, payload, registry row, hall. In that order, or not at all.

Everything a call needs before its first sound is settled here; a step that fails refuses the call with the
status its caller understands, and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from consent.errors import ConsentError, GrantRefused
from consent.grants.grant import GrantVerifier, VoiceGrant
from consent.grants.scope import Scope
from consent.office.office import ConsentOffice
from gateway.dialplan import Dialplan, Route
from gateway.dialplan.routes import STOCK_VOICE
from gateway.errors import CallRefused, HallRefused, RpcError, RpcTimeout
from gateway.ipc.call_facts import CallFacts
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.hall_messages import CallOffer, EndCall, LiveCall
from gateway.ipc.rpc import Peer
from gateway.store.registry import PAYLOAD_BITS, CallRow, PayloadTaken, Registry, RegistryError
from watermark.keys import MarkKey
from watermark.payload import call_payload

log = structlog.get_logger("routing")

PAYLOAD_TRIES: Final = 4
HALL_BACK_S: Final = 2
"""When a caller may try again whom no hall took."""


Entered = tuple[int, VoiceGrant | None, str | None]
"""A call's payload, its grant, and why that is not for the route's own voice."""


@dataclass(slots=True)
class RoutedCall:
    """A call that a hall has accepted."""

    call_id: str
    hall: str
    route: Route
    grant: VoiceGrant | None
    started_at: float


class Routing:
    """Chooses and notes, for SIP and WebRTC alike."""

    def __init__(
        self,
        dialplan: Dialplan,
        office: ConsentOffice,
        registry: Registry,
        mark_key: MarkKey,
        *,
        stock_only: bool,
        former: Sequence[str] = (),
    ) -> None:
        """`stock_only`: the engine has no voice but its own, so nobody else's is granted.

        `former`: names that this gateway had in the registry, by the mark keys that it had before.
        """
        self.gateways = (mark_key.id, *former)
        """this gateway's names in the registry"""
        self.dialplan = dialplan
        self.calls: dict[str, RoutedCall] = {}
        self.halls: dict[str, Peer] = {}
        """connected halls by name"""
        self.unwell: set[str] = set()
        """those that did not answer in time; until they do, they get no calls"""
        self.draining = False
        self.refused: Counter[str] = Counter()
        """grants refused, by reason"""
        self._office = office
        self._registry = registry
        self._stock_only = stock_only
        self.mark_key = mark_key

    def drain(self) -> None:
        """No new calls from now on."""
        self.draining = True

    def least_loaded(self, loads: Mapping[str, int]) -> str | None:
        """The hall with the fewest calls of those whose number of calls `loads` tells.

        None when none of them can take a call.
        """
        able = [hall for hall in loads if hall in self.halls and hall not in self.unwell]
        return min(able, key=lambda hall: (loads[hall], hall), default=None)

    async def offer(self, facts: CallFacts, *, hall: str) -> RoutedCall:
        """Takes the call to the hall that its line belongs to.

        Raises `HallRefused` when that hall does not take it, else `CallRefused`.
        """
        if self.draining:
            raise CallRefused(503, "going down", retry_after_s=30)
        route = self.dialplan.route(called=facts.called, caller=facts.caller, source=facts.source).route
        peer = self.halls.get(hall)
        if peer is None:
            raise HallRefused(503, f"{hall} is not up", retry_after_s=HALL_BACK_S)
        call_id, (payload, grant, refused) = await self._entered(facts, route)
        started_at = time.time()
        try:
            await peer.ask(
                CallOffer(
                    call_id=call_id,
                    facts=facts,
                    routes=(route, *self.dialplan.reachable(route)),
                    targets=self.dialplan.targets,
                    payload=payload,
                    at=started_at,
                    grant=grant.token if grant else None,
                    grant_refused=refused,
                )
            )
        except RpcError as error:
            if isinstance(error, RpcTimeout):
                self.unwell.add(hall)
            await self._refused_by(peer, call_id, str(error))
            raise HallRefused(503, str(error), retry_after_s=5, call_id=call_id) from None
        except asyncio.CancelledError:
            await asyncio.shield(self._refused_by(peer, call_id, "nobody waits for it any more"))
            raise
        call = RoutedCall(call_id, hall, route, grant, started_at)
        self.calls[call_id] = call
        return call

    async def _refused_by(self, hall: Peer, call_id: str, why: str) -> None:
        """Nothing is left of an offer that failed, not even in a hall whose answer came too late."""
        hall.tell(EndCall(call_id, CallEnding(End.REFUSED, why)))
        await self._close_row(call_id, CallEnding(End.REFUSED, why))

    async def _close_row(self, call_id: str, how: CallEnding, at: float | None = None) -> CallEnding:
        """Returns what the row says by then."""
        try:
            return CallEnding.read(await asyncio.to_thread(self._registry.close_call, call_id, how, at))
        except RegistryError as error:
            log.error("registry.not_closed", call_id=call_id, error=str(error))
            return how

    async def _entered(self, facts: CallFacts, route: Route) -> tuple[str, Entered]:
        """A call id, and what was entered under it. Raises `CallRefused`."""
        for _ in range(PAYLOAD_TRIES):
            call_id = secrets.token_hex(8)
            structlog.contextvars.bind_contextvars(call_id=call_id)  # for all that this task logs of it
            log.info(
                "call.offered",
                call_id=call_id, caller=facts.caller, called=facts.called, source=facts.source,
                transport=facts.transport, route=route.name, **({"user": facts.user} if facts.user else {}),
            )  # fmt: skip
            try:
                return call_id, await asyncio.to_thread(self._enter, call_id, facts, route)
            except PayloadTaken:
                log.warning("payload.taken", call_id=call_id)
        raise CallRefused(500, "no free payload for the watermark", call_id=call_id)

    def _enter(self, call_id: str, facts: CallFacts, route: Route) -> Entered:
        """Payload and grant (or why there is none), with the registry row written."""
        payload = call_payload(self.mark_key, call_id)
        grant, refused = self._grant(route, call_id)
        row = CallRow(
            call_id=call_id,
            payload=payload & ((1 << PAYLOAD_BITS) - 1),
            payload_whole=payload,
            gateway=self.mark_key.id,
            dialplan=route.file,
            route=route.name,
            caller=facts.caller,
            called=facts.called,
            source=facts.source,
            grant_jti=grant.jti if grant else None,
            voice=grant.voice if grant else None,
            voice_hash=grant.voice_hash if grant else None,
        )
        try:
            self._registry.enter(row)
        except PayloadTaken:
            raise
        except RegistryError as error:
            log.error("registry.not_entered", call_id=call_id, error=str(error))
            why = "the call registry takes no calls"
            raise CallRefused(503, why, retry_after_s=5, call_id=call_id) from None
        return payload, grant, refused

    def _grant(self, route: Route, call_id: str) -> tuple[VoiceGrant | None, str | None]:
        """The route's voice; the stock voice and the reason when consent refuses it and the route says so."""
        scope = Scope(route.voice, route.purpose, route.name, route.language, call_id)
        try:
            if route.voice != STOCK_VOICE and self._stock_only:
                raise GrantRefused("engine", "the embedded engine has no voice but its own")
            return self._office.grant(scope), None
        except GrantRefused as refusal:
            self.refused[refusal.reason] += 1
            log.warning("grant.refused", call_id=call_id, voice=route.voice, reason=refusal.reason)
            if route.without_voice != "stock" or route.voice == STOCK_VOICE:
                why = f"the voice may not be used: {refusal.reason}"
                raise CallRefused(480, why, call_id=call_id) from None
            return self._stock(scope), refusal.reason

    def _stock(self, scope: Scope) -> VoiceGrant:
        try:
            return self._office.grant(replace(scope, voice=STOCK_VOICE))
        except GrantRefused as refusal:
            self.refused[refusal.reason] += 1
            why = f"not even the stock voice may be used: {refusal.reason}"
            raise CallRefused(480, why, call_id=scope.call_id) from None

    async def renew(self, call_id: str, token: str | None, fresh: bool = False) -> str:
        """A fresh grant token for a running call. Raises `GrantRefused`, `RpcError`.

        `token` is the call's last one: a front that was restarted knows the call but not its grant. `fresh`:
        under another id.
        """
        call = self.calls.get(call_id)
        if call is None:
            raise RpcError(f"no call {call_id} is running")
        call.grant = await asyncio.to_thread(self._renewed, call, token, fresh)
        return call.grant.token

    def _renewed(self, call: RoutedCall, token: str | None, fresh: bool) -> VoiceGrant:
        grant = call.grant
        if grant is None:
            if token is None:
                raise GrantRefused("none", "the call has no grant")
            verifier = GrantVerifier.load(self._office.public_keys_path)
            grant = verifier.verify(token, call_id=call.call_id)
        return self._office.grant(grant.scope) if fresh else self._office.renew(grant)

    async def ended(
        self, call_id: str, how: CallEnding, spoken_s: float | None = None, at: float | None = None
    ) -> CallEnding:
        """The call is over, now or since `at` (seconds since the epoch); a second word of it changes nothing.

        Returns how it ended, as its row says.
        """
        call = self.calls.pop(call_id, None)
        stands = await self._close_row(call_id, how, at)
        if call is not None and call.grant is not None and spoken_s is not None:
            await asyncio.to_thread(self._use, call, call.grant, spoken_s)
        return stands

    def _use(self, call: RoutedCall, grant: VoiceGrant, spoken_s: float) -> None:
        try:
            self._office.record_usage(
                jti=grant.jti, call_id=call.call_id, seconds=spoken_s, dialplan=call.route.name
            )
        except ConsentError as error:
            log.error("usage.not_recorded", call_id=call.call_id, seconds=spoken_s, error=str(error))

    def adopt(self, calls: tuple[LiveCall, ...], hall: str) -> None:
        """Running calls that a hall tells a restarted front about."""
        for call in calls:
            self.calls.setdefault(call.call_id, RoutedCall(call.call_id, hall, call.route, None, call.at))
