"""A process that is kept alive: why it died, when it is started again."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from gateway.config import failure
from gateway.ipc.process_lives import ProcessLife
from gateway.run.nursery import ForkedProcess

log = structlog.get_logger("supervisor")

BACKOFF_S: Final = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
"""Pauses before the next restart of a process that keeps dying."""
TRIES: Final = 3
STEADY_S: Final = 30.0
"""A process that lived this long starts its backoff anew."""
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
    births: int = 0
    """How often it was started."""
    error: str = ""
    """Why it died last."""
    hopeless: bool = False
    """It dies again and again, or failed twice for the same reason."""
    given_up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it was hopeless."""
    process: ForkedProcess | None = None
    """None before it is started."""

    _log_size: int = 0
    """Bytes of `log` when the process was started."""

    def born(self, pid: int) -> None:
        """Notes that the process was started."""
        self.pid, self.started_at = pid, time.monotonic()
        self.births += 1
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

    def life(self) -> ProcessLife:
        """What others may know of it."""
        return ProcessLife(self.pid, max(0, self.births - 1), self.hopeless, self.error)

    def _reason(self, status: int) -> str:
        if self.log is not None and status > 0 and not self.failure.exists():
            with contextlib.suppress(OSError):
                written = self.log.read_bytes()[self._log_size :].decode(errors="replace").split("\n")
                if lines := [line for line in written if line.strip()]:
                    return f"{_STAMP.sub('', lines[-1])} (its log is {self.log})"
        return failure.told(self.failure, status)
