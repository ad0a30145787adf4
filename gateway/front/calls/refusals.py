"""Every refused call, by telephone or from a browser, is one event: logged, counted, and kept in SQL.

What is refused costs little: rows are written together, by a task that nobody waits for, and when too many
wait the newest are counted only; one source gets so many lines of the log in a minute, then one that says how
many more there were.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from gateway.front.house.metrics import Metrics
from gateway.ipc.call_facts import CallFacts
from gateway.store.call_events import CallNotTaken
from gateway.store.refused_calls import RefusedCall, RefusedCalls
from gateway.store.registry import RegistryError

log = structlog.get_logger("front")

WAITING: Final = 512
"""Rows that may wait to be written."""
AT_ONCE: Final = 64
"""Rows in one transaction: calls that are taken wait for it."""
PAUSE_S: Final = 0.5
LINES_OF_SOURCE: Final = 120
"""Lines of the log for the calls of one source within `LINES_S`."""
LINES_S: Final = 60.0
SOURCES: Final = 4096
LONGEST: Final = 256
"""Characters of what a stranger wrote."""
OURS: Final = frozenset({401, 480})
"""What an operator should look at although it is no 5xx: a wrong password, a voice that may not be used."""


Tell = Callable[[str, float, CallNotTaken], object]
"""Takes a call's id, when it came, and what is to be told of it."""


def _nobody(call_id: str, at: float, event: CallNotTaken) -> None:
    """Nobody is told."""


@dataclass(slots=True)
class _Lines:
    """The lines that one source's calls had in the minute that began at `began`, monotonic."""

    began: float
    count: int = 0


class Refusals:
    """See the module."""

    def __init__(self, table: RefusedCalls, metrics: Metrics, tell: Tell = _nobody) -> None:
        """`tell` has it told on, as an event (`gateway.front.events`)."""
        self._table = table
        self._metrics = metrics
        self._tell = tell
        self._waiting: deque[RefusedCall] = deque()
        self._some = asyncio.Event()
        self._away = False
        self._lines: OrderedDict[str, _Lines] = OrderedDict()
        self.unkept = 0
        """those that are in no row"""

    def note(
        self, facts: CallFacts, status: int, reason: str, *, sip_call_id: str = "", call_id: str | None = None
    ) -> str | None:
        """A call was not taken; `status` is what the caller heard. Never waits.

        Returns its id; None when its source has had so many that their messages are not kept.
        """
        call = RefusedCall(
            call_id=call_id or secrets.token_hex(8),
            sip_call_id=sip_call_id,
            caller=facts.caller[:LONGEST],
            called=facts.called[:LONGEST],
            source=facts.source,
            transport=facts.transport,
            status=status,
            reason=reason[:LONGEST],
            started_at=time.time(),
        )
        logged = self._may_log(facts.source)
        if logged:
            self._log(call)
        self._metrics.refused(status, facts.transport)
        told = CallNotTaken(
            caller=call.caller, called=call.called, source=call.source, transport=call.transport,
            status=status, reason=call.reason,
        )  # fmt: skip
        self._tell(call.call_id, call.started_at, told)
        if len(self._waiting) < WAITING:
            self._waiting.append(call)
            self._some.set()
        else:
            self.unkept += 1
        return call.call_id if logged else None

    def _log(self, call: RefusedCall) -> None:
        known = {"sip_call_id": call.sip_call_id} if call.sip_call_id else {}
        (log.warning if call.status >= 500 or call.status in OURS else log.info)(
            "call.refused",
            call_id=call.call_id, status=call.status, reason=call.reason, caller=call.caller,
            called=call.called, source=call.source, transport=call.transport, **known,
        )  # fmt: skip

    def _may_log(self, source: str) -> bool:
        """Whether one more line may be written for that source in this minute."""
        now = time.monotonic()
        lines = self._lines.get(source)
        if lines is None or now - lines.began > LINES_S:
            if lines is not None:
                self._sum_up(source, lines)
            lines = self._lines[source] = _Lines(now)
            self._lines.move_to_end(source)
            if len(self._lines) > SOURCES:
                self._sum_up(*self._lines.popitem(last=False))
        lines.count += 1
        return lines.count <= LINES_OF_SOURCE

    def _sum_up(self, source: str, lines: _Lines) -> None:
        if lines.count > LINES_OF_SOURCE:
            log.warning("calls.refused_unlogged", source=source, count=lines.count - LINES_OF_SOURCE)

    async def run(self) -> None:
        """Writes what waits, for as long as the front lives."""
        while True:
            await self._some.wait()
            await self.write()
            await asyncio.sleep(PAUSE_S)

    async def write(self) -> None:
        """Writes what waits; what the database does not take is lost, and said once."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            try:
                await asyncio.to_thread(self._table.note, batch)
            except RegistryError as error:
                self.unkept += len(batch)
                if not self._away:
                    log.error("refused_calls.not_kept", error=str(error))
                self._away = True
            else:
                self._away = False
        self._some.clear()
