"""How the whole house is now, for whoever looks after it: the console's page and programs, by one answer.

What it says is what metrics and `/readyz` say, asked of the same parts; nothing is counted here.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from gateway.config.runtime import Runtime
from gateway.config.settings import Settings
from gateway.edge.sip_proxy import Edge
from gateway.front.calls.web_calls import WebCalls
from gateway.front.events.receivers import Receivers
from gateway.front.halls.headroom import HallRoom, Headroom
from gateway.front.house.build_facts import build_facts
from gateway.front.house.certificate_watch import CertificateWatch
from gateway.front.house.metrics import Metrics
from gateway.front.house.process_starts import process_starts, wall_time
from gateway.front.house.resident_memory import resident
from gateway.ipc.front_messages import HouseState
from gateway.ipc.process_lives import ProcessLife, noted_lives
from gateway.ipc.readiness import Probe
from gateway.store.refused_calls import RefusedCalls, RefusedFor

LATELY_S: Final = 3600.0
REASONS: Final = 20
ANSWER_S: Final = 1.0
"""A database or a disk that has not answered by then is told as it answered last."""
STEADY_S: Final = 30.0
"""A process that has lived for so long is not dying again and again."""


@dataclass(frozen=True, slots=True)
class Places:
    """How many calls of one kind there can be, and how many more there can be now."""

    all: int
    free: int


@dataclass(frozen=True, slots=True)
class ProcessShown:
    """One process of the house."""

    name: str
    state: str
    """up, down, or failing: it dies again and again"""
    since: float | None
    """when it was started last; seconds since the epoch"""
    restarts: int | None
    """None: nobody restarts it"""
    memory_bytes: int | None
    error: str = ""
    """why it died last"""


@dataclass(frozen=True, slots=True)
class EngineShown:
    """What speaks."""

    kind: str
    state: str
    model: str
    """as the settings name it; empty: the one that comes with the package"""
    at: tuple[str, ...]
    """where, if it is not in this house; the chat server of a cascade is named too"""


@dataclass(frozen=True, slots=True)
class CertificateShown:
    """A certificate: what TLS shows, or a trunk's own."""

    what: str
    sha256: str
    """empty of a trunk's"""
    ends_at: float | None
    """seconds since the epoch"""


@dataclass(frozen=True, slots=True)
class ReceiverShown:
    """Who is told events."""

    name: str
    waiting: int
    missed: int
    """events that it will never be told, since this front began"""


@dataclass(frozen=True, slots=True)
class HouseShown:
    """All of it. Times are seconds since the epoch."""

    at: float
    ready: bool
    why: tuple[str, ...]
    """why it takes no calls"""
    parts: dict[str, str]
    draining: bool
    plan: str
    """version of the dialplans in force"""
    calls: int
    places: dict[str, Places]
    halls: tuple[HallRoom, ...]
    registered: int
    unreachable: int
    processes: tuple[ProcessShown, ...]
    build: dict[str, str]
    engine: EngineShown
    watermark: str
    ledger: str
    ledger_doubt: str
    office: str
    certificates: tuple[CertificateShown, ...]
    receivers: tuple[ReceiverShown, ...]
    collector: str | None
    """whom OpenTelemetry's traces are told"""
    alarms: dict[str, int]
    refused: tuple[RefusedFor, ...] | None
    """calls that were refused within the last hour; None: the database does not say"""
    disk: Places | None
    """bytes of the file system with the data directory; None: it cannot be asked"""


@dataclass
class HouseReport:
    """What it is asked of. A disk or a database that hangs keeps nothing else from being told."""

    settings: Settings
    runtime: Runtime
    plan: Callable[[], str]
    edge: Edge
    web: WebCalls
    headroom: Headroom
    certificate: CertificateWatch
    receivers: Receivers
    metrics: Metrics
    refused: RefusedCalls

    def __post_init__(self) -> None:
        self._build = build_facts()  # as it was started: a checkout may be another one by now
        self._refused = Probe(partial(asyncio.to_thread, self._refused_for), ANSWER_S, "refused")
        self._trunks = Probe(partial(asyncio.to_thread, self._trunk_certificates), ANSWER_S, "trunks")
        self._disk = Probe(partial(asyncio.to_thread, self._disk_space), ANSWER_S, "disk")

    async def shown(self, state: HouseState) -> HouseShown:
        """The report; `state` is what the front says of itself. Waits `ANSWER_S` at most."""
        edge = self.edge.stats()
        sip, web = Places(edge["slots"], edge["slots_free"]), Places(*self.web.slots())
        processes, *_ = await asyncio.gather(
            asyncio.to_thread(self._processes),
            self._refused.state(),
            self._disk.state(),
            self._trunks.state(),
        )
        return HouseShown(
            at=time.time(),
            ready=state.ready,
            why=tuple(_why(state)),
            parts=dict(state.parts),
            draining=state.draining,
            plan=self.plan(),
            calls=state.calls,
            places={"telephones": sip, "browsers": web},
            halls=self.headroom.rooms(),
            registered=state.registered,
            unreachable=state.unreachable,
            processes=processes,
            build=self._build,
            engine=engine_shown(self.settings, state.parts.get("engine", "down")),
            watermark=state.watermark,
            ledger=state.ledger,
            ledger_doubt=state.ledger_doubt,
            office=state.office,
            certificates=(*self._own_certificate(), *(self._trunks.last or ())),
            receivers=tuple(
                ReceiverShown(name, waiting, lost)
                for name, (waiting, lost) in sorted(self.receivers.state().items())
            ),
            collector=None if self.settings.otlp_url is None else place_of(self.settings.otlp_url),
            alarms=self.metrics.alarms(),
            refused=self._refused.last,
            disk=self._disk.last,
        )

    def _processes(self) -> tuple[ProcessShown, ...]:
        lives = noted_lives(self.runtime.lives)
        return processes_shown(lives, process_starts(self.runtime), resident(self.runtime))

    def _refused_for(self) -> tuple[RefusedFor, ...]:
        """Raises `RegistryError`."""
        return tuple(self.refused.reasons(time.time() - LATELY_S, REASONS))

    def _disk_space(self) -> Places:
        """Raises `OSError`."""
        usage = shutil.disk_usage(self.settings.data_dir)
        return Places(usage.total, usage.free)

    def _trunk_certificates(self) -> tuple[CertificateShown, ...]:
        return tuple(
            CertificateShown(f"the {what} of trunk {name}", "", at.timestamp())
            for name, what, at in self.edge.trunks.ends()
        )

    def _own_certificate(self) -> Iterator[CertificateShown]:
        held = self.certificate.certificate
        if held is None:
            return
        what = "the house's, signed by itself" if self.certificate.self_signed else "the house's"
        try:
            ends_at = held.ends().timestamp()
        except ValueError:
            ends_at = None
        yield CertificateShown(what, held.fingerprint, ends_at)


def processes_shown(
    lives: Mapping[str, ProcessLife], starts: Mapping[str, float], memory: Mapping[str, int]
) -> tuple[ProcessShown, ...]:
    """The processes by name, those that the supervisor keeps first; nobody restarts the others.

    `starts` is as `process_starts` has it, `memory` as `resident`.
    """
    since = {name: wall_time(started) for name, started in starts.items()}
    kept = [
        ProcessShown(
            name, _state_of(life, since.get(name)), since.get(name), life.restarts, memory.get(name),
            life.error,
        )
        for name, life in sorted(lives.items())
    ]  # fmt: skip
    rest = sorted(memory.keys() - lives)
    others = [ProcessShown(name, "up", since.get(name), None, memory[name]) for name in rest]
    return (*kept, *others)


def _state_of(life: ProcessLife, since: float | None) -> str:
    alive = life.pid > 0 and since is not None
    if life.hopeless and (since is None or not alive or time.time() - since < STEADY_S):
        return "failing"
    return "up" if alive else "down"


def engine_shown(settings: Settings, state: str) -> EngineShown:
    """The engine that the settings name."""
    at = tuple(map(place_of, settings.engine_url))
    if settings.engine == "cascade" and settings.llm_url is not None:
        return EngineShown("cascade", state, settings.llm_model or "", (*at, place_of(settings.llm_url)))
    model = (settings.chroma or "") if settings.engine == "chroma" else ""
    return EngineShown(settings.engine, state, Path(model).name if model.startswith("/") else model, at)


def place_of(url: str) -> str:
    """Scheme, host and port of a URL: logins, paths and queries may hold secrets."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "an address that cannot be read"
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{port}" if port is not None else "")


def _why(state: HouseState) -> list[str]:
    """Why it is not ready, in words."""
    why = [f"{part}: {how}" for part, how in state.parts.items() if how != "ready"]
    if state.busy:
        why.append(f"no time for one more call: {state.busy}")
    if state.draining:
        why.append("it is being stopped, and takes no new calls")
    return why
