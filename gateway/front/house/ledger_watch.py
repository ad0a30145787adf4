"""What the front asks of the office each second: how the ledger is witnessed, and which keys sign.

An alarm is raised for each thing that the office finds wrong with the witnesses. The gateway's copy of the
office's public keys, which halls and engines follow, is kept new.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from consent.errors import OfficeAway
from consent.service.front_office import FrontOffice
from gateway.front.house.metrics import Metrics

LEDGER_S: Final = 1.0
"""How often the office is asked."""


class LedgerWatch:
    """Asks the office; raises alarms in the metrics."""

    def __init__(self, office: FrontOffice, metrics: Metrics) -> None:
        self._office = office
        self._metrics = metrics

    async def run(self) -> None:
        """Asks every `LEDGER_S`, until cancelled."""
        known = 0
        while True:
            with contextlib.suppress(OfficeAway):
                alarms = await asyncio.to_thread(self._office.look_at_ledger)
                if alarms > known:
                    self._metrics.alarm("ledger unwitnessed")
                known = alarms  # an office that began anew counts anew
                await asyncio.to_thread(self._office.publish_keys)
            await asyncio.sleep(LEDGER_S)
