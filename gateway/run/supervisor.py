"""`voicegate run`: starts the house, restarts what dies, and takes it down in order.

The supervisor is small on purpose: it holds no sockets and no calls, so that every other process, the front
included, can die and come back while calls go on. It is the parent of the embedded Redis, the engine, the
halls, the web lines, the front, and the zygote that forks the SIP lines. When it dies itself, the kernel
ends its children (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, Literal

import structlog

from gateway.config.paths import consent_dir, grant_keys_path, mark_keys_path
from gateway.config.runtime import Runtime, runtime_for
from gateway.config.settings import Settings
from gateway.errors import RpcError, StartError
from gateway.ipc import rpc
from gateway.ipc.envelope import A, Ask
from gateway.ipc.front_messages import AskState, HouseState
from gateway.ipc.hall_messages import Drain
from gateway.ipc.hello import Hello
from gateway.ipc.rpc import Peer
from gateway.line.line_plan import RTP_STRIDE, LinePlan
from gateway.line.zygote_messages import ForkLine, LineDied
from gateway.run.preflight import check_engines, check_ports

log = structlog.get_logger("supervisor")

BACKOFF_S: Final = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
"""Pauses before the next restart of a process that keeps dying."""
STEADY_S: Final = 30.0
"""A process that lived this long starts its backoff anew."""
READY_S: Final = 60.0
CHROMA_READY_S: Final = 900.0
"""Ten gigabytes of weights come from a disk, the first time from the hub."""
FORK_WITHIN_S: Final = 10.0
FORK_PAUSE_S: Final = 0.2
"""Between a line's death and the next fork."""
LOG_LIMIT: Final = 50 * 1024 * 1024
PR_SET_PDEATHSIG: Final = 1


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass
class Child:
    """One process that is kept alive."""

    name: str
    argv: list[str]
    pid: int = 0
    started_at: float = 0.0
    deaths: int = 0
    process: asyncio.subprocess.Process | None = None
    wanted: bool = True


@dataclass
class Supervisor:
    """Keeps one gateway's processes. `settings` and `runtime` are the gateway's own."""

    settings: Settings
    runtime: Runtime
    token: str
    children: dict[str, Child] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    """SIP lines: name -> pid (children of the zygote)"""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _log: IO[bytes] | None = None
    _zygote: socket.socket | None = None

    # ── processes ────────────────────────────────────────────────────────────────────────────────────

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "VOICEGATE_DATA_DIR": str(self.settings.data_dir),
            "VOICEGATE_BOOT_TOKEN": self.token,
            # by the environment: it may hold a password, and the engine reads no settings file
            **({"VOICEGATE_REDIS_URL": self.settings.redis_url} if self.settings.redis_url else {}),
            **self._chroma(),
            "OMP_NUM_THREADS": "1",  # many small processes: threads of numpy and onnxruntime only fight
            "OPENBLAS_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "1",  # glibc's heap per thread costs the hall 10 MB
        }

    def _chroma(self) -> dict[str, str]:
        """The engine's settings as it reads them, whether they came from a file or a variable."""
        settings = self.settings
        given = {
            "VOICEGATE_ENGINE_CALLS": str(settings.engine_calls),
            "VOICEGATE_CHROMA_DEVICE": settings.chroma_device,
            "VOICEGATE_CHROMA_DTYPE": settings.chroma_dtype,
            "VOICEGATE_CHROMA_WEIGHTS": settings.chroma_weights,
            "VOICEGATE_CHROMA_CONTEXT": str(settings.chroma_context),
            "VOICEGATE_CHROMA_REPLY_S": str(settings.chroma_reply_s),
            "VOICEGATE_CHROMA_LEAD_S": str(settings.chroma_lead_s),
        }
        return given if settings.chroma is None else {**given, "VOICEGATE_CHROMA": settings.chroma}

    def keep(self, name: str, *argv: str, pass_fds: tuple[int, ...] = ()) -> None:
        """Starts `python -m argv…` and restarts it whenever it ends."""
        child = Child(name, [sys.executable, "-m", *argv])
        self.children[name] = child
        self._spawn(self._keep(child, pass_fds))

    async def _keep(self, child: Child, pass_fds: tuple[int, ...]) -> None:
        while child.wanted:
            child.process = await asyncio.create_subprocess_exec(
                *child.argv,
                env=self._environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,  # a terminal's Ctrl-C is ours to hear, not theirs
                preexec_fn=_die_with_parent,
                pass_fds=pass_fds,
            )
            child.pid, child.started_at = child.process.pid, time.monotonic()
            self._note_pids()
            status = await child.process.wait()
            if not child.wanted or self.stopping.is_set():
                return
            if time.monotonic() - child.started_at > STEADY_S:
                child.deaths = 0
            pause = BACKOFF_S[min(child.deaths, len(BACKOFF_S) - 1)]
            child.deaths += 1
            log.warning("process.died", name=child.name, pid=child.pid, status=status, restart_in_s=pause)
            await asyncio.sleep(pause)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _note_pids(self) -> None:
        """Who is who, for `voicegate doctor` and for tests that kill."""
        pids = {name: child.pid for name, child in self.children.items() if child.pid} | self.lines
        path = self.runtime.path / "pids.json"
        path.with_suffix(".new").write_text(json.dumps(pids))
        path.with_suffix(".new").replace(path)

    # ── SIP lines: forked by the zygote ──────────────────────────────────────────────────────────────

    def _line_plans(self) -> dict[str, LinePlan]:
        settings = self.settings
        lines: list[tuple[str, Literal["narrow", "wide"]]] = []
        lines += [(f"n{k}", "narrow") for k in range(settings.narrow_lines)]
        lines += [(f"w{k}", "wide") for k in range(settings.wide_lines)]
        media = settings.host if settings.host not in ("0.0.0.0", "::") else ""  # noqa: S104 - compared only
        return {
            name: LinePlan(
                name=name,
                kind=kind,
                hall=f"hall{at % settings.halls}",
                runtime=self.runtime,
                token=self.token,
                media_address=media,
                rtp_port=settings.rtp_port + at * RTP_STRIDE if settings.rtp_port else 0,
            )
            for at, (name, kind) in enumerate(lines)
        }

    async def _keep_lines(self) -> None:
        """Starts the zygote, has it fork every line, and has a dead line forked again."""
        plans = self._line_plans()
        while plans and not self.stopping.is_set():
            ours, theirs = socket.socketpair()
            fd = theirs.fileno()
            child = Child("zygote", [sys.executable, "-m", "gateway.line.zygote", "--fd", str(fd)])
            child.process = await asyncio.create_subprocess_exec(
                *child.argv,
                env=self._environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,
                preexec_fn=_die_with_parent,
                pass_fds=(fd,),
            )
            theirs.close()
            child.pid = child.process.pid
            self.children["zygote"] = child
            hello = Hello("supervisor", "supervisor", self.token)
            handlers = [LineDied.handled_by(partial(self._line_died, plans))]
            zygote = await rpc.connect_by(ours, "zygote", hello, handlers)
            for plan in plans.values():
                self._spawn(self._fork(zygote, plan))
            await zygote.closed.wait()
            self.lines.clear()
            await child.process.wait()
            if not self.stopping.is_set():
                log.error("zygote.died", lines=len(plans))
                await asyncio.sleep(0.5)

    async def _fork(self, zygote: Peer, plan: LinePlan) -> None:
        try:
            self.lines[plan.name] = await zygote.ask(ForkLine(plan), FORK_WITHIN_S)
            self._note_pids()
        except RpcError as error:
            log.error("line.not_forked", line=plan.name, error=str(error))

    async def _line_died(self, plans: dict[str, LinePlan], zygote: Peer, died: LineDied) -> None:
        self.lines.pop(died.name, None)
        self._note_pids()
        if not self.stopping.is_set():
            log.warning("line.died", line=died.name, pid=died.pid, status=died.status)
            await asyncio.sleep(FORK_PAUSE_S)
            await self._fork(zygote, plans[died.name])

    # ── the whole ────────────────────────────────────────────────────────────────────────────────────

    async def start(self, log_to: IO[bytes] | None) -> None:
        self._log = log_to
        settings = self.settings
        if settings.redis_url is None:
            self.keep("redis", "gateway.run.redis_server")
        await self._once("gateway.run.prepare")
        if settings.engine == "chroma" and not (consent_dir(settings) / "heart.txt").exists():
            # Chroma speaks as a clip that it has heard; this one is of the embedded engine's voice
            await self._once("model.embedded.clip", str(consent_dir(settings)))
        if not settings.engine_url:
            self.keep(
                "engine", "model.server", "--engine", settings.engine, "--uds", str(self.runtime.engine),
                "--keys", str(grant_keys_path(settings)), "--front", str(self.runtime.front),
                *(() if settings.redis_url else ("--redis", f"unix://{self.runtime.redis}")),
            )  # fmt: skip
        for k in range(settings.halls):
            self.keep(f"hall{k}", "gateway.hall", "--name", f"hall{k}")
        self.keep("front", "gateway.front")
        if settings.detector_port:
            self.keep(
                "detector", "gateway.cli", "watermark", "serve", "--keys", str(mark_keys_path(settings)),
                "--host", settings.host, "--port", str(settings.detector_port),
            )  # fmt: skip
        for k in range(settings.web_lines):
            hall = f"hall{k % settings.halls}"
            self.keep(
                f"web{k}", "gateway.line.web", "--name", f"web{k}", "--hall", hall,
                "--runtime", str(self.runtime.path),
            )  # fmt: skip
        self._spawn(self._keep_lines())

    async def _once(self, *argv: str) -> None:
        """Runs `python -m argv…` to its end. Raises `StartError` with what it says."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *argv, env=self._environment(), stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=self._log,
        )  # fmt: skip
        said, _ = await process.communicate()
        if process.returncode:
            raise StartError(
                said.decode().strip() or f"{argv[0]} ended with {process.returncode}; see the log"
            )

    async def ready(self) -> HouseState:
        """What the front says of the house once everything is up.

        Raises `StartError` naming what is missing when that takes longer than `READY_S`.
        """
        within_s = CHROMA_READY_S if self.settings.engine == "chroma" else READY_S
        deadline = time.monotonic() + within_s
        missing = "front"
        while time.monotonic() < deadline and not self.stopping.is_set():
            with contextlib.suppress(RpcError):
                state = await self.ask_front(AskState())
                if state.ready:
                    return state
                missing = ", ".join(name for name, up in state.parts.items() if not up)
            for child in self.children.values():
                if child.deaths >= 3:
                    raise StartError(f"{child.name} keeps dying; see the log")
            await asyncio.sleep(0.1)
        raise StartError(f"not ready after {within_s:g} s; still missing: {missing}; see the log")

    async def ask_front(self, message: Ask[A]) -> A:
        """Raises `RpcError`."""
        peer = await rpc.connect(self.runtime.front, Hello("supervisor", "supervisor", self.token))
        try:
            return await peer.ask(message)
        finally:
            peer.close()

    async def drain(self, hurry: asyncio.Event) -> None:
        """No new calls; running ones may go on for `drain_s`, or until `hurry`."""
        deadline = time.monotonic() + self.settings.drain_s
        with contextlib.suppress(RpcError):
            await self.ask_front(Drain())
            while time.monotonic() < deadline and not hurry.is_set():
                if not (await self.ask_front(AskState())).calls:
                    return
                await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """Lines first (they say BYE through the edge), then the halls, the engine, the front, Redis."""
        self.stopping.set()
        order = ["zygote", *(n for n in self.children if n.startswith("web"))]
        order += [n for n in self.children if n.startswith("hall")]
        order += ["engine", "detector", "front", "redis"]
        for group in (order[:1], *([name] for name in order[1:])):
            for name in group:
                child = self.children.get(name)
                if child is None or child.process is None:
                    continue
                child.wanted = False
                await _end(child.process)
        with contextlib.suppress(FileNotFoundError):
            (self.runtime.path / "pids.json").unlink()
        with contextlib.suppress(FileNotFoundError):
            (self.runtime.path / "token").unlink()


async def _end(process: asyncio.subprocess.Process, patience_s: float = 5.0) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            async with asyncio.timeout(patience_s):
                await process.wait()
        except TimeoutError:
            log.error("process.killed", pid=process.pid)
            process.kill()
            await process.wait()


def _open_log(settings: Settings) -> tuple[IO[bytes] | None, Path | None]:
    """On a terminal the log goes to a file and the panel stays readable; elsewhere to stderr."""
    if not sys.stderr.isatty():
        return None, None
    path = settings.data_dir / "voicegate.log"
    if path.exists() and path.stat().st_size > LOG_LIMIT:
        path.replace(path.with_suffix(".log.1"))
    return path.open("ab"), path


def run(settings: Settings, show_panel: Callable[[HouseState, Path | None], None]) -> int:
    """Runs the gateway until Ctrl-C or SIGTERM; answers the exit status. Raises `StartError`."""
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings.data_dir.chmod(0o700)
    runtime = runtime_for(settings.data_dir)
    with runtime.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(
                f"a gateway already runs with {settings.data_dir}; "
                "set VOICEGATE_DATA_DIR (and the ports) to run another beside it"
            ) from None
        check_ports(settings)
        check_engines(settings)
        return asyncio.run(_run(settings, runtime, show_panel))


async def _run(
    settings: Settings, runtime: Runtime, show_panel: Callable[[HouseState, Path | None], None]
) -> int:
    supervisor = Supervisor(settings, runtime, runtime.new_token())
    asked = asyncio.Event()
    hurry = asyncio.Event()

    def interrupted() -> None:
        (hurry if asked.is_set() else asked).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted)
    log_to, log_path = _open_log(settings)
    try:
        await supervisor.start(log_to)
        readying = asyncio.create_task(supervisor.ready())
        waiting = asyncio.create_task(asked.wait())
        await asyncio.wait((readying, waiting), return_when=asyncio.FIRST_COMPLETED)
        if readying.done():
            show_panel(readying.result(), log_path)
            await waiting
            await supervisor.drain(hurry)
        else:
            readying.cancel()
        return 0
    finally:
        await supervisor.stop()
        if log_to is not None:
            log_to.close()
