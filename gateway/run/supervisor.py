"""`voicegate run`: starts the house, restarts what dies, and takes it down in order.

The supervisor is small on purpose: it holds no sockets and no calls, so that every other process, the front
included, can die and come back while calls go on. It is the parent of the embedded Redis, the engine, the
ears, the halls, the lines and the front. When it dies itself, the kernel ends its children
(PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Final, Protocol, TextIO

import structlog

from gateway.config import failure, logs
from gateway.config.paths import grant_keys_path, log_path, mark_keys_path, model_files_dir
from gateway.config.runtime import Runtime, runtime_for
from gateway.config.settings import Settings
from gateway.errors import RpcError, StartError
from gateway.ipc import rpc
from gateway.ipc.envelope import A, Ask
from gateway.ipc.front_messages import AskState, HouseState, ReloadHouse
from gateway.ipc.hall_messages import Drain
from gateway.ipc.hello import Hello
from gateway.ipc.process_lives import note_lives
from gateway.run import preflight, priority, sip_lines
from gateway.run.child import Child
from gateway.run.child_environment import LEAN, environment
from gateway.run.ears_wanted import wants_ears
from gateway.run.nursery import ForkedProcess, Nursery, Zygote
from gateway.run.zygote import Birth
from model import heap, json_log
from model.tasks import Tasks, race, watch_loop

log = structlog.get_logger("supervisor")

READY_S: Final = 60.0
CHROMA_READY_S: Final = 3600.0
"""Ten gigabytes of weights come from a disk, the first time from the hub; then steps are timed and graphs
captured, for minutes. An engine that hangs meanwhile ends itself (`model.own_process`), and one that keeps
ending is given up."""

RELOAD_WITHIN_S: Final = 90.0


class Screen(Protocol):
    """What the operator sees."""

    def progress(self, doing: str) -> None:
        """Shows what is being done now."""

    def ready(self, state: HouseState, log: Path | None) -> None:
        """Shows that the house is up.

        `state` is what the front says of it; `log` is None when the log is stderr.
        """


@dataclass
class Supervisor:
    """Keeps one gateway's processes.

    `settings` and `runtime` are the gateway's own; `log_to` is where all processes log, None for stderr;
    `hears_languages`: the dialplan leads callers by their language; `zygote`: what forks them, None for
    one that is to be started.
    """

    settings: Settings
    runtime: Runtime
    token: str
    progress: Callable[[str], None]
    log_to: TextIO | None = None
    hears_languages: bool = False
    zygote: Zygote | None = None
    children: dict[str, Child] = field(default_factory=dict)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: Tasks = field(default_factory=Tasks)
    _hears: bool = False
    """a process of this house hears words"""

    # ── processes ────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def _nursery(self) -> Nursery:
        return Nursery(self.zygote, {**os.environ, **LEAN}, self.log_to)

    async def _start_process(self, path: Path, place: str, *argv: str) -> ForkedProcess:
        """Starts the function at `place` ("module:function"), which says in the file `path` why it fails."""
        ears = self.runtime.ears if self._hears else None
        told = environment(self.settings, self.token, ears, self.runtime.log)
        return await self._nursery.born(Birth(str(path), place, argv, told))

    def keep(self, name: str, place: str, *argv: str, log: Path | None = None) -> None:
        """Starts a process that calls the function at `place`, and restarts it whenever it ends.

        `log`: where it writes its errors, if it is a program that is not ours.
        """
        self.children[name] = kept = Child(name, self.runtime.failure(name), log)
        self._tasks.lasting(partial(self._keep, kept, place, argv), f"keep.{name}")

    async def _keep(self, kept: Child, place: str, argv: tuple[str, ...]) -> None:
        while not self.stopping.is_set():
            try:
                status = await self._live(kept, place, argv)
            except OSError as error:  # no memory for it, or too many processes or files
                kept.born(0)
                failure.tell(kept.failure, error)
                status = 1
            if not self.stopping.is_set():
                pause_s = kept.died(status)
                self._note_lives()
                await asyncio.sleep(pause_s)
        await asyncio.Event().wait()  # `stop` ends this task

    async def _live(self, kept: Child, place: str, argv: tuple[str, ...]) -> int:
        """Starts the process and waits for its end; returns its status."""
        if kept.process is not None:  # it runs still if what kept it failed
            await kept.process.end()
        kept.process = await self._start_process(kept.failure, place, *argv)
        kept.born(kept.process.pid)
        self._note_pids()
        lowering = self._tasks.short(
            priority.lower(kept.name, kept.pid, self._door(kept.name)), f"lower.{kept.name}"
        )
        try:
            return await kept.process.wait()
        finally:
            lowering.cancel()

    def _door(self, name: str) -> Path | None:
        """The socket of a process that keeps its weight while it loads. Chroma does not: it takes minutes."""
        if name == "engine" and self.settings.engine != "chroma":
            return self.runtime.engine
        return self.runtime.ears if name == "ears" else None

    def adopt(self) -> None:
        """From now on waits for those, too, whose own parent, a process of this house, dies before them."""
        self._nursery.adopt()

    def _note_pids(self) -> None:
        """Writes who is who, for `voicegate doctor` and for tests that kill."""
        path = self.runtime.path / "pids.json"
        try:
            path.with_suffix(".new").write_text(
                json.dumps(
                    {kept.name: kept.pid for kept in self.children.values() if kept.pid}
                    | ({"zygote": self._nursery.pid} if self._nursery.pid else {})
                )
            )
            path.with_suffix(".new").replace(path)
        except OSError as error:  # a full disk: no process is missed for that
            log.error("pids.not_written", error=str(error))
        self._note_lives()

    def _note_lives(self) -> None:
        """Writes how they fare, for the front."""
        try:
            note_lives(self.runtime.lives, {name: kept.life() for name, kept in self.children.items()})
        except OSError as error:
            log.error("lives.not_written", error=str(error))

    # ── the whole ────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Starts every process. Raises `StartError` when there cannot be a house."""
        settings = self.settings
        self.progress("keys and database")
        if settings.office_socket is None:
            self.keep("office", "gateway.run.office_child:main")
        await self._prepared()
        if settings.engine == "chroma":
            # Chroma speaks as a clip that it has heard; this one is of the embedded engine's voice
            self.progress("the stock voice's clip")
            await self._once("clip", "gateway.run.stock_clip:main")
        if settings.redis_url is None:
            valkey_log = settings.data_dir / "redis" / "valkey.log"
            self.keep("redis", "gateway.run.redis_server:main", log=valkey_log)
        self._hears = wants_ears(settings, hears_languages=self.hears_languages)
        if self._hears:
            self.keep(
                "ears", "model.ears.ears_process:main", "--uds", str(self.runtime.ears),
                "--models", str(model_files_dir(settings)),
                *(["--languages"] if self.hears_languages else []),
            )  # fmt: skip
        if not settings.engine_url:
            self.keep(
                "engine", "model.server:main", "--engine", settings.engine, "--uds", str(self.runtime.engine),
                "--keys", str(grant_keys_path(settings)), "--front", str(self.runtime.front),
                *(() if settings.redis_url else ("--redis", f"unix://{self.runtime.redis}")),
            )  # fmt: skip
        for k in range(settings.halls):
            self.keep(f"hall{k}", "gateway.hall.__main__:main", "--name", f"hall{k}")
        self.keep("front", "gateway.front.__main__:main")
        if settings.detector:
            self.keep(
                "detector", "gateway.run.detector:main", "--keys", str(mark_keys_path(settings)),
                "--host", settings.host, "--port", str(settings.detector),
                *(word for proxy in settings.trusted_proxies for word in ("--proxy", proxy)),
            )  # fmt: skip
        for k in range(settings.web_lines):
            hall = f"hall{k % settings.halls}"
            self.keep(
                f"web{k}", "gateway.line.web:main", "--name", f"web{k}", "--hall", hall,
                "--runtime", str(self.runtime.path),
            )  # fmt: skip
        for k in range(settings.sip_processes):
            self.keep(
                f"sip{k}", "gateway.rtp.sip_process:main", *sip_lines.arguments(settings, self.runtime, k)
            )

    async def _prepared(self) -> None:
        """Makes keys and tables while the office begins. Raises `StartError` when either cannot be."""
        over = await race(self._once("prepare", "gateway.run.prepare:main"), self._given_up("office"))
        for work in over:
            if work is not None:
                work.result()

    async def _given_up(self, name: str) -> None:
        """Waits until that process has no hope; raises `StartError` with its error."""
        kept = self.children.get(name)
        if kept is None:  # it is another service's
            await asyncio.Event().wait()
            return
        await kept.given_up.wait()
        raise StartError(f"{kept.name} does not start: {kept.error}{self._and_log()}")

    async def _once(self, name: str, place: str, *argv: str) -> None:
        """Calls the function at `place` in a process of its own. Raises `StartError` with its error."""
        path = self.runtime.failure(name)
        process = await self._start_process(path, place, *argv)
        try:
            status = await process.wait()
        finally:
            await process.end()
        if status:
            raise StartError(failure.told(path, status))

    async def ready(self) -> HouseState:
        """Waits until everything is up; returns what the front says of the house.

        Raises `StartError` when a process does not start, or with what is still missing after
        `READY_S`.
        """
        within_s = CHROMA_READY_S if self.settings.engine == "chroma" else READY_S
        deadline = time.monotonic() + within_s
        missing = ["front"]
        while time.monotonic() < deadline:
            with contextlib.suppress(RpcError):
                state = await self.ask_front(AskState())
                missing = [part for part, how in state.parts.items() if how != "ready"]
                if not await self._detector_listens():
                    missing.append("detector")
                if state.ready and not missing:
                    return state
            self.progress(f"waiting for {', '.join(missing)}")
            for kept in self.children.values():
                if kept.hopeless:
                    raise StartError(f"{kept.name} does not start: {kept.error}{self._and_log()}")
            await asyncio.sleep(0.1)
        errors = "".join(f"; {kept.name}: {kept.error}" for kept in self.children.values() if kept.error)
        raise StartError(
            f"not ready after {within_s:g} s; still missing: {', '.join(missing)}{errors}{self._and_log()}"
        )

    def _and_log(self) -> str:
        return "" if self.log_to is None else f"; the log is {self.log_to.name}"

    async def _detector_listens(self) -> bool:
        if not self.settings.detector:
            return True
        try:
            _, writer = await asyncio.open_connection(self.settings.host, self.settings.detector)
        except OSError:
            return False
        writer.close()
        return True

    async def ask_front(self, message: Ask[A], within_s: float = rpc.DEFAULT_TIMEOUT_S) -> A:
        """The front's word on how the house is. Raises `RpcError`."""
        peer = await rpc.connect(self.runtime.front, Hello("supervisor", "supervisor", self.token))
        try:
            return await peer.ask(message, within_s)
        finally:
            peer.close()

    def reload(self) -> None:
        """Has the front read dialplans, users, trunks and certificates anew; the log says what came of it."""
        self._tasks.short(self._reload(), "reload")

    async def _reload(self) -> None:
        try:
            done = await self.ask_front(ReloadHouse(), RELOAD_WITHIN_S)
        except RpcError as error:
            log.error("reload.not_asked", error=str(error))
            return
        for part, why in done.failed.items():
            log.error("reload.kept", part=part, error=why)

    async def drain(self, hurry: asyncio.Event) -> None:
        """Lets no new calls in; running ones may go on for `drain_s`, or until `hurry`."""
        deadline = time.monotonic() + self.settings.drain_s
        with contextlib.suppress(RpcError):
            await self.ask_front(Drain())
            while time.monotonic() < deadline and not hurry.is_set():
                if not (await self.ask_front(AskState())).calls:
                    return
                await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """Ends the lines first (they say BYE through the edge); then halls, engine, front, office, Redis."""
        self.stopping.set()
        lines = [name for name in self.children if name.startswith(("sip", "web"))]
        halls = [name for name in self.children if name.startswith("hall")]
        await asyncio.gather(*map(self._end, lines))
        for name in (*halls, "engine", "ears", "detector", "front", "office", "redis"):
            await self._end(name)
        await self._tasks.stop()
        await self._nursery.close()
        for path in (self.runtime.path / "pids.json", self.runtime.lives, self.runtime.path / "token"):
            path.unlink(missing_ok=True)

    async def _end(self, name: str) -> None:
        kept = self.children.get(name)
        if kept is not None and kept.process is not None:
            await kept.process.end()


def run(settings: Settings, screen: Screen, *, hears_languages: bool = False) -> int:
    """Runs the gateway until Ctrl-C or SIGTERM; returns the exit status. Raises `StartError`.

    `hears_languages`: as for `Supervisor`.
    """
    preflight.make_data_dir(settings)
    runtime = runtime_for(settings.data_dir)
    with contextlib.ExitStack() as held:
        lock = held.enter_context(runtime.lock.open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(
                f"a gateway already runs with {settings.data_dir}; "
                "set VOICEGATE_DATA_DIR (and the ports) to run another beside it"
            ) from None
        preflight.check(settings)
        preflight.check_weights(settings)
        log_to = None
        if sys.stderr.isatty():  # the screen stays readable; elsewhere stderr is the log
            log_to = held.enter_context(logs.open_file(log_path(settings)))
        zygote = Zygote.forked(log_to)
        heap.let_go_of_libraries()  # the zygote has what was imported for it
        json_log.configure("supervisor", settings.log_level, log_to)
        supervisor = Supervisor(
            settings, runtime, runtime.new_token(), screen.progress, log_to, hears_languages, zygote
        )
        return asyncio.run(_run(supervisor, screen))


async def _run(supervisor: Supervisor, screen: Screen) -> int:
    asked = asyncio.Event()
    hurry = asyncio.Event()

    def interrupted() -> None:
        (hurry if asked.is_set() else asked).set()

    watch_loop(outlives_memory=True)  # nobody would start another
    loop = asyncio.get_running_loop()
    supervisor.adopt()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted)
    has_terminal = sys.stderr.isatty()

    def hung_up() -> None:
        if has_terminal and not sys.stderr.isatty():  # it was closed, and nobody could press Ctrl-C any more
            asked.set()
        else:
            supervisor.reload()

    loop.add_signal_handler(signal.SIGHUP, hung_up)

    async def begin() -> HouseState:
        await supervisor.start()
        return await supervisor.ready()

    try:
        begun, _ = await race(begin(), asked.wait())
        if begun is not None:
            log_to = supervisor.log_to
            screen.ready(begun.result(), None if log_to is None else Path(log_to.name))
            await asked.wait()
            screen.progress(
                f"running calls may go on for {supervisor.settings.drain_s:g} s; Ctrl-C ends them"
            )
            await supervisor.drain(hurry)
        return 0
    finally:
        screen.progress("stopping")
        await supervisor.stop()
