"""A process that is kept alive: how it is started and ended, why it died, when it is started again."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import re
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TextIO

import structlog

from gateway.config import failure

log = structlog.get_logger("supervisor")

BACKOFF_S: Final = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
"""Pauses before the next restart of a process that keeps dying."""
TRIES: Final = 3
STEADY_S: Final = 30.0
"""A process that lived this long starts its backoff anew."""
PATIENCE_S: Final = 5.0
"""How long a process has to end after SIGTERM before it is killed."""
PR_SET_PDEATHSIG: Final = 1
_STAMP: Final = re.compile(r"^\d+:\w \d+ \w+ \d+ [\d:.]+ . ")
"""What Valkey writes before each line: pid, role, time, level."""


@dataclass
class Child:
    """One process of the gateway. `failure` is where it says why it fails."""

    name: str
    failure: Path
    log: Path | None = None
    """Where a program that is not ours, and cannot use `failure`, writes its errors."""
    pid: int = 0
    started_at: float = 0.0
    """`time.monotonic()`."""
    deaths: int = 0
    """Deaths in a row, each before `STEADY_S` were over."""
    error: str = ""
    """Why it died last."""
    hopeless: bool = False
    """It dies again and again, or failed twice for the same reason."""
    given_up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it was hopeless."""
    process: asyncio.subprocess.Process | None = None
    """None before it is started."""

    _log_size: int = 0
    """Bytes of `log` when the process was started."""

    def born(self, pid: int) -> None:
        """Notes that the process was started."""
        self.pid, self.started_at = pid, time.monotonic()
        self._log_size = self.log.stat().st_size if self.log is not None and self.log.exists() else 0

    def died(self, status: int) -> float:
        """Notes the death and its reason; returns the pause in seconds before the next start."""
        if time.monotonic() - self.started_at > STEADY_S:
            self.deaths = 0
        pause_s = BACKOFF_S[min(self.deaths, len(BACKOFF_S) - 1)]
        self.deaths += 1
        before, self.error = self.error, self._reason(status)
        self.hopeless = self.deaths >= TRIES or (self.deaths > 1 and status > 0 and self.error == before)
        if self.hopeless:
            self.given_up.set()
        log.warning(
            "process.died",
            name=self.name, pid=self.pid, status=status, error=self.error, restart_in_s=pause_s,
        )  # fmt: skip
        self.pid = 0
        return pause_s

    def _reason(self, status: int) -> str:
        if self.log is not None and status > 0 and not self.failure.exists():
            with contextlib.suppress(OSError):
                written = self.log.read_bytes()[self._log_size :].decode(errors="replace").split("\n")
                if lines := [line for line in written if line.strip()]:
                    return f"{_STAMP.sub('', lines[-1])} (its log is {self.log})"
        return failure.told(self.failure, status)


async def start(
    path: Path, place: str, *argv: str, environ: Mapping[str, str], log_to: TextIO | None
) -> asyncio.subprocess.Process:
    """Starts a process that calls the function at `place` ("module:function") with `argv`.

    It writes to `path` why it fails (`gateway.run.entry`), and it dies with this process.
    """
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.run.entry", str(path), place, *argv,
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=log_to,
        stderr=log_to,
        start_new_session=True,  # a terminal's Ctrl-C is ours to hear, not theirs
        preexec_fn=_die_with_parent,
    )  # fmt: skip


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


async def end(process: asyncio.subprocess.Process) -> None:
    """Ends it with SIGTERM, or after `PATIENCE_S` with SIGKILL."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await process.wait()
        except TimeoutError:
            log.error("process.killed", pid=process.pid)
            process.kill()
            await process.wait()
