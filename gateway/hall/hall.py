"""The hall as a process: its doors to the front, the lines, the engine and Redis, and its calls' lives.

The sound goes another way: ticks arrive at `TickServer` and `Floor.turn` answers them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from redis.exceptions import RedisError

from consent.errors import GrantRefused
from consent.grant import GrantVerifier
from consent.revocation import RevocationFeed
from gateway.config.paths import recordings_dir
from gateway.config.runtime import Runtime
from gateway.config.settings import Settings
from gateway.dialplan import Route
from gateway.errors import RpcError
from gateway.hall.audio import FILTER_DELAY_S
from gateway.hall.call import Call, Offer
from gateway.hall.grants import Grants
from gateway.hall.inbox import Dtmf, Transferred
from gateway.hall.perform import perform
from gateway.hall.playout import Playout
from gateway.hall.prompts import Prompts, render
from gateway.hall.speech import FILLER, Speech
from gateway.hall.tick_pass import Floor
from gateway.hall.ticks import TickServer
from gateway.ipc.rpc import Handler, Peer, Server
from gateway.store.sessions import Sessions
from model.client import EngineClient
from model.errors import EngineError
from watermark.keys import MarkKey
from watermark.mark import MARK_DELAY_S
from watermark.selfcheck import SelfCheck, Window

log = structlog.get_logger("hall")

FRONT_WITHIN_S: Final = 5.0
"""How long a call waits for the front after this hall's restart."""

PROMPT_RETRY_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Pauses while the engine loads; all within a grant's life."""


@dataclass
class Hall:
    """One hall process. Every public coroutine named in `handlers` is an RPC method."""

    name: str
    settings: Settings
    runtime: Runtime
    token: str
    floor: Floor
    mark_key: MarkKey
    sessions: Sessions
    engine: EngineClient
    verifier: GrantVerifier
    feed: RevocationFeed
    calls: dict[str, Call] = field(default_factory=dict)
    prompts: Prompts = field(default_factory=Prompts)
    draining: bool = False
    _inspector: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="inspector")
    )
    _front: Peer | None = None
    _front_here: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    _lives: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.floor.check_due = self._look_for_mark
        self.grants = Grants(self.verifier, self.feed, self.ask_front, self.calls)

    async def start(self) -> None:
        handlers: dict[str, Handler] = {
            "call.offered": self.call_offered,
            "call.hangup": self.call_hangup,
            "call.started": self.call_started,
            "call.confirmed": self.call_confirmed,
            "call.dtmf": self.call_dtmf,
            "call.hold": self.call_hold,
            "call.transferred": self.call_transferred,
            "call.rtp_moved": self.call_rtp_moved,
            "call.ended": self.call_ended,
            "prompts": self.render_prompts,
            "drain": self.drain,
            "health": self.health,
        }
        self._server = Server(
            self.runtime.hall(self.name), self.token, handlers, joined=self._joined, left=self._left
        )
        self._ticks = TickServer(self.runtime.ticks(self.name), self.token, self.floor.turn)
        await self._ticks.start()
        await self._server.start()
        self._spawn(self.feed.run(self.grants.revoked))

    async def stop(self) -> None:
        for call in list(self.calls.values()):
            call.end("failed: the gateway stops")
        await asyncio.wait([*self._lives, asyncio.ensure_future(asyncio.sleep(0))], timeout=3.0)
        for task in list(self._tasks):
            task.cancel()
        await self._server.stop()
        await self._ticks.stop()
        await self.sessions.close()
        self._inspector.shutdown(wait=False, cancel_futures=True)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ── who comes and goes ───────────────────────────────────────────────────────────────────────────

    async def _joined(self, peer: Peer) -> None:
        log.info("peer.joined", role=peer.hello.get("role"), name=peer.name)
        if peer.hello.get("role") == "front":
            self._front = peer
            self._front_here.set()

    async def _left(self, peer: Peer) -> None:
        log.info("peer.left", role=peer.hello.get("role"), name=peer.name)
        if peer is self._front:
            self._front = None
            self._front_here.clear()
        for call in [call for call in self.calls.values() if call.line is peer]:
            call.end("failed: its line died")

    def tell_front(self, event: str, **params: Any) -> None:
        if self._front is not None:
            self._front.tell(event, **params)

    async def ask_front(self, method: str, timeout_s: float = 2.0, **params: Any) -> Any:
        """Raises `RpcError` when it refuses, or is away."""
        if self._front is None:
            raise RpcError("the front is away")
        return await self._front.ask(method, timeout_s, **params)

    # ── the front asks ───────────────────────────────────────────────────────────────────────────────

    async def call_offered(self, _: Peer, **params: Any) -> dict[str, Any]:
        """Takes a call, or refuses it by raising `RpcError`. See `Offer` for the params."""
        if self.draining:
            raise RpcError("the hall is draining")
        self._admit(params, resumed=False)
        return {}

    def _admit(self, params: dict[str, Any], *, resumed: bool) -> Call:
        offer = _offer(params)
        if offer.call_id in self.calls:
            raise RpcError(f"call {offer.call_id} is here already")
        row = self.floor.take_row()
        if row is None:
            raise RpcError("the hall is full")
        playout = Playout(MARK_DELAY_S + FILTER_DELAY_S)
        session = self.sessions.session(offer.call_id)
        call = Call(
            offer=offer,
            row=row,
            playout=playout,
            speech=Speech(offer.call_id, self.engine, playout, self.prompts, self.settings.lead_s),
            session=session,
            tell_front=self.tell_front,
            ask_front=self.ask_front,
            aim=lambda gain: self.floor.aim(call, gain),
            recordings=recordings_dir(self.settings),
            resumed=resumed,
        )
        try:
            call.mark_slot = self.floor.bank.open(offer.payload)
            call.check = SelfCheck(self.mark_key, offer.payload)
        except Exception:
            self.floor.leave(call)
            raise
        self.calls[offer.call_id] = call
        call.speech.remember = session.remember
        call.speech.said = call.said
        if resumed:
            session.resumed()
        else:
            kept = {key: value for key, value in params.items() if key != "grant"}  # the grant is a secret
            session.opened(offer=kept, **_facts(offer))
        life = asyncio.create_task(self._live(call))
        self._lives.add(life)
        life.add_done_callback(self._lives.discard)
        return call

    async def call_hangup(self, _: Peer, call_id: str, reason: str) -> None:
        call = self._call(call_id)
        call.end(reason)

    async def render_prompts(self, _: Peer, grant: str, texts: list[str]) -> None:
        """Has the engine render texts that must be there when it is not."""
        self._spawn(self._render([FILLER, *texts], grant))

    async def _render(self, texts: list[str], grant: str) -> None:
        for pause_s in PROMPT_RETRY_S:
            missing = self.prompts.missing(texts)
            if not missing:
                return
            try:
                await render(self.engine, grant, missing, self.prompts)
            except EngineError as error:
                log.info("prompts.waiting", error=str(error), missing=len(missing))
                await asyncio.sleep(pause_s)
        log.error("prompts.failed", missing=self.prompts.missing(texts))

    async def drain(self, _: Peer) -> None:
        self.draining = True

    async def health(self, _: Peer) -> dict[str, Any]:
        return {
            "calls": [
                {"call_id": c.id, "route": c.route.to_json(), "at": c.offer.at, "state": c.state}
                for c in self.calls.values()
            ],
            "engine": await self.engine.ready(),
            "redis": await self.sessions.ready(),
            "counters": self.floor.snapshot(),
            "sessions": self.sessions.counters(),
            "lines": sorted(peer.name for peer in self._server.peers if peer.hello.get("role") == "line"),
        }

    # ── the lines tell ───────────────────────────────────────────────────────────────────────────────

    def _call(self, call_id: str) -> Call:
        call = self.calls.get(call_id)
        if call is None:
            raise RpcError(f"no call {call_id} here")
        return call

    async def call_started(
        self,
        line: Peer,
        call_id: str,
        call: int,
        slot: int,
        codec: str | None,
        resumed: bool,
        confirmed: bool,
    ) -> None:
        """A line has the call. After a hall's death the line tells again, `resumed`: taken up from Redis."""
        known = self.calls.get(call_id)
        if known is None and resumed:
            known = await self._resume(call_id)
        if known is None or known.ended.is_set():
            log.warning("call.unknown", call_id=call_id, line=line.name)
            await line.ask("hangup", call_id=call_id, status=480)
            return
        known.line = line
        if known.route.keep.caller_audio:
            known.speech.line_hz = int(line.hello["rate_hz"])
        self.floor.seat(known, line.name, call, int(line.hello["rate_hz"]))
        known.session.event("line", line=line.name, slot=slot, codec=codec)
        known.started.set()
        if confirmed and not known.confirmed.is_set():
            known.state = "confirmed"
            known.last_sound = time.monotonic()
            known.confirmed.set()

    async def _resume(self, call_id: str) -> Call | None:
        """A call of the hall that died here before, from what Redis remembers."""
        try:
            record = await self.sessions.get(call_id)
            if record is None or "offer" not in record.facts:
                log.warning("call.not_remembered", call_id=call_id)
                return None
            history = await self.sessions.history(call_id)
            kept = json.loads(record.facts["offer"])
            async with asyncio.timeout(FRONT_WITHIN_S):  # the lines are often back before the front is
                await self._front_here.wait()
            kept["grant"] = await self.grants.renewed(call_id, None)
            if call_id in self.calls:  # its line told twice
                return self.calls[call_id]
            call = self._admit(kept, resumed=True)
            call.disclosed = json.loads(record.facts.get("disclosed", "[]"))
            call.speech.restore(history)
            call.log.info("call.resumed", remembered=len(history))
            return call
        except (RpcError, GrantRefused, RedisError, OSError, ValueError, LookupError, TypeError) as error:
            reason = "the front is away" if isinstance(error, TimeoutError) else str(error)
            log.warning("call.not_resumed", call_id=call_id, error=reason)
            return None

    async def call_confirmed(self, _: Peer, call_id: str, codec: str | None, at: float) -> None:
        call = self._call(call_id)
        if not call.confirmed.is_set():
            call.session.event("confirmed", codec=codec)
            call.last_sound = time.monotonic()
            call.confirmed.set()
            call.move("confirmed")

    async def call_dtmf(self, _: Peer, call_id: str, digit: str, duration_ms: int) -> None:
        self._call(call_id).post(Dtmf(digit))

    async def call_hold(self, _: Peer, call_id: str, sending: bool, receiving: bool) -> None:
        call = self._call(call_id)
        call.forget_turn()
        call.last_sound = time.monotonic()
        call.session.event("hold", sending=sending, receiving=receiving)
        call.show(kind="state", state="listening" if sending else "held")

    async def call_transferred(self, _: Peer, call_id: str, status: int, reason: str) -> None:
        self._call(call_id).post(Transferred(status, reason))

    async def call_rtp_moved(self, _: Peer, call_id: str, was: str, now: str) -> None:
        """Sound comes from elsewhere all at once: a phone that moved, or somebody else's."""
        call = self._call(call_id)
        call.log.warning("rtp.moved", was=was, now=now)
        call.session.event("rtp_moved", was=was, now=now)
        self.tell_front("call.event", call_id=call_id, kind="rtp_moved")

    async def call_ended(self, _: Peer, call_id: str, how: str) -> None:
        self._call(call_id).end(how)

    # ── a call's life ────────────────────────────────────────────────────────────────────────────────

    async def _live(self, call: Call) -> None:
        self.grants.use(call, call.offer.grant)
        performing = asyncio.create_task(perform(call))
        work = [
            performing,
            asyncio.create_task(call.speech.run(lambda: call.token, call.post)),
            asyncio.create_task(self.grants.keep(call)),
            asyncio.create_task(self._limit(call)),
        ]
        try:
            await call.ended.wait()
            await self._hang_up(call)
            await asyncio.wait((performing,), timeout=1.0)
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            self.floor.leave(call)
            self.calls.pop(call.id, None)
            spoken_s = round(call.spoken_samples / 24_000, 2)
            call.session.ended(call.how, spoken_s=spoken_s, underruns=call.underruns)
            self.tell_front("call.event", call_id=call.id, kind="ended", how=call.how, spoken_s=spoken_s)
            call.log.info("call.ended", how=call.how, spoken_s=spoken_s, underruns=call.underruns)

    async def _hang_up(self, call: Call) -> None:
        if call.line is not None and not call.line.closed.is_set():
            with contextlib.suppress(RpcError):
                await call.line.ask("hangup", call_id=call.id)

    async def _limit(self, call: Call) -> None:
        await call.confirmed.wait()
        before_s = max(0.0, time.time() - call.offer.at) if call.resumed else 0.0
        await asyncio.sleep(max(0.0, self.settings.max_call_s - before_s))
        call.end("hung up: the longest duration was reached")

    def _look_for_mark(self, call: Call) -> None:
        """What the call was just sent, through a modelled telephone line, must carry its mark."""
        if call.check is not None:
            self._spawn(self._judge(call, call.check.take()))

    async def _judge(self, call: Call, sent: Window) -> None:
        verdict = await asyncio.get_running_loop().run_in_executor(self._inspector, sent.verdict)
        self.floor.counters.marks_checked += 1
        if not verdict.detected:
            call.log.error("mark.not_found", p_value=verdict.p_value, score=round(verdict.score, 1))
            call.mute("no mark")


def _offer(params: dict[str, Any]) -> Offer:
    """An `Offer` from what the front sent (or Redis kept)."""
    rest = {key: value for key, value in params.items() if key != "routes"}
    routes = [Route.from_json(route) for route in params["routes"]]
    return Offer(routes={route.name: route for route in routes}, first=routes[0].name, **rest)


def _facts(offer: Offer) -> dict[str, Any]:
    """What the session tells an operator of the call."""
    return {
        "caller": offer.caller,
        "called": offer.called,
        "source": offer.source,
        "transport": offer.transport,
        "route": offer.route.name,
        "voice": offer.route.voice,
        "grant_refused": offer.grant_refused,
    }
