"""The end of calls that their hall does not end: decided here, and said alike to SQL and Redis.

A call's hall decides how it ended, tells Redis and us, and we close its row. Whoever else notices that a call
is over (the edge, a line, the console) tells the hall through `Closing.ended`. When the hall is gone, this
holds, in this order: what the hall told Redis before it went, what the row says already, what its line said,
what anybody else noticed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import Collection
from typing import Final

import structlog
from redis.exceptions import RedisError

from gateway.errors import RpcError, RpcTimeout
from gateway.front.admission.routing import Routing
from gateway.front.house.metrics import Metrics
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.hall_messages import CallClosed, CallRated, EndCall, Health, SpokenUnder
from gateway.store.call_record import CallRecord
from gateway.store.registry import Registry, RegistryError
from gateway.store.sessions import Sessions
from model.tasks import failed

log = structlog.get_logger("front")

SAID_WITHIN_S: Final = 1.0
"""How long a hall may take to say that a call is over, once its line has said so."""
TAKEN_UP_WITHIN_S: Final = 15.0
"""How long a hall that died may take to come back, with the calls that it takes up from Redis."""
REDIS_PAUSES_S: Final = (0.05, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 1.6)
"""How the start waits for Redis, to learn how the calls of the last boot ended."""
REMEMBERED: Final = 1024
UNKNOWN_FOR_S: Final = 30.0
"""How old a call is before its row can be one that was forgotten: by then its hall has it."""


class Closing:
    """See the module. `booted_at`: when this boot began, seconds since the epoch."""

    def __init__(
        self, routing: Routing, registry: Registry, sessions: Sessions, metrics: Metrics, booted_at: float
    ) -> None:
        self._routing = routing
        self._registry = registry
        self._sessions = sessions
        self._metrics = metrics
        self._booted_at = booted_at
        self._settled: deque[str] = deque(maxlen=REMEMBERED)
        """what was said of these may not be in Redis yet"""
        self._line_said: dict[str, CallEnding] = {}
        """what lines said of calls that are not settled yet: a line knows more than the edge"""
        self._closed: deque[str] = deque(maxlen=REMEMBERED)
        """those that a hall closed, the newest"""
        self._sounded: OrderedDict[str, float] = OrderedDict()
        """how calls sounded, the worse way's MOS, until they are over"""

    def rated(self, rated: CallRated) -> None:
        """How the caller's sound was on the whole; a hall tells it just before the call is over."""
        ways = [way.mos for way in (rated.from_caller, rated.to_caller) if way is not None]
        known = [mos for mos in ways if mos is not None]
        if known and not rated.target:
            self._sounded[rated.call_id] = round(min(known), 2)
            while len(self._sounded) > REMEMBERED:
                self._sounded.popitem(last=False)

    async def closed(self, closed: CallClosed) -> None:
        """A hall says that a call is over."""
        self._closed.append(closed.call_id)
        call = self._routing.calls.get(closed.call_id)
        sounded = self._sounded.pop(closed.call_id, None)
        await self._routing.ended(closed.call_id, closed.how, closed.spoken, sounded=sounded)
        self._metrics.call_ended(closed.how, call.lasted_s if call else None)

    async def ended(self, call_id: str, how: CallEnding) -> None:
        """Somebody outside the hall says that a call is over, or is to be; a hall that has it decides."""
        routed = self._routing.calls.get(call_id)
        hall = self._routing.halls.get(routed.hall) if routed is not None else None
        if hall is not None:
            try:
                await hall.ask(EndCall(call_id, how))
            except RpcTimeout:
                log.warning("hall.slow", call_id=call_id, how=how)  # it has the call still, and hears of it
            except RpcError:  # the call ended there just now, or never came there
                await self._unless_said(call_id, how)
        elif routed is not None:
            await self._settle(call_id, how)
        else:
            await self._unless_said(call_id, how)

    async def left(self, call_id: str, how: CallEnding) -> None:
        """A line has the call no more; its hall was told too, if there is one, and says so first."""
        self._line_said[call_id] = how
        await self._unless_said(call_id, how)
        self._line_said.pop(call_id, None)

    async def _unless_said(self, call_id: str, how: CallEnding) -> None:
        """Settles a call, unless a hall has it, or says by itself that it is over."""
        await asyncio.sleep(SAID_WITHIN_S)
        if call_id in self._closed:
            return
        routed = self._routing.calls.get(call_id)
        for hall in [routed.hall] if routed is not None else list(self._routing.halls):
            if await self._has(hall, call_id):
                return
        await self._settle(call_id, how)

    async def hall_lost(self, hall: str) -> None:
        """A hall died; of its calls those are over that nobody took up."""
        had = [call.call_id for call in self._routing.calls.values() if call.hall == hall]
        if had:
            await asyncio.sleep(TAKEN_UP_WITHIN_S)
            for call_id in had:
                if call_id in self._routing.calls and not await self._has(hall, call_id):
                    await self._settle(call_id, CallEnding(End.HALL_DIED))

    async def last_boot(self) -> None:
        """Before the first call: what ran when the gateway died is over, in both stores at once."""
        for pause_s in REDIS_PAUSES_S:
            if await self._sessions.ready():
                break
            await asyncio.sleep(pause_s)
        await self._forgotten(self._booted_at)
        await self._contradicted(self._booted_at)
        await self._routing.note_left_over()

    async def tidy(self, halls: int) -> None:
        """Sessions and rows that nobody refreshes or closes any more; called now and then.

        `halls`: how many there should be. As long as one is missing, its calls may live.
        """
        before = time.time() - UNKNOWN_FOR_S
        living: set[str] | None = None
        with contextlib.suppress(RpcError):
            answers = [await hall.ask(Health()) for hall in list(self._routing.halls.values())]
            if len(answers) == halls:
                living = {call.call_id for hall in answers for call in hall.calls}
        with contextlib.suppress(RedisError, OSError):
            for call_id in await self._sessions.stale():
                # one that a hall has was not refreshed: Redis was away, or the clock was set forward
                if call_id not in (self._routing.calls if living is None else living):
                    await self._settle_one(call_id, CallEnding(End.HALL_DIED))
        if living is not None:
            await self._forgotten(before, living)
        await self._contradicted(before)
        await self._routing.note_left_over()

    async def _forgotten(self, before: float, living: Collection[str] = ()) -> None:
        """Rows without an end whose call no hall has: a front or a gateway died before it closed them."""
        try:
            rows = await asyncio.to_thread(self._registry.open_calls, self._routing.gateways, before)
        except RegistryError as error:
            log.error("registry.not_read", error=str(error))
            return
        for call_id, started_at in rows:
            if call_id not in self._routing.calls and call_id not in living:
                end = End.GATEWAY_DIED if started_at < self._booted_at else End.HALL_DIED
                await self._settle_one(call_id, CallEnding(end))

    async def _contradicted(self, before: float) -> None:
        """Sessions that live although their row is closed: the hall could not say so to Redis."""
        try:
            living = await self._sessions.begun_before(before)
            over = await asyncio.to_thread(self._registry.closed_among, living, before)
        except (RedisError, OSError, RegistryError):
            return
        for call_id, how in over.items():
            await self._settle_one(call_id, CallEnding.read(how))

    async def _settle_one(self, call_id: str, how: CallEnding) -> None:
        """Settles one of many, late; whatever Redis says of it delays no other."""
        try:
            await self._settle(call_id, how, late=True)
        except Exception as error:
            failed("front.settle", error, call_id=call_id)

    async def _settle(self, call_id: str, how: CallEnding, *, late: bool = False) -> None:
        """Says in both stores how a call ended that no hall has; once.

        `late`: not now, but when it was last known to live.
        """
        if call_id in self._settled:
            return
        self._settled.append(call_id)
        how = self._line_said.get(call_id, how)
        record: CallRecord | None = None
        seen_at = None
        spoken: tuple[SpokenUnder, ...] = ()
        reached = False
        with contextlib.suppress(RedisError, OSError):
            record = await self._sessions.get(call_id)
            seen_at = await self._sessions.last_seen(call_id)
            reached = True
        over = record is not None and record.state == "ended"
        at = seen_at if late and seen_at is not None else time.time()
        if record is not None and over:
            how = CallEnding.read(record.facts.get("how", how))
            at = record.number("ended_at") or at
            spoken = tuple(SpokenUnder(jti, seconds) for jti, seconds in record.spoken.items())
        routed = self._routing.calls.get(call_id)
        sounded = self._sounded.pop(call_id, None)
        if record is not None and sounded is None:
            known = [mos for way in ("mos", "far_mos") if (mos := record.number(way)) is not None]
            sounded = min(known, default=None)
        stands = await self._routing.ended(call_id, how, spoken, at, sounded)
        # of a call that was taken, Redis hears even when its hall died before it could say anything of it
        if not over and (record is not None or not reached or routed is not None):
            self._sessions.session(call_id).ended(stands, at=at)
        if routed is not None:
            self._metrics.call_ended(stands, routed.lasted_s)
        if routed is not None or not over:
            log.warning("call.ended", call_id=call_id, how=stands, said_by="front")

    async def _has(self, hall: str, call_id: str) -> bool:
        """Whether a hall has a call; it may have it when it does not say."""
        peer = self._routing.halls.get(hall)
        if peer is None:
            return False
        try:
            return any(call.call_id == call_id for call in (await peer.ask(Health())).calls)
        except RpcError:
            return True
