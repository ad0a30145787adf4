"""Once a minute the front has the consent ledger seal what the registry of calls entered or ended since."""

from __future__ import annotations

import asyncio

import structlog

from consent.errors import ConsentError
from consent.ledger.call_leaf import SEAL_EVERY_S
from consent.service.front_office import FrontOffice
from gateway.store.call_leaves import CallLeaves
from gateway.store.registry import Registry, RegistryError

log = structlog.get_logger("front")


class RegistrySeal:
    """Seals a registry's calls by an office. Nothing is written when nothing happened."""

    def __init__(self, registry: Registry, office: FrontOffice) -> None:
        self._leaves = CallLeaves(registry)
        self._office = office

    async def run(self) -> None:
        """Until cancelled. What cannot be sealed waits for the next minute."""
        while True:
            await asyncio.sleep(SEAL_EVERY_S)
            await self.seal()

    async def seal(self) -> int:
        """Seals what waits; returns how many leaves."""
        try:
            return await asyncio.to_thread(self.seal_now)
        except (ConsentError, RegistryError) as error:
            log.error("registry.not_sealed", error=str(error))
            return 0

    def seal_now(self) -> int:
        """As `seal` does, blocking. Raises `ConsentError`, `RegistryError`."""
        count = 0
        for batch, leaves in self._leaves.waiting():
            if leaves:
                self._leaves.sealed(batch, self._office.seal_calls(batch, leaves))
            count += len(leaves)
        return count
