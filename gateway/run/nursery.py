"""Where the supervisor's processes come from: it asks a zygote (`gateway.run.zygote`) to fork them.

They are its own children all the same: it waits for them, and the kernel ends them with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Self, TextIO

import structlog

from gateway.run import zygote
from gateway.run.zygote import Birth

log = structlog.get_logger("supervisor")

PR_SET_CHILD_SUBREAPER: Final = 36
PATIENCE_S: Final = 5.0
"""How long a process has to end after SIGTERM before it is killed."""
BIRTH_S: Final = 60.0
"""How long a zygote may take to import everything, or to fork."""
TRIES: Final = 2
"""A zygote that died since the last birth is replaced once."""


@dataclass(frozen=True)
class Zygote:
    """A process that forks others when it is asked by a socket."""

    pid: int
    asked: socket.socket

    @classmethod
    def forked(cls, log_to: TextIO | None) -> Self:
        """A fork of this process, which may have one thread and no secret that others must not know.

        It and all its forks log to `log_to`, None for stderr.
        """
        zygote.prepare(zygote.SHARED)
        parent = os.getpid()
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            if log_to is not None:
                os.dup2(log_to.fileno(), 1)
                os.dup2(log_to.fileno(), 2)
            zygote.alone(theirs.detach())
            ours.detach()
            zygote.end(zygote.serve(socket.socket(fileno=os.dup(0)), parent))
        theirs.close()
        return cls(pid, ours)

    @classmethod
    def started(cls, environ: Mapping[str, str], log_to: TextIO | None) -> Self:
        """A new process, which imports everything anew. Raises `OSError` when there cannot be one."""
        ours, theirs = socket.socketpair()
        logs = [] if log_to is None else [(os.POSIX_SPAWN_DUP2, log_to.fileno(), out) for out in (1, 2)]
        with theirs:
            try:
                pid = os.posix_spawn(
                    sys.executable, [sys.executable, "-m", zygote.__name__, *zygote.SHARED], environ,
                    file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0), *logs],
                )  # fmt: skip
            except OSError:
                ours.close()
                raise
        return cls(pid, ours)

    async def fork(self, birth: Birth) -> tuple[int, int]:
        """The pid of a fork and 0, or 0 and an errno. Raises `ConnectionError` when the zygote is gone."""
        self.asked.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.asked, birth.written())
        answer = b""
        while not answer.endswith(b"\n"):
            more = await loop.sock_recv(self.asked, 64)
            if not more:
                raise ConnectionResetError
            answer += more
        pid, error = map(int, answer.split())
        return pid, error


class ForkedProcess:
    """A child of this process, though a zygote may have forked it.

    `ended` is called once it was waited for. Raises `OSError` when no descriptor is left for it.
    """

    def __init__(self, pid: int, ended: Callable[[int], None]) -> None:
        self.pid = pid
        self._tell_end = ended
        self.returncode: int | None = None
        """below zero: the signal that ended it; None: it lives"""
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        try:
            self._descriptor = os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self._loop.add_reader(self._descriptor, self._reap)

    def _reap(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self._ended.set()
        self._tell_end(self.pid)

    async def wait(self) -> int:
        """Waits for its end; returns its status."""
        await self._ended.wait()
        assert self.returncode is not None  # noqa: S101  # for mypy
        return self.returncode

    async def end(self) -> None:
        """Ends it with SIGTERM, or after `PATIENCE_S` with SIGKILL."""
        if self.returncode is not None:
            return
        os.kill(self.pid, signal.SIGTERM)  # the pid is its own until it was waited for
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self.wait()
        except TimeoutError:
            log.error("process.killed", pid=self.pid)
            os.kill(self.pid, signal.SIGKILL)
            await self.wait()


class Nursery:
    """Keeps a zygote: `first`, and whenever there is none another one.

    `environ` is that one's; it and all its forks log to `log_to`, None for stderr.
    """

    def __init__(self, first: Zygote | None, environ: Mapping[str, str], log_to: TextIO | None) -> None:
        self._zygote = first
        self._environ = environ
        self._log_to = log_to
        self._process: ForkedProcess | None = None
        """the zygote's"""
        self._one = asyncio.Lock()
        self._living: set[int] = set()
        self._adopts = False

    @property
    def pid(self) -> int:
        """The zygote's; 0 when there is none."""
        return 0 if self._zygote is None else self._zygote.pid

    async def born(self, birth: Birth) -> ForkedProcess:
        """Starts the process. Raises `OSError` when the system has no room for it."""
        try:
            return await self._born(birth)
        finally:
            self._reap_strangers()  # none was waited for meanwhile

    async def _born(self, birth: Birth) -> ForkedProcess:
        async with self._one:
            for _ in range(TRIES):
                asked = self._ready_zygote()
                try:
                    async with asyncio.timeout(BIRTH_S):
                        pid, error = await asked.fork(birth)
                except (ConnectionError, TimeoutError):
                    log.warning("zygote.died", pid=self.pid)
                    await self.close()
                    continue
                except BaseException:
                    await self.close()  # its answer would be taken for that to the next question
                    raise
                if error:
                    raise OSError(error, os.strerror(error))
                return self._watched(pid)
        raise OSError(errno.ECHILD, "no zygote stays alive")

    def _ready_zygote(self) -> Zygote:
        if self._zygote is None:
            self._zygote = Zygote.started(self._environ, self._log_to)
        if self._process is None:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "this system knows no subreapers")
            self._process = self._watched(self._zygote.pid)
        return self._zygote

    def _watched(self, pid: int) -> ForkedProcess:
        process = ForkedProcess(pid, self._ended)
        self._living.add(pid)
        return process

    def _ended(self, pid: int) -> None:
        self._living.discard(pid)
        self._reap_strangers()  # those who ended meanwhile stood behind it

    async def close(self) -> None:
        """Ends the zygote; what it forked lives on."""
        if self._zygote is not None:
            self._zygote.asked.close()
            self._zygote = None
        if self._process is not None:
            process, self._process = self._process, None
            await process.end()

    def adopt(self) -> None:
        """From now on, those whose own parent died are waited for: they are children of this process then.

        Only for a process whose children are all the nursery's.
        """
        self._adopts = True
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap_strangers)

    def _reap_strangers(self) -> None:
        if not self._adopts or self._one.locked():  # one that was just born is not known yet
            return
        with contextlib.suppress(ChildProcessError):  # there are none
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if ended.si_pid in self._living:
                    return  # somebody waits for it, and this is called again then
                os.waitpid(ended.si_pid, 0)
