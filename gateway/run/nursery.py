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
from collections.abc import Mapping
from typing import Final, TextIO

import structlog

from gateway.run.zygote import PR_SET_PDEATHSIG, TITLE_ROOM, Birth

log = structlog.get_logger("supervisor")

PR_SET_CHILD_SUBREAPER: Final = 36
PATIENCE_S: Final = 5.0
"""How long a process has to end after SIGTERM before it is killed."""
BIRTH_S: Final = 60.0
"""How long a zygote may take to import everything, or to fork."""
TRIES: Final = 2
"""A zygote that died since the last birth is replaced once."""


class ForkedProcess:
    """A process that a zygote forked, of which this one is the parent.

    `living` has its pid until it was waited for. Raises `OSError` when no descriptor is left for it.
    """

    def __init__(self, pid: int, living: set[int]) -> None:
        self.pid = pid
        self._living = living
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
        living.add(pid)
        self._loop.add_reader(self._descriptor, self._reap)

    def _reap(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self._living.discard(self.pid)
        self._ended.set()

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
    """Keeps a zygote, which begins with the first process that is asked for.

    `environ` is the zygote's; it and all processes log to `log_to`, None for stderr.
    """

    def __init__(self, environ: Mapping[str, str], log_to: TextIO | None) -> None:
        self._environ = environ
        self._log_to = log_to
        self._zygote: asyncio.subprocess.Process | None = None
        self._asked: socket.socket | None = None
        self._one = asyncio.Lock()
        self._living: set[int] = set()

    @property
    def zygote(self) -> int:
        """The zygote's pid; 0 when none lives."""
        return 0 if self._zygote is None or self._zygote.returncode is not None else self._zygote.pid

    async def born(self, birth: Birth) -> ForkedProcess:
        """Starts the process. Raises `OSError` when the system has no room for it."""
        async with self._one:
            for _ in range(TRIES):
                asked = self._asked or await self._begin()
                try:
                    async with asyncio.timeout(BIRTH_S):
                        pid, error = await self._exchange(asked, birth.written())
                except (ConnectionError, TimeoutError):
                    log.warning("zygote.died", pid=self.zygote)
                    await self.close()
                    continue
                except BaseException:
                    await self.close()  # its answer would be taken for that to the next question
                    raise
                if error:
                    raise OSError(error, os.strerror(error))
                return ForkedProcess(pid, self._living)
        raise OSError(errno.ECHILD, "no zygote stays alive")

    async def _begin(self) -> socket.socket:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "this system has no subreapers")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            self._zygote = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway.run.zygote", " " * TITLE_ROOM,
                env=self._environ,
                stdin=theirs,
                stdout=self._log_to,
                stderr=self._log_to,
                start_new_session=True,  # a terminal's Ctrl-C is ours to hear, not theirs
                preexec_fn=_die_with_parent,
            )  # fmt: skip
        self._asked = ours
        return ours

    async def _exchange(self, asked: socket.socket, question: bytes) -> tuple[int, int]:
        """The pid of a fork and 0, or 0 and an errno. Raises `ConnectionError` when the zygote is gone."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(asked, question)
        answer = b""
        while not answer.endswith(b"\n"):
            more = await loop.sock_recv(asked, 64)
            if not more:
                raise ConnectionResetError
            answer += more
        pid, error = map(int, answer.split())
        return pid, error

    async def close(self) -> None:
        """Ends the zygote; what it forked lives on."""
        if self._asked is not None:
            self._asked.close()
            self._asked = None
        if self._zygote is not None and self._zygote.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._zygote.kill()  # it keeps nothing
            await self._zygote.wait()

    def reap_strangers(self) -> None:
        """Waits for those whose own parent died: they are this process's children now, and nobody's business."""
        if self._one.locked():  # one that was just born is not known yet
            return
        with contextlib.suppress(ChildProcessError):  # there are none
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if ended.si_pid in self._living or ended.si_pid == self.zygote:
                    return  # somebody waits for it; the next death tells of those behind it
                os.waitpid(ended.si_pid, 0)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
