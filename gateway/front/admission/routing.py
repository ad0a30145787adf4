"""What becomes of a new call: dialplan, voice, payload, registry row, hall. In that order, or not at all.

Everything a call needs before its first sound is settled here; a step that fails refuses the call with the
status its caller understands, and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

import structlog

from consent.errors import GrantRefused
from consent.grants.grant import GrantVerifier, VoiceGrant
from consent.grants.scope import STOCK, Scope
from consent.service.front_office import FrontOffice
from gateway.dialplan import Dialplan, Route
from gateway.dialplan.verbs import targets_of
from gateway.errors import CallRefused, HallRefused, RpcError, RpcTimeout
from gateway.front.admission.call_usage import CallUsage
from gateway.ipc.call_facts import CallFacts
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.hall_messages import CallOffer, EndCall, LiveCall, RouteGrant, SpokenUnder
from gateway.ipc.rpc import Peer
from gateway.store.call_headers import CallHeaders
from gateway.store.registry import PAYLOAD_BITS, CallRow, PayloadTaken, Registry, RegistryError
from watermark.keys import MarkKey
from watermark.payload import call_payload

log = structlog.get_logger("routing")

PLANS: Final = 32
"""Plans that are remembered, the newest: what a call's statement says is of the plan that it began with."""
PAYLOAD_TRIES: Final = 4
ENTERED_WITHIN_S: Final = 8.0
"""How long a caller waits for office and registry: one that does not answer takes no calls."""
HALL_BACK_S: Final = 2
"""When a caller may try again whom no hall took."""
OFFICE_BACK_S: Final = 2
"""When a caller may try again for whom the consent office could not be asked."""


Entered = tuple[int, VoiceGrant, str | None]
"""A call's payload, its grant, and why that is not for the route's own voice."""


@dataclass(slots=True)
class RoutedCall:
    """A call that a hall has accepted."""

    call_id: str
    hall: str
    route: Route
    """The one that it follows now."""
    grant: VoiceGrant | None
    """For that route; None when this front has not seen it yet."""
    started_at: float
    begun: Route | None = None
    """The one that it began with, as far as this front knows."""
    plan: Dialplan | None = None
    """That of its routes; None where this front has it no more."""
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the call gets a grant for another route."""
    began: float = field(default_factory=time.monotonic)
    """`started_at` by the clock that nobody sets."""

    @property
    def lasted_s(self) -> float:
        """Seconds since it began, whoever has set the clock meanwhile."""
        return time.monotonic() - self.began


class Routing:
    """Chooses and notes, for SIP and WebRTC alike."""

    def __init__(
        self,
        dialplan: Dialplan,
        office: FrontOffice,
        registry: Registry,
        mark_key: MarkKey,
        *,
        stock_only: bool,
        former: Sequence[str] = (),
        plans: Mapping[str, Dialplan] = MappingProxyType({}),
    ) -> None:
        """`stock_only`: the engine has no voice but its own, so nobody else's is granted.

        `former`: names that this gateway had in the registry, by the mark keys that it had before. `plans`:
        those that were in force before this front began, by version.
        """
        self.gateways = (mark_key.id, *former)
        """this gateway's names in the registry"""
        self.dialplan = dialplan
        """the one in force; a call keeps the one that it began with"""
        self._plans = {**plans, dialplan.version: dialplan}
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
        self._headers = CallHeaders(registry)
        self._stock_only = stock_only
        self._usage = CallUsage(office, registry)
        self.mark_key = mark_key

    def take_plan(self, plan: Dialplan) -> None:
        """In force for calls that come from now on."""
        self.dialplan = plan
        self._plans.pop(plan.version, None)
        self._plans[plan.version] = plan
        while len(self._plans) > PLANS:
            del self._plans[next(iter(self._plans))]

    def plan_of(self, version: str | None) -> Dialplan:
        """The plan of that version, if this front had it; else the one in force."""
        return self._plans.get(version or "", self.dialplan)

    def drain(self) -> None:
        """No new calls from now on."""
        self.draining = True

    def able(self) -> list[str]:
        """The halls that are there and answer in time."""
        return [hall for hall in self.halls if hall not in self.unwell]

    def least_loaded(self, loads: Mapping[str, int]) -> str | None:
        """The hall with the fewest calls of those whose number of calls `loads` tells.

        None when none of them can take a call.
        """
        able = [hall for hall in self.able() if hall in loads]
        return min(able, key=lambda hall: (loads[hall], hall), default=None)

    async def offer(self, facts: CallFacts, *, hall: str) -> RoutedCall:
        """Takes the call to the hall that its line belongs to.

        Raises `HallRefused` when that hall does not take it, else `CallRefused`.
        """
        if self.draining:
            raise CallRefused(503, "going down", retry_after_s=30, cause="draining")
        plan = self.dialplan
        route = plan.route(
            called=facts.called, caller=facts.caller, source=facts.source, headers=facts.headers
        ).route
        peer = self.halls.get(hall)
        if peer is None:
            raise HallRefused(503, f"{hall} is not up", retry_after_s=HALL_BACK_S, cause="no hall")
        call_id, (payload, grant, refused) = await self._entered(facts, route, plan.version)
        started_at = time.time()
        try:
            await peer.ask(
                CallOffer(
                    call_id=call_id,
                    facts=facts,
                    routes=(route, *plan.reachable(route)),
                    targets=plan.targets,
                    payload=payload,
                    at=started_at,
                    grant=grant.token,
                    grant_refused=refused,
                    plan=plan.version,
                )
            )
        except RpcError as error:
            if isinstance(error, RpcTimeout):
                self.unwell.add(hall)
            await self._refused_by(peer, call_id, str(error))
            raise HallRefused(503, str(error), retry_after_s=5, call_id=call_id, cause="no hall") from None
        except asyncio.CancelledError:
            await asyncio.shield(self._refused_by(peer, call_id, "nobody waits for it any more"))
            raise
        call = RoutedCall(call_id, hall, route, grant, started_at, begun=route, plan=plan)
        self.calls[call_id] = call
        return call

    async def _refused_by(self, hall: Peer, call_id: str, why: str) -> None:
        """Nothing is left of an offer that failed, not even in a hall whose answer came too late."""
        hall.tell(EndCall(call_id, CallEnding(End.REFUSED, why)))
        await self._close_row(call_id, CallEnding(End.REFUSED, why))
        await asyncio.to_thread(self._usage.over, call_id)

    async def _close_row(
        self, call_id: str, how: CallEnding, at: float | None = None, sounded: float | None = None
    ) -> CallEnding:
        """Returns what the row says by then."""
        try:
            return CallEnding.read(
                await asyncio.to_thread(self._registry.close_call, call_id, how, at, sounded)
            )
        except RegistryError as error:
            log.error("registry.not_closed", call_id=call_id, error=str(error))
            return how

    async def _entered(self, facts: CallFacts, route: Route, plan: str) -> tuple[str, Entered]:
        """A call id, and what was entered under it. Raises `CallRefused`."""
        for _ in range(PAYLOAD_TRIES):
            call_id = secrets.token_hex(8)
            structlog.contextvars.bind_contextvars(call_id=call_id)  # for all that this task logs of it
            log.info(
                "call.offered",
                call_id=call_id, caller=facts.caller, called=facts.called, source=facts.source,
                transport=facts.transport, route=route.name, plan=plan,
                **({"user": facts.user} if facts.user else {}),
                **({"trunk": facts.trunk} if facts.trunk else {}),
            )  # fmt: skip
            until = time.monotonic() + ENTERED_WITHIN_S
            try:
                async with asyncio.timeout(ENTERED_WITHIN_S):
                    return call_id, await asyncio.to_thread(self._enter, call_id, facts, route, plan, until)
            except PayloadTaken:
                log.warning("payload.taken", call_id=call_id)
            except TimeoutError:
                raise self._not_entered(call_id, f"nothing within {ENTERED_WITHIN_S:g} s") from None
        raise CallRefused(500, "no free payload for the watermark", call_id=call_id)

    def _not_entered(self, call_id: str, error: str) -> CallRefused:
        """The log says why; the caller need not know."""
        log.error("registry.not_entered", call_id=call_id, error=error)
        why = "the call registry takes no calls"
        return CallRefused(503, why, retry_after_s=5, call_id=call_id, cause="registry")

    def _enter(self, call_id: str, facts: CallFacts, route: Route, plan: str, until: float) -> Entered:
        """Payload and grant (or why there is none), with the registry row written.

        After `until` (monotonic) nobody waits for it: the row is closed again.
        """
        payload = call_payload(self.mark_key, call_id)
        try:
            grant, refused = self._grant(route, call_id)
        except GrantRefused as refusal:
            if refusal.reason == "office":
                why = "the consent office is away"
                raise CallRefused(
                    503, why, retry_after_s=OFFICE_BACK_S, call_id=call_id, cause="office"
                ) from None
            raise CallRefused(480, str(refusal), call_id=call_id, cause="office") from None
        row = CallRow(
            call_id=call_id,
            payload=payload & ((1 << PAYLOAD_BITS) - 1),
            payload_whole=payload,
            gateway=self.mark_key.id,
            dialplan=route.file,
            plan=plan,
            route=route.name,
            caller=facts.caller,
            called=facts.called,
            source=facts.source,
            grant_jti=grant.jti,
            voice=grant.voice,
            voice_hash=grant.voice_hash,
            sip_call_id=facts.sip_call_id or None,
        )
        try:
            self._registry.enter(row)
            self._note_headers(call_id, facts)
            self._usage.begins(grant, route)
        except RegistryError as error:
            self._usage.is_unused(grant)
            if isinstance(error, PayloadTaken):
                raise
            raise self._not_entered(call_id, str(error)) from None
        if time.monotonic() > until:
            with contextlib.suppress(RegistryError):  # else `Closing` finds it
                self._registry.close_call(call_id, CallEnding(End.REFUSED, "it was entered too late"))
            self._usage.is_unused(grant)
        return payload, grant, refused

    def _note_headers(self, call_id: str, facts: CallFacts) -> None:
        """What a peer said of the call stands in the call's session too: a call does not fail for it."""
        if facts.headers:
            try:
                self._headers.note(call_id, facts.headers)
            except RegistryError as error:
                log.warning("registry.headers_not_noted", call_id=call_id, error=str(error))

    def _grant(self, route: Route, call_id: str) -> tuple[VoiceGrant, str | None]:
        """The route's voice; the stock voice and the reason when consent refuses it and the route says so.

        Raises `GrantRefused`.
        """
        scope = route.scope(call_id)
        try:
            if route.voice != STOCK and self._stock_only:
                raise GrantRefused("engine", "this engine has no voice but its own")
            return self._office.grant(scope), None
        except GrantRefused as refusal:
            self.refused[refusal.reason] += 1
            log.warning("grant.refused", call_id=call_id, voice=route.voice, reason=refusal.reason)
            if refusal.reason == "office":  # without it not even the stock voice may be used
                raise
            if route.without_voice != "stock" or route.voice == STOCK:
                why = f"the voice may not be used: {refusal.reason}"
                raise GrantRefused(refusal.reason, why) from None
            return self._stock(scope), refusal.reason

    def _stock(self, scope: Scope) -> VoiceGrant:
        try:
            return self._office.grant(replace(scope, voice=STOCK))
        except GrantRefused as refusal:
            self.refused[refusal.reason] += 1
            why = f"not even the stock voice may be used: {refusal.reason}"
            raise GrantRefused(refusal.reason, why) from None

    async def follow(self, call_id: str, name: str, spoken: Sequence[SpokenUnder] = ()) -> RouteGrant:
        """A new grant for a running call that goes on as the route of that name, or begins it again.

        `spoken`: what was said under its grants until now. Raises `GrantRefused`, `RpcError`.
        """
        call = self._running(call_id)
        async with call.changing:
            route = self._way(call, name)
            grant, refused = await asyncio.to_thread(self._regranted, call_id, route, spoken)
            call.route, call.grant = route, grant
        log.info("call.follows", call_id=call_id, route=name, voice=grant.voice)
        return RouteGrant(grant.token, refused)

    def target_of(self, call_id: str, name: str) -> str | None:
        """Where the target of that name is, if a verb that this call may come to hands it there."""
        call = self.calls.get(call_id)
        if call is None:
            return None
        begun, plan = call.begun or call.route, call.plan or self.dialplan
        try:
            routes = (begun, call.route, *plan.reachable(begun))
        except KeyError:  # the plan was another one when the call began
            routes = (begun, call.route)
        named = {target for route in routes for verb in route.do for _, target in targets_of(verb)}
        return plan.targets.get(name) if name in named else None

    def _running(self, call_id: str) -> RoutedCall:
        call = self.calls.get(call_id)
        if call is None:
            raise RpcError(f"no call {call_id} is running")
        return call

    def _way(self, call: RoutedCall, name: str) -> Route:
        """The route of that name, if the dialplan leads this call there. Raises `GrantRefused`."""
        for begun in (call.route, call.begun):
            if begun is not None and begun.name == name:
                return begun
        try:
            reachable = (call.plan or self.dialplan).reachable(call.begun or call.route)
            return next(route for route in reachable if route.name == name)
        except (KeyError, StopIteration):
            raise GrantRefused("dialplan", f"no branch leads from {call.route.name} to {name}") from None

    def _regranted(
        self, call_id: str, route: Route, spoken: Sequence[SpokenUnder]
    ) -> tuple[VoiceGrant, str | None]:
        """Raises `GrantRefused`; `RpcError` when the registry does not take the grant."""
        self._usage.spoke(spoken)
        grant, refused = self._grant(route, call_id)
        try:
            self._usage.begins(grant, route)
        except RegistryError as error:
            self._usage.is_unused(grant)
            log.error("registry.not_entered", call_id=call_id, error=str(error))
            raise RpcError("the call registry takes no grants") from None
        return grant, refused

    async def renew(self, call_id: str, token: str | None, spoken: Sequence[SpokenUnder] = ()) -> str:
        """A fresh token of a running call's present grant. Raises `GrantRefused`, `RpcError`.

        `token` is its last one: a front that was restarted knows the call but not its grant. `spoken`: what
        was said under the call's grants until now.
        """
        call = self._running(call_id)
        renewed = await asyncio.to_thread(self._renewed, call, token, spoken)
        if call.grant is not None and call.grant.jti != renewed.jti:
            raise GrantRefused("replayed", "another grant of the call has taken its place")
        call.grant = renewed
        return renewed.token

    def _renewed(self, call: RoutedCall, token: str | None, spoken: Sequence[SpokenUnder]) -> VoiceGrant:
        grant = call.grant
        if token is not None:
            verifier = GrantVerifier.load(self._office.public_keys_path)
            last = verifier.verify(token, call_id=call.call_id)
            if grant is None and not call.route.is_spoken_by(last.scope):
                raise GrantRefused("scope", f"the grant is for {last.scope}, not for {call.route.name}")
            if grant is not None and last.jti != grant.jti:
                raise GrantRefused("replayed", "another grant of the call has taken its place")
            grant = grant or last
        if grant is None:
            raise GrantRefused("none", "the call has no grant")
        self._usage.spoke(spoken)
        return self._office.renew(grant)

    async def ended(
        self,
        call_id: str,
        how: CallEnding,
        spoken: Sequence[SpokenUnder] = (),
        at: float | None = None,
        sounded: float | None = None,
    ) -> CallEnding:
        """The call is over, now or since `at` (seconds since the epoch); a second word of it changes nothing.

        `spoken` is what was said under its grants, as far as a hall has told, `sounded` how it
        sounded, the worse way's MOS. Returns how the call ended, as its row says.
        """
        self.calls.pop(call_id, None)
        stands = await self._close_row(call_id, how, at, sounded)
        await asyncio.to_thread(self._usage.over, call_id, spoken)
        return stands

    async def note_left_over(self) -> None:
        """Has the ledger learn what was said in calls that are over, where somebody died before it could."""
        await asyncio.to_thread(self._usage.left_over, self.gateways)

    def adopt(self, calls: tuple[LiveCall, ...], hall: str) -> None:
        """Running calls that a hall tells a restarted front about."""
        for call in calls:
            began = time.monotonic() - max(0.0, time.time() - call.at)
            plan = self._plans.get(call.plan)
            routes = () if plan is None else plan.routes
            begun = next((route for route in routes if route.name == call.begun), None)
            if begun is None:  # a plan of long ago: it follows what both have
                plan = None
            known = RoutedCall(
                call.call_id, hall, call.route, None, call.at, begun=begun, plan=plan, began=began
            )
            self.calls.setdefault(call.call_id, known)
