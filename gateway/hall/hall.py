"""The hall as a process: its doors to the front, the lines, the engine and Redis, and its calls' lives.

The sound goes another way: ticks arrive at `TickServer` and `Floor.turn` answers them.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import structlog

from consent.grants.grant import GrantVerifier
from consent.grants.revocation_feed import RevocationFeed
from gateway.config.paths import dialplan_dir, recordings_dir
from gateway.config.runtime import Runtime
from gateway.config.settings import Settings
from gateway.dialplan import Disclosure
from gateway.errors import RpcError
from gateway.hall.calls.call import Call
from gateway.hall.calls.call_maker import CallMaker, Past
from gateway.hall.calls.load_gauge import EVERY_S, LoadGauge
from gateway.hall.calls.quality_desk import QualityDesk
from gateway.hall.calls.seat import Seat
from gateway.hall.calls.tick_pass import Floor
from gateway.hall.calls.ticks import TickServer
from gateway.hall.dialogue.memory import is_message
from gateway.hall.dialogue.prompts import Prompts, render_all
from gateway.hall.dialogue.recorded_sounds import RecordedSounds
from gateway.hall.dialogue.scribe import Scribe
from gateway.hall.dialogue.speech import FILLER
from gateway.hall.grants import Grants
from gateway.hall.media.audio import HOUSE_HZ
from gateway.hall.parts.clocks import Clocks
from gateway.hall.parts.inbox import Steered, TargetHeard, Transferred
from gateway.hall.verbs.perform import perform
from gateway.hall.withdrawn import Withdrawn
from gateway.ipc.codec import from_json, to_json
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.envelope import A, Ask, Tell
from gateway.ipc.hall_messages import (
    CallClosed,
    CallOffer,
    Drain,
    EndCall,
    HallHealth,
    Health,
    RenderPrompts,
    SteerCall,
    VoicesWithdrawn,
)
from gateway.ipc.line_messages import (
    CallConfirmed,
    CallLeft,
    CallStarted,
    DropCall,
    KeyPressed,
    LineQuality,
    MediaTurned,
    RtpMoved,
    TargetRings,
    TransferOutcome,
)
from gateway.ipc.readiness import Probe
from gateway.ipc.rpc import Peer, Server
from gateway.store.call_events import ConsentRefused
from gateway.store.sessions import Sessions
from model.client import EngineClient
from model.ears.ears_client import Ears
from model.tasks import Tasks, failures

log = structlog.get_logger("hall")

SURELY_LATER_S: Final = 1.0
"""A call that is taken up is marked from so much later on than its age says: its line's clock is not ours."""

FRONT_WITHIN_S: Final = 5.0
"""How long a call waits for the front after this hall's restart."""

HEALTH_S: Final = 0.6
"""Within this a hall says how it is: a part that says nothing for as long is slow."""


@dataclass
class Hall:
    """One hall process."""

    name: str
    settings: Settings
    runtime: Runtime
    token: str
    floor: Floor
    sessions: Sessions
    engine: EngineClient
    verifier: GrantVerifier
    feed: RevocationFeed
    clocks: Clocks = time
    ears: Ears | None = None
    calls: dict[str, Call] = field(default_factory=dict)
    prompts: Prompts = field(default_factory=Prompts)
    scribe: Scribe = field(default_factory=Scribe)
    draining: bool = False
    _front: Peer | None = None
    _front_here: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: Tasks = field(default_factory=Tasks)
    _lives: Tasks = field(default_factory=Tasks)
    _rendering: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.grants = Grants(self.verifier, self.feed, self.ask_front, self.calls, self.clocks)
        self.recorded = RecordedSounds(partial(dialplan_dir, self.settings))
        self.withdrawn = Withdrawn(self.feed, self.grants.revoked)
        self.quality = QualityDesk(self.calls, self.sessions, self.tell_front, self.clocks)
        handlers = [
            CallOffer.handled_by(self.call_offered),
            EndCall.handled_by(self.end_call),
            SteerCall.handled_by(self.steer_call),
            CallStarted.handled_by(self.call_started),
            CallConfirmed.handled_by(self.call_confirmed),
            KeyPressed.handled_by(self.key_pressed),
            MediaTurned.handled_by(self.media_turned),
            TransferOutcome.handled_by(self.transfer_outcome),
            TargetRings.handled_by(self.target_rings),
            RtpMoved.handled_by(self.quality.moved),
            LineQuality.handled_by(self.quality.told),
            CallLeft.handled_by(self.call_left),
            RenderPrompts.handled_by(self.render_prompts),
            VoicesWithdrawn.handled_by(self.withdrawn.told),
            Drain.handled_by(self.drain),
            Health.handled_by(self.health),
        ]
        self._server = Server(
            self.runtime.hall(self.name), self.token, handlers, joined=self._joined, left=self._left
        )
        self._probes = {
            "engine": Probe(self.engine.asked_ready, HEALTH_S, "engine"),
            "redis": Probe(self.sessions.asked_ready, HEALTH_S, "redis"),
        }
        self._ticks = TickServer(
            self.runtime.ticks(self.name), self.token, self.floor.turn, clocks=self.clocks
        )
        self.gauge = LoadGauge(
            self._ticks.times, self.calls, self._hearing_s, self.settings.time_bounds, self.clocks
        )

    async def start(self) -> None:
        await self._ticks.start()
        await self._server.start()
        self._tasks.lasting(self.withdrawn.follow, "hall.revocations")
        self._tasks.lasting(self.withdrawn.watch, "hall.withdrawn")
        self._tasks.lasting(self._tell_load, "hall.load")

    async def stop(self) -> None:
        for call in list(self.calls.values()):
            call.end(CallEnding(End.GATEWAY_STOPPED))
        await self._lives.join(3.0)
        await self._tasks.stop()
        await self.scribe.close()
        await self._server.stop()
        await self._ticks.stop()
        await self.sessions.close()
        self.floor.inspector.close()

    # ── who comes and goes ───────────────────────────────────────────────────────────────────────────

    async def _joined(self, peer: Peer) -> None:
        log.info("peer.joined", role=peer.hello.role, name=peer.name)
        if peer.hello.role == "front":
            self._front = peer
            self._front_here.set()

    async def _left(self, peer: Peer) -> None:
        log.info("peer.left", role=peer.hello.role, name=peer.name)
        if peer is self._front:
            self._front = None
            self._front_here.clear()
        for call in [call for call in self.calls.values() if call.line.is_on(peer)]:
            call.end(CallEnding(End.LINE_DIED))

    def _telephones(self) -> list[Peer]:
        """The lines that can call somebody for a browser's caller: their sound is that of Opus."""
        lines = [(peer, peer.hello.line) for peer in self._server.peers]
        return [peer for peer, line in lines if line is not None and line.kind == "wide"]

    def tell_front(self, message: Tell) -> None:
        if self._front is not None:
            self._front.tell(message)

    async def ask_front(self, message: Ask[A], timeout_s: float = 2.0) -> A:
        """Raises `RpcError` when it refuses, or is away."""
        if self._front is None:
            raise RpcError("the front is away")
        return await self._front.ask(message, timeout_s)

    async def _tell_load(self) -> None:
        """Tells the front what time there is, again and again."""
        while True:
            self.tell_front(self.gauge.look())
            await asyncio.sleep(EVERY_S)

    def _hearing_s(self) -> float:
        return self.ears.wait_s if self.ears is not None else 0.0

    # ── the front asks ───────────────────────────────────────────────────────────────────────────────

    async def call_offered(self, _: Peer, offer: CallOffer) -> None:
        """Takes a call, or refuses it by raising `RpcError`."""
        if self.draining:
            raise RpcError("the hall is draining")
        self._admit(offer, None)

    def _admit(self, offer: CallOffer, past: Past | None) -> Call:
        if offer.call_id in self.calls:
            raise RpcError(f"call {offer.call_id} is here already")
        seat = self.floor.open_seat(
            offer.payload, 0.0 if past is None else self._age_s(offer) + SURELY_LATER_S
        )
        if seat is None:
            raise RpcError("the hall is full")
        call = self.calls[offer.call_id] = self._make(offer, seat, past)
        if past is not None:
            call.session.resumed()
        else:
            facts, route = offer.facts, offer.route
            call.session.opened(
                offer=to_json(CallOffer, replace(offer, grant=None)),  # the grant is a secret
                caller=facts.caller, called=facts.called, source=facts.source, transport=facts.transport,
                route=route.name, plan=offer.plan, voice=route.voice, grant_refused=offer.grant_refused,
                name=facts.display[:128] or None, user=facts.user, headers=facts.headers, trunk=facts.trunk,
            )  # fmt: skip
            if offer.grant_refused:
                refused = ConsentRefused(reason=offer.grant_refused, voice=route.voice, stands_in=True)
                call.session.tell(refused, important=True)
        self._lives.short(self._live(call), "call.live")
        return call

    def _make(self, offer: CallOffer, seat: Seat, past: Past | None) -> Call:
        maker = CallMaker(
            settings=self.settings, sessions=self.sessions, engine=self.engine, prompts=self.prompts,
            scribe=self.scribe, ears=self.ears, first_sounds=self.gauge.first_sounds,
            tell_front=self.tell_front, ask_front=self.ask_front, clocks=self.clocks,
            telephones=self._telephones,
        )  # fmt: skip
        return maker.make(offer, seat, past, partial(self._voice_turned, offer.call_id))

    def _age_s(self, offer: CallOffer) -> float:
        """How long ago a call was offered; what Redis says of that may be anybody's."""
        return min(max(0.0, self.clocks.time() - offer.at), self.settings.max_call_s)

    def _voice_turned(self, call_id: str) -> None:
        """A call's voice began, or is silent again. Its page is told after the ticks under way."""
        asyncio.get_running_loop().call_soon(self._show_state, call_id)

    def _show_state(self, call_id: str) -> None:
        if (call := self.calls.get(call_id)) is not None and not call.inbox.ended.is_set():
            call.show_state()

    async def end_call(self, _: Peer, asked: EndCall) -> None:
        self._call(asked.call_id).end(asked.how)

    async def steer_call(self, _: Peer, asked: SteerCall) -> None:
        """Raises `RpcError` when the call is in no conversation."""
        call = self._call(asked.call_id)
        if not call.inbox.heeds_operator or call.inbox.ended.is_set():
            raise RpcError("the call is in no conversation now")
        call.session.event("steered", act=asked.act, by=asked.by)
        call.log.info("call.steered", act=asked.act, by=asked.by)
        call.inbox.post(Steered(asked.act, asked.what))

    async def render_prompts(self, _: Peer, asked: RenderPrompts) -> None:
        """Has the engine render texts that must be there when it is not."""
        if self._rendering is not None:
            self._rendering.cancel()  # a front that came back asks for them anew
        rendered = render_all(
            self.engine, asked.grant, [FILLER, *asked.texts], self.prompts, self.grants.prompts
        )
        self._rendering = self._tasks.short(rendered, "hall.prompts")

    async def drain(self, _: Peer, __: Drain) -> None:
        self.draining = True

    async def health(self, _: Peer, __: Health) -> HallHealth:
        states = await asyncio.gather(*(probe.state() for probe in self._probes.values()))
        parts = dict(zip(self._probes, states, strict=True))
        return HallHealth(
            calls=tuple(call.live for call in self.calls.values()),
            engine=parts["engine"] == "ready",
            redis=parts["redis"] == "ready",
            slow=tuple(name for name, state in parts.items() if state == "slow"),
            counters=self.floor.snapshot()
            | self.scribe.snapshot()
            | self.gauge.snapshot()
            | {"poor_calls": sum(call.line.quality.poor for call in self.calls.values())},
            sessions=self.sessions.counters(),
            lines=tuple(sorted(peer.name for peer in self._server.peers if peer.hello.role == "line")),
            task_failures=dict(failures),
        )

    # ── the lines tell ───────────────────────────────────────────────────────────────────────────────

    def _call(self, call_id: str) -> Call:
        call = self.calls.get(call_id)
        if call is None:
            raise RpcError(f"no call {call_id} here")
        return call

    async def call_started(self, line: Peer, started: CallStarted) -> None:
        """A line has the call. After a hall's death the line tells again, `resumed`: taken up from Redis."""
        if line.hello.line is None:
            raise RpcError(f"{line.name} is not a line")
        call_id, rate_hz = started.call_id, line.hello.line.rate_hz
        known = self.calls.get(call_id)
        if known is None and started.resumed:
            known = await self._resume(call_id)
        if known is None or known.inbox.ended.is_set():
            log.warning("call.unknown", call_id=call_id, line=line.name)
            how = known.inbox.how if known is not None else CallEnding(End.HALL_DIED)
            await line.ask(DropCall(call_id, 480, how))
            return
        self.floor.seat(known, line.name, started.call, rate_hz)
        known.session.event("line", line=line.name, slot=started.slot, codec=started.codec)
        browser = line.hello.line.kind == "web"
        known.line.start(line, rate_hz, handed_over=started.handed_over, browser=browser)
        if started.confirmed:
            known.was_confirmed()

    async def _resume(self, call_id: str) -> Call | None:
        """A call of the hall that died here before, from what Redis remembers."""
        try:
            record = await self.sessions.get(call_id)
            if record is None or "offer" not in record.facts:
                log.warning("call.not_remembered", call_id=call_id)
                return None
            kept = json.loads(record.facts.get("disclosed", "[]"))
            if not isinstance(kept, list):
                raise ValueError("what Redis keeps of the disclosure is not ours")
            disclosed = [from_json(Disclosure, one, "the disclosure that Redis keeps") for one in kept]
            history = [item for item in await self.sessions.history(call_id) if is_message(item)]
            past = Past(disclosed, history)
            offer = from_json(CallOffer, json.loads(record.facts["offer"]), "the offer that Redis keeps")
            async with asyncio.timeout(FRONT_WITHIN_S):  # the lines are often back before the front is
                await self._front_here.wait()
            offer = offer.resumed_in(record.facts.get("route", offer.route.name))
            found = await self.grants.granted(call_id, offer.route)
            if call_id in self.calls:  # its line told twice
                return self.calls[call_id]
            call = self._admit(replace(offer, grant=found.token, grant_refused=found.refused), past)
            call.log.info("call.resumed", remembered=len(past.history))
            return call
        except Exception as error:  # what Redis says may be anybody's: this call is given up, and no other
            reason = "the front is away" if isinstance(error, TimeoutError) else str(error)
            log.warning("call.not_resumed", call_id=call_id, error=reason)
            return None

    async def call_confirmed(self, _: Peer, confirmed: CallConfirmed) -> None:
        self._call(confirmed.call_id).confirm(confirmed.codec)

    async def key_pressed(self, _: Peer, key: KeyPressed) -> None:
        call = self._call(key.call_id)
        call.press(key.digit, key.way)
        await call.line.press(key.digit)

    async def media_turned(self, _: Peer, turned: MediaTurned) -> None:
        self._call(turned.call_id).hold(sending=turned.sending, receiving=turned.receiving)

    async def transfer_outcome(self, _: Peer, outcome: TransferOutcome) -> None:
        self._call(outcome.call_id).inbox.post(Transferred(outcome.status, outcome.reason))

    async def target_rings(self, _: Peer, rings: TargetRings) -> None:
        self._call(rings.call_id).inbox.post(TargetHeard(rings.status, rings.early))

    async def call_left(self, _: Peer, left: CallLeft) -> None:
        self._call(left.call_id).end(left.how)

    # ── a call's life ────────────────────────────────────────────────────────────────────────────────

    async def _live(self, call: Call) -> None:
        structlog.contextvars.bind_contextvars(call_id=call.id)  # for what is logged by what it is made of
        self.grants.use(call, call.offer.grant)
        work = Tasks()
        performing = work.short(
            perform(call, recordings_dir(self.settings), self.grants.follow, self.recorded), "call.perform"
        )
        fresh = partial(self.grants.fresh, call)
        speaking = call.speech.run(call.licence, call.inbox.post, lambda: call.told, fresh)
        work.short(speaking, "call.speech")
        work.short(self.grants.keep(call), "call.grant")
        work.short(self._limit(call), "call.limit")
        try:
            await call.inbox.ended.wait()
            await call.line.hang_up(call.inbox.how)
            await asyncio.wait((performing,), timeout=1.0)
        finally:
            await work.stop()
            self.floor.leave(call.seat)
            self.calls.pop(call.id, None)
            how, underruns = call.inbox.how, call.seat.underruns
            spoken_s = round(call.seat.spoken_samples / HOUSE_HZ, 2)
            spoken = call.spoken
            seconds = {said.jti: said.seconds for said in spoken}
            call.notes.close(self._lives)
            call.session.ended(how, spoken_s=spoken_s, underruns=underruns, spoken=seconds)
            self.tell_front(CallClosed(call.id, how, spoken))
            call.log.info("call.ended", how=how, spoken_s=spoken_s, underruns=underruns)

    async def _limit(self, call: Call) -> None:
        await call.line.confirmed.wait()
        before_s = self._age_s(call.offer) if call.resumed else 0.0
        await asyncio.sleep(max(0.0, self.settings.max_call_s - before_s))
        call.end(CallEnding(End.LIMIT))
