"""Whether this machine's clock may be believed, asked before every row, grant, registration and deletion.

A row from the future would hold up every host of its ledger until that day, and what deletes by the clock
would delete too early. So this clock is compared with others:

* with the newest row: the ledger's time never goes back, unless an auditor says so (`chain.RESET`);
* with PostgreSQL's and the operator's Redis, which are asked every `ASK_EVERY_S`. One that runs on this
  machine has the same clock: it can contradict, not confirm;
* with the clock that nobody sets (`boot_time`), counted from when this clock was last believed.

A clock that no other machine confirms, in a process that has believed none yet, may be `UNPROVEN_S` ahead of
the newest row; for more an auditor says what the time is (`ConsentOffice.set_clock`).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from consent.archive.tables import Archive
from consent.errors import ClockError, LedgerError
from consent.grants.boot_clock import boot_time
from consent.grants.redis_watch import redis_place

TOLERANCE_S: Final = 120.0
"""How far this clock may be from another one, or behind the newest row."""
UNPROVEN_S: Final = 30 * 86_400.0
CREEP: Final = 1e-4
"""How much two clocks may drift apart, by the second: what a cheap quartz does."""
ASK_EVERY_S: Final = 30.0
ASK_AGAIN_S: Final = 1.0
"""How soon other clocks are asked again by one that they contradict: it may have been set right."""
ANSWER_S: Final = 0.5
"""How long Redis may take to say its time."""

TAKEN_ANYWAY: Final = frozenset(
    {"voice.revoked", "voice.erased", "voice.used", "operator.revoked", "pin.locked"}
)
"""Rows that take something back, or say what was done. By a clock that is not believed they get the newest
row's time: who takes a voice back is not told to wait."""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class ClockReading:
    """What another clock said. `read_at` is `boot_time` then; `elsewhere`: it is on another machine."""

    name: str
    said: float
    read_at: float
    elsewhere: bool


class OtherClock(Protocol):
    """A clock to compare with. Asking it blocks, `ANSWER_S` or as long as the database takes."""

    def read(self, boot: Clock) -> ClockReading | None:
        """What it says; None when it cannot be asked."""


@dataclass(frozen=True, slots=True)
class DatabaseClock:
    """PostgreSQL's `clock_timestamp()`."""

    archive: Archive

    def read(self, boot: Clock) -> ClockReading | None:
        """None also for SQLite, which has no clock of its own."""
        began = boot()
        try:
            said = self.archive.server_clock()
        except LedgerError:
            return None
        if said is None:
            return None
        return ClockReading("PostgreSQL's clock", said[0], (began + boot()) / 2, said[1])


class RedisClock:
    """The time of the operator's own Redis."""

    def __init__(self, url: str) -> None:
        self._url = url

    def read(self, boot: Clock) -> ClockReading | None:
        """None when it is away."""
        redis: Any = Redis.from_url(
            self._url, socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S, retry=Retry(NoBackoff(), 0)
        )
        try:
            began = boot()
            seconds, micros = redis.time()
            read_at = (began + boot()) / 2
            ends = redis.client_info()
        except (RedisError, OSError, ValueError, TypeError):
            return None
        finally:
            redis.close()
        here, there = (str(ends.get(end, "")).rpartition(":")[0] for end in ("addr", "laddr"))
        name = f"the clock of Redis ({redis_place(self._url)})"
        return ClockReading(name, int(seconds) + int(micros) / 1e6, read_at, here != there)


class Timekeeper:
    """The clock of this machine, and what others say of it.

    Safe to use from several threads.
    """

    def __init__(
        self, wall: Clock = time.time, *, boot: Clock = boot_time, others: Sequence[OtherClock] = ()
    ) -> None:
        self._wall = wall
        self._boot = boot
        self._others = tuple(others)
        self._readings: tuple[ClockReading, ...] = ()
        self._asked_at: float | None = None
        self._believed: tuple[float, float] | None = None
        """This clock and `boot_time` when the first was last confirmed."""
        self._lock = threading.Lock()

    @classmethod
    def of_host(cls, archive: Archive, redis_url: str | None = None, wall: Clock | None = None) -> Timekeeper:
        """With the clocks of the ledger's database and of the operator's own Redis, if there is one."""
        others: list[OtherClock] = [DatabaseClock(archive)] if archive.backend == "postgresql" else []
        if redis_url is not None:
            others.append(RedisClock(redis_url))
        return cls(wall or time.time, others=others)

    def __call__(self) -> float:
        """Seconds since the epoch, believed or not."""
        return self._wall()

    def ask(self) -> None:
        """Asks the other clocks. A task does this every `ASK_EVERY_S`, so that no grant waits for it."""
        self._asked_at = self._boot()
        fresh = [reading for other in self._others if (reading := other.read(self._boot)) is not None]
        names = {reading.name for reading in fresh}
        # one that is away now is known by the clock that nobody sets
        self._readings = (*fresh, *(old for old in self._readings if old.name not in names))

    async def run(self) -> None:
        """Asks the other clocks until cancelled, so that no grant waits for them."""
        while True:
            await asyncio.to_thread(self.ask)
            await asyncio.sleep(ASK_EVERY_S)

    def believe(self, newest_ms: int, *, behind_s: float = TOLERANCE_S, unproven: bool = False) -> float:
        """The time now. Raises `ClockError` when this clock may not be believed.

        `newest_ms` is the time of the ledger's newest row (0: there is none), `behind_s` how far this clock
        may be behind it; `unproven`: it may be as far ahead of that row as it likes.
        """
        with self._lock:
            if self._asked_at is None or self._boot() - self._asked_at >= 2 * ASK_EVERY_S:
                self.ask()
            fault = self._fault(newest_ms, behind_s, unproven)
            if fault and self._boot() - (self._asked_at or 0.0) >= ASK_AGAIN_S and self._others:
                self.ask()
                fault = self._fault(newest_ms, behind_s, unproven)
            if fault:
                raise ClockError(fault)
            now, boot = self._wall(), self._boot()
            if self._believed is None or self._confirmed:
                self._believed = now, boot
            return now

    def told(self, at_ms: int) -> None:
        """An auditor has said a moment ago what the time is: believed from now on, if this clock says so."""
        with self._lock:
            now = self._wall()
            if abs(now - at_ms / 1000) <= TOLERANCE_S:
                self._believed = now, self._boot()

    @property
    def _confirmed(self) -> bool:
        return any(reading.elsewhere for reading in self._readings)

    def uncontradicted(self) -> float:
        """The time now, for an auditor's act that says it: only another clock may deny it, asked anew.

        Raises `ClockError`.
        """
        self.ask()
        if (fault := self._contradicted()) is not None:
            raise ClockError(fault)
        return self._wall()

    def _contradicted(self) -> str | None:
        """What another clock has against this one."""
        now, boot = self._wall(), self._boot()
        for reading in self._readings:
            since = boot - reading.read_at
            ahead_s = now - (reading.said + since)
            if abs(ahead_s) > TOLERANCE_S + CREEP * abs(since):
                return (
                    f"this machine's clock is {_apart(ahead_s)} {reading.name} (it says {_when(now)}); "
                    "set the wrong one right"
                )
        return None

    def _fault(self, newest_ms: int, behind_s: float, unproven: bool) -> str | None:
        if fault := self._contradicted():
            return fault
        now, boot = self._wall(), self._boot()
        behind = newest_ms / 1000 - now
        if behind > behind_s:
            return (
                f"this machine's clock is behind the ledger's newest row by {_span(behind)} "
                f"(it says {_when(now)}, the row {_when(newest_ms / 1000)}); set it right, or, if the row's "
                "time is wrong, an auditor says what the time is: voicegate ledger clock --help"
            )
        if self._confirmed:
            return None
        if self._believed is None:
            if newest_ms and -behind > UNPROVEN_S and not unproven:
                return (
                    f"this machine's clock is {_span(-behind)} ahead of the ledger's newest row, and no "
                    f"other clock confirms it (it says {_when(now)}); if that is the time, an auditor says "
                    "so once: voicegate ledger clock --help"
                )
            return None
        was, read_at = self._believed
        ahead_s = now - (was + boot - read_at)
        if abs(ahead_s) > TOLERANCE_S + CREEP * (boot - read_at):
            way = "ahead" if ahead_s > 0 else "back"
            return (
                f"this machine's clock jumped {_span(abs(ahead_s))} {way} since {_when(was)}, by the "
                f"machine's own count of time (it says {_when(now)}); set it right. If it is right now (the "
                "machine was paused), start the gateway again, or: voicegate ledger clock --help"
            )
        return None


def _apart(ahead_s: float) -> str:
    return f"{_span(abs(ahead_s))} {'ahead of' if ahead_s > 0 else 'behind'}"


def _span(seconds: float) -> str:
    for unit, size in (("days", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _when(at: float) -> str:
    try:
        return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, ValueError, OSError):
        return f"{at:.0f} s"
