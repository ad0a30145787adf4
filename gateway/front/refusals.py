"""Every refused call, by telephone or from a browser, is one event: logged, counted, and kept in SQL.

What is refused costs little: rows are written together, by a task that nobody waits for, and when too many
wait the newest are counted only.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from typing import Final

import structlog

from gateway.front.metrics import Metrics
from gateway.ipc.call_facts import CallFacts
from gateway.store.refused_calls import RefusedCall, RefusedCalls
from gateway.store.registry import RegistryError

log = structlog.get_logger("front")

WAITING: Final = 512
"""Rows that may wait to be written."""
AT_ONCE: Final = 64
"""Rows in one transaction: calls that are taken wait for it."""
PAUSE_S: Final = 0.5
OURS: Final = frozenset({401, 480})
"""What an operator should look at although it is no 5xx: a wrong password, a voice that may not be used."""


class Refusals:
    """See the module."""

    def __init__(self, table: RefusedCalls, metrics: Metrics) -> None:
        self._table = table
        self._metrics = metrics
        self._waiting: deque[RefusedCall] = deque()
        self._some = asyncio.Event()
        self._away = False
        self.unkept = 0
        """those that are in no row"""

    def note(
        self, facts: CallFacts, status: int, reason: str, *, sip_call_id: str = "", call_id: str | None = None
    ) -> None:
        """A call was not taken; `status` is what the caller heard. Never waits."""
        call = RefusedCall(
            call_id=call_id or secrets.token_hex(8),
            sip_call_id=sip_call_id,
            caller=facts.caller,
            called=facts.called,
            source=facts.source,
            transport=facts.transport,
            status=status,
            reason=reason,
            started_at=time.time(),
        )
        facts_in_log = {"sip_call_id": sip_call_id} if sip_call_id else {}
        (log.warning if status >= 500 or status in OURS else log.info)(
            "call.refused",
            call_id=call.call_id, status=status, reason=reason, caller=facts.caller, called=facts.called,
            source=facts.source, transport=facts.transport, **facts_in_log,
        )  # fmt: skip
        self._metrics.refused(status, facts.transport)
        if len(self._waiting) < WAITING:
            self._waiting.append(call)
            self._some.set()
        else:
            self.unkept += 1

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
