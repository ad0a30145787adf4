"""The front: one per host. The edge (SIP), HTTP and the page, and every decision about who may do what.

It holds the SQL side (registry, ledger, voices) and no sound. Lines and supervisor connect to it, it
connects to the halls. When it dies, calls go on; when it is back it learns from lines and halls what lives.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from types import CoroutineType
from typing import Any, Final

import structlog
from prometheus_client.core import Metric
from redis.exceptions import RedisError

from consent.grants.grant import GrantVerifier
from consent.grants.revocation_desk import RevocationDesk
from consent.service.front_office import FrontOffice
from gateway.config.paths import recordings_dir, redis_url_for, trunks_out_path, trunks_path
from gateway.config.runtime import Runtime
from gateway.config.settings import Settings
from gateway.dialplan import Dialplan
from gateway.edge.proxy.lines import LineInfo
from gateway.edge.sip_proxy import Edge
from gateway.edge.trunks.trunk_file import read_trunks
from gateway.errors import CallRefused, RpcError
from gateway.front.admission.routing import Routing
from gateway.front.admission.trunks_out import TrunksOut
from gateway.front.calls.call_ladder import CallLadder
from gateway.front.calls.call_list import CallList, CallsWanted, ListedCalls
from gateway.front.calls.call_log import CallLog
from gateway.front.calls.closing import Closing
from gateway.front.calls.connected_lines import ConnectedLines
from gateway.front.calls.edge_router import EdgeRouter
from gateway.front.calls.hall_reports import HallReports
from gateway.front.calls.house_report import HouseReport, HouseShown
from gateway.front.calls.kept_recordings import KeptRecordings
from gateway.front.calls.refusals import Refusals
from gateway.front.calls.refused_list import ListedRefusals, RefusalList
from gateway.front.calls.web_calls import ConnectedWebLine, WebCalls
from gateway.front.events.event_desk import EventDesk
from gateway.front.halls.grant_desk import GrantDesk
from gateway.front.halls.grant_door import GrantDoor
from gateway.front.halls.hall_choice import HallChoice
from gateway.front.halls.hall_news import HallNews
from gateway.front.halls.hall_peers import Halls
from gateway.front.halls.headroom import Headroom
from gateway.front.halls.reload import Reload
from gateway.front.halls.voice_desk import VoiceDesk
from gateway.front.house.binding_shelf import KeptBindings
from gateway.front.house.certificate_watch import CertificateWatch
from gateway.front.house.edge_rules import edge_rules
from gateway.front.house.hep import HepSender, hep_sender
from gateway.front.house.house_probes import HouseProbes
from gateway.front.house.ledger_watch import LedgerWatch
from gateway.front.house.metrics import Metrics
from gateway.front.house.registry_seal import RegistrySeal
from gateway.front.house.resident_memory import resident
from gateway.front.house.signing_certificates import signed_calls
from gateway.front.http.event_feed import EventFeed
from gateway.front.http.sip_socket import Receive, Send
from gateway.front.http.speech_statement import SpeechStatements
from gateway.ipc.binding import Binding
from gateway.ipc.call_facts import CallFacts
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.front_messages import (
    AskState,
    AskTelephones,
    AskWithdrawn,
    FetchVoice,
    HouseState,
    RedeemGrant,
    Reloaded,
    ReloadHouse,
    Telephones,
    TelephoneState,
)
from gateway.ipc.hall_messages import CallClosed, Drain, Health, SteerCall, Steering
from gateway.ipc.line_messages import AskFailures, CallLeft, IceReply
from gateway.ipc.readiness import PartState
from gateway.ipc.rpc import Peer, Server
from gateway.store.append_log import AppendLog
from gateway.store.call_search import CallSearch
from gateway.store.redeemed_grants import RedeemedGrants
from gateway.store.refused_calls import RefusedCalls
from gateway.store.registry import Registry, RegistryError
from gateway.store.sessions import Sessions
from gateway.store.sip_bindings import SipBindings
from gateway.store.sip_users import SipUsers
from model.tasks import Tasks, failures

log = structlog.get_logger("front")

REAP_S: Final = 15.0


@dataclass
class Front:
    """The front's seams: the app's `Gateway`, and the RPC of lines, halls, engine."""

    settings: Settings
    runtime: Runtime
    token: str
    routing: Routing
    office: FrontOffice
    registry: Registry
    sessions: Sessions
    metrics: Metrics
    edge: Edge = field(init=False)
    voices: VoiceDesk = field(init=False)
    grant_door: GrantDoor = field(init=False)
    revocations: RevocationDesk = field(init=False)
    hall_news: HallNews = field(init=False)
    closing: Closing = field(init=False)
    halls: HallChoice = field(init=False)
    refusals: Refusals = field(init=False)
    seal: RegistrySeal = field(init=False)
    web: WebCalls = field(init=False)
    trunks: TrunksOut = field(init=False)
    feed: EventFeed = field(init=False)
    _events: EventDesk = field(init=False)
    certificate: CertificateWatch = field(init=False)
    lines: ConnectedLines = field(init=False)
    reload: Reload = field(init=False)
    _halls: Halls = field(init=False)
    _call_list: CallList = field(init=False)
    _statements: SpeechStatements = field(init=False)
    _headroom: Headroom = field(init=False)
    _grants: GrantDesk = field(init=False)
    _reports: HallReports = field(init=False)
    _recordings: KeptRecordings = field(init=False)
    _ledger_watch: LedgerWatch = field(init=False)
    _append_log: AppendLog | None = field(init=False)
    _bindings: KeptBindings = field(init=False)
    _hep: HepSender | None = field(init=False)
    ladder: CallLadder = field(init=False)
    _call_log: CallLog = field(init=False)
    _report: HouseReport = field(init=False)
    _tasks: Tasks = field(default_factory=Tasks)

    def __post_init__(self) -> None:
        conf = self.settings
        self.voices = VoiceDesk(self.office)
        self._call_list = CallList(self.registry, self.sessions)
        self.grant_door = GrantDoor(RedeemedGrants(self.registry), self.office.public_keys_path)
        self.seal = RegistrySeal(self.registry, self.office)
        self._events = EventDesk(
            conf, self.sessions, self.registry, self.metrics.alarm, lambda: self.routing.dialplan
        )
        self.feed = EventFeed(self._events.shelf, self._events.intake.bell)
        self.refusals = Refusals(RefusedCalls(self.registry), self.metrics, self._events.intake.refused)
        self.closing = Closing(
            self.routing, self.registry, self.sessions, self.metrics, self.runtime.booted_at()
        )
        self._statements = SpeechStatements(
            self.office, self.registry, self.routing.plan_of, conf, self.routing.mark_key.id
        )
        self._headroom = Headroom(conf.time_bounds)
        self.halls = HallChoice(
            self.routing,
            self._headroom,
            lambda: self.edge.held_by_halls(),
            lambda: self.web.held_by_halls(),
        )
        self.web = WebCalls(self.routing, self.closing, self.halls, self._statements.of)
        self.lines = ConnectedLines(conf, self.web.lines)
        self._grants = GrantDesk(self.routing, self.office)
        self._reports = HallReports(self.metrics, self._headroom, self.closing)
        self._recordings = KeptRecordings(recordings_dir(conf), conf.recordings_s, self.office)
        self._ledger_watch = LedgerWatch(self.office, self.metrics)
        self.revocations = RevocationDesk(
            redis_url_for(conf, self.runtime),
            self.office.withdrawn,
            GrantVerifier.load(self.office.public_keys_path),
            self.sessions.watch,
        )
        # an operator's own Redis keeps its file as its operator wants
        self._append_log = AppendLog(redis_url_for(conf, self.runtime)) if conf.redis_url is None else None
        self.hall_news = HallNews(
            self.revocations, self.routing.halls, conf.halls, lambda kind: self.metrics.alarm(kind)
        )
        self.certificate = CertificateWatch(conf)
        self._bindings = KeptBindings(SipBindings(self.registry, self.routing.gateways))
        self._hep = hep_sender(conf.hep, lambda *peer: self.edge.own_end(*peer), self.metrics.hep)
        self.ladder = CallLadder(self.sessions, self._hep)
        self._call_log = CallLog(self.sessions, self.runtime.log)
        users, trunks = SipUsers(conf.data_dir), read_trunks(trunks_path(conf))
        if conf.digest:
            users.first()
        self.trunks = TrunksOut(trunks_out_path(conf), lambda: self.edge.trunks.state())
        self.edge = Edge(
            edge_rules(
                conf,
                self.runtime,
                self.token,
                self.certificate,
                users,
                mark_key=self.routing.mark_key.id,
                signed=signed_calls(conf, self._spawn, self.certificate.look_too),
                of_trunk=lambda name: self.edge.trunks.sound_rule(name),
                on_wire=self.ladder.seen,
            ),
            EdgeRouter(
                self.routing, self.halls, self.web, self.refusals, self.closing, users.role, self.trunks
            ),
            self._spawn,
            self._bindings,
            trunks,
        )
        self.certificate.look_too(self.edge.trunks.look)
        self._probes = HouseProbes(
            conf.halls,
            self.routing.halls,
            self.office.usable,
            self.registry.ready,
            self.sessions.asked_ready,
        )
        self._report = HouseReport(
            conf, self.runtime, lambda: self.routing.dialplan.version, self.edge, self.web, self._headroom,
            self.certificate, self._events.receivers, self.metrics, RefusedCalls(self.registry),
        )  # fmt: skip
        self.reload = Reload(
            conf,
            self.routing,
            self.office,
            users,
            self.certificate,
            self.edge.trunks.take,
            self._events.receivers.take_webhooks,
            self._plan_changed,
        )
        handlers = [
            CallLeft.handled_by(self._call_left),
            FetchVoice.handled_by(self.voices.fetched),
            RedeemGrant.handled_by(self.grant_door.asked),
            AskWithdrawn.handled_by(self.hall_news.asked),
            AskState.handled_by(self._state_asked),
            AskTelephones.handled_by(self._telephones_asked),
            ReloadHouse.handled_by(self._reload_asked),
            Drain.handled_by(self.drain),
        ]
        self._server = Server(self.runtime.front, self.token, handlers, joined=self._joined, left=self._left)

    async def start(self) -> None:
        await self._call_log.open()
        await self.closing.last_boot()
        if self.edge.registrar is not None:
            self.edge.registrar.load(await self._bindings.load())
        await self.edge.start()
        await self._server.start()
        from_halls = [
            CallClosed.handled_by(self._call_closed),
            *self._reports.for_halls,
            *self._grants.for_halls,
            *self.voices.for_halls,
        ]
        halls = self._halls = Halls(
            self.runtime, self.token, self.routing, self.office, from_halls, self._hall_lost
        )
        for k in range(self.settings.halls):
            self._tasks.lasting(partial(halls.keep, f"hall{k}"), "front.hall")
            self._tasks.lasting(partial(self.hall_news.keep, f"hall{k}"), "front.hall_news")
        self._tasks.lasting(halls.look_after, "front.halls")
        self._tasks.lasting(self.edge.trunks.look_after, "front.trunks")
        if self.edge.qualify is not None:
            self._tasks.lasting(self.edge.qualify.look_after, "front.qualify")
        self._tasks.lasting(self.refusals.run, "front.refusals")
        self._events.start(self._tasks, self.runtime, self._measured)
        self._tasks.lasting(self._bindings.run, "front.bindings")
        self._tasks.lasting(self._reap, "front.reap")
        self._tasks.lasting(self._ledger_watch.run, "front.ledger")
        self._tasks.lasting(self.revocations.run, "front.revocations")
        self._tasks.lasting(self.hall_news.watch, "front.revocations.watch")
        self._tasks.lasting(self.voices.keep_tidy, "front.tidy")
        self._tasks.lasting(self.seal.run, "front.seal")
        self._tasks.lasting(self.certificate.run, "front.certificate")
        if self._hep is not None:
            self._tasks.lasting(self._hep.look_up, "front.hep")
        if self._append_log is not None:
            self._tasks.lasting(self._append_log.keep_short, "front.append_log")

    async def stop(self) -> None:
        await self._tasks.stop()
        await self.edge.stop()
        await self.refusals.write()
        await self._events.close()
        await self.seal.seal()
        await self._server.stop()
        self._call_log.close()
        await self.sessions.close()
        if self._append_log is not None:
            await self._append_log.close()
        self.office.close()

    def _spawn(self, work: CoroutineType[Any, Any, None]) -> None:
        self._tasks.short(work, f"edge.{work.__name__}")

    # ── who comes and goes ───────────────────────────────────────────────────────────────────────────

    def _hall_lost(self, name: str) -> None:
        self.metrics.hall_lost(name)
        self._headroom.lost(name)
        self._tasks.short(self.closing.hall_lost(name), "front.hall_lost")

    async def _reap(self) -> None:
        """Sessions and rows whose hall went away for good are closed; what is too old is deleted."""
        while True:
            await asyncio.sleep(REAP_S)
            if self.edge.registrar is not None:
                await self.edge.registrar.tidy()
            await asyncio.to_thread(self._recordings.delete_old)
            await self.closing.tidy(self.settings.halls)

    async def _joined(self, peer: Peer) -> None:
        line = peer.hello.line
        if line is None:
            return
        calls = tuple(call.call_id for call in line.calls)
        if line.sip_port is None:
            self.web.lines[peer.name] = ConnectedWebLine(peer, line.hall, line.capacity, set(calls))
        else:
            self.lines.sip[peer.name] = peer
            self.edge.line_up(
                LineInfo(peer.name, line.kind, line.sip_port, line.capacity, calls, line.hall, line.process)
            )
        log.info("line.up", line=peer.name, kind=line.kind)

    async def _left(self, peer: Peer) -> None:
        if peer.hello.line is None:
            return
        log.warning("line.down", line=peer.name)
        if self.lines.sip.get(peer.name) is peer:
            del self.lines.sip[peer.name]
            self.edge.line_down(peer.name)
        web = self.web.lines.get(peer.name)
        if web is not None and web.peer is peer:
            del self.web.lines[peer.name]
            for call_id in web.calls:  # its hall noticed too
                self.edge.web_over(call_id)
                self._tasks.short(self.closing.left(call_id, CallEnding(End.LINE_DIED)), "front.left")

    # ── the app's house ──────────────────────────────────────────────────────────────────────────────

    async def place(self, offer_sdp: str, dialled: str, source: str, user_agent: str) -> tuple[str, str]:
        """A browser's call: its id and the SDP answer. Raises `CallRefused`."""
        facts = CallFacts(
            caller="web", called=dialled, display=user_agent[:80], source=source, transport="webrtc"
        )
        return await self.web.place(facts, offer_sdp)

    def offer_refused(self, facts: CallFacts, status: int, reason: str, call_id: str | None) -> None:
        """A browser was told so; `status` is HTTP's."""
        self.refusals.note(facts, status, reason, call_id=call_id)

    async def trickle(self, call_id: str, fragment: str, etag: str) -> IceReply:
        """What a browser PATCHes to its call. Raises `CallRefused`."""
        return await self.web.trickle(call_id, fragment, etag)

    async def hang_up(self, call_id: str, how: End) -> None:
        """Ends a call, for the console or for the caller who placed it over HTTP."""
        routed = self.routing.calls.get(call_id)
        if routed is None:
            raise CallRefused(404, f"no running call {call_id}")
        await self.closing.ended(call_id, CallEnding(how))

    async def steer(self, call_id: str, act: Steering, what: str, by: str) -> None:
        """Has a running conversation do something. Raises `CallRefused`."""
        routed = self.routing.calls.get(call_id)
        hall = self.routing.halls.get(routed.hall) if routed is not None else None
        if routed is None or hall is None:
            raise CallRefused(404, f"no running call {call_id}")
        if act == "transfer" and self.routing.target_of(call_id, what) is None:
            raise CallRefused(409, f"the call's dialplan names no target {what}")
        try:
            await hall.ask(SteerCall(call_id, act, what, by))
        except RpcError as error:
            raise CallRefused(409, str(error)) from None

    async def list_calls(self, wanted: CallsWanted) -> ListedCalls:
        with _stores_needed():
            return await self._call_list.page(wanted)

    async def list_refused(
        self, search: CallSearch, count: int, cursor: str | None, *, counted: bool
    ) -> ListedRefusals:
        with _stores_needed():
            asked = RefusalList(self.registry).page
            return await asyncio.to_thread(asked, search, count, cursor, counted=counted)

    async def show_call(self, call_id: str) -> dict[str, Any] | None:
        with _stores_needed():
            return await self._call_list.one(call_id)

    async def call_course(self, call_id: str) -> dict[str, Any] | None:
        with _stores_needed():
            return await self._call_list.course(call_id)

    async def statement(self, call_id: str) -> dict[str, Any] | None:
        """The signed statement that the call's voice is synthetic, with what it says."""
        return await self._statements.shown(call_id)

    async def prometheus(self) -> bytes:
        await self._measure()
        return self.metrics.expose()

    async def _measured(self) -> list[Metric]:
        await self._measure()
        return self.metrics.families()

    async def _measure(self) -> None:
        """Has the metrics say how all are now."""
        for name, hall in list(self.routing.halls.items()):
            with contextlib.suppress(RpcError):
                self.metrics.hall(name, await hall.ask(Health()))
        for name, line in list(self.web.lines.items()):
            with contextlib.suppress(RpcError):
                counts = await line.peer.ask(AskFailures())
                self.metrics.task_failures(name, counts)
        self.metrics.task_failures("front", failures)
        self.metrics.front(
            calls=len(self.routing.calls), lines=len(self.lines.sip), web_lines=len(self.web.lines),
            web_slots=self.web.slots(),
            edge=self.edge.stats(), feeds=self.hall_news.figures(),
            trunks=self.trunks.states(),
            receivers=self._events.receivers.state(), listeners=self.feed.listening,
        )  # fmt: skip
        self.metrics.memory(resident(self.runtime))

    async def ready(self) -> HouseState:
        """Whether the gateway can take calls, and what the panel shows."""
        found = await self._probes.ask()
        parts: dict[str, PartState] = {
            **found.parts,
            "revocations": self.hall_news.state(),
            **self.lines.states(found.halls),
        }
        busy = self.halls.why_busy()
        registrar = self.edge.registrar
        registered, unreachable = (0, 0) if registrar is None else registrar.count()
        well = all(state == "ready" for state in parts.values())
        return HouseState(
            ready=well and not busy and not self.routing.draining,
            parts=parts,
            busy=busy,
            draining=self.routing.draining,
            calls=sum(len(health.calls) for health in found.halls.values()),
            lines=self.lines.capacity(),
            watermark=f"on, key {self.routing.mark_key.id}",
            voices=found.voices,
            ledger=self.office.ledger.state,
            ledger_doubt=self.office.ledger.doubt,
            office=self.office.readable_by,
            certificate=self.certificate.shown(),
            trunks=self.trunks.states(),
            registered=registered,
            unreachable=unreachable,
        )

    async def house(self) -> HouseShown:
        """How the whole house is, for the console."""
        return await self._report.shown(await self.ready())

    def telephones(self) -> list[tuple[Binding, TelephoneState | None]]:
        """The telephones that are registered, and what is known of each that answers or does not."""
        registrar = self.edge.registrar
        if registrar is None:
            return []
        states = {(one.user, one.key): one for one in registrar.telephones()}
        return [(one, states.get((one.user, one.key))) for one in registrar.known()]

    async def sip_socket(self, transport: str, host: str, port: int, receive: Receive, send: Send) -> None:
        """A browser that speaks SIP, as long as its connection lasts."""
        await self.edge.web_socket(transport, host, port, receive, send)

    # ── what lines, halls and the supervisor say ─────────────────────────────────────────────────────

    async def _call_left(self, peer: Peer, left: CallLeft) -> None:
        self.web.over(left.call_id)
        if peer.name in self.lines.sip:
            self.edge.slot_free(peer.name, left.call_id)
        else:
            self.edge.web_over(left.call_id)
        self._tasks.short(self.closing.left(left.call_id, left.how), "front.left")

    async def _call_closed(self, _: Peer, closed: CallClosed) -> None:
        await self.closing.closed(closed)
        self.web.over(closed.call_id)
        self.edge.web_over(closed.call_id)
        self._tasks.short(self.voices.forget(closed.call_id), "front.forget")

    async def drain(self, _: Peer, __: Drain) -> None:
        """No new calls, here and in the halls."""
        self.routing.drain()
        self.edge.drain()
        for hall in self.routing.halls.values():
            with contextlib.suppress(RpcError):
                await hall.ask(Drain())

    async def _plan_changed(self) -> None:
        await self._halls.send_prompts()

    def plan(self) -> Dialplan:
        """The one in force."""
        return self.routing.dialplan

    async def tried_plan(self) -> str:
        """The version of the plans that lie there now. Raises `DialplanError` when they do not load."""
        return await self.reload.trial()

    def voices_named(self) -> list[str]:
        """The names of the voices that may be used; blocks. Raises `ConsentError`."""
        return sorted(self.office.names())

    async def reloaded(self) -> Reloaded:
        """Dialplans, users, trunks, certificates and webhooks, read anew; what became of each."""
        return await self.reload.everything()

    async def _reload_asked(self, _: Peer, __: ReloadHouse) -> Reloaded:
        return await self.reloaded()

    async def _state_asked(self, _: Peer, __: AskState) -> HouseState:
        return await self.ready()

    async def _telephones_asked(self, _: Peer, __: AskTelephones) -> Telephones:
        registrar = self.edge.registrar
        return Telephones() if registrar is None else Telephones(registrar.telephones())


@contextlib.contextmanager
def _stores_needed() -> Iterator[None]:
    """Whoever asks hears 503 while Redis is away; `RedisWatch` has told the log."""
    try:
        yield
    except (RedisError, OSError):
        raise CallRefused(503, "Redis is away, and nothing else knows of that", retry_after_s=2) from None
    except RegistryError:
        raise CallRefused(503, "the call registry cannot be read", retry_after_s=5) from None
