"""Keeps where registered telephones are: many changes in a transaction, each waited for by its telephone."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.errors import BindingsNotKept
from gateway.ipc.binding import Binding
from gateway.store.registry import RegistryError
from gateway.store.sip_bindings import SipBindings

WAITING: Final = 256
"""Changes that may wait to be written; a telephone whose change is one too many is told to come back."""
AT_ONCE: Final = 32
"""Changes in one transaction: calls that are taken wait for it."""
WITHIN_S: Final = 6.0
"""How long a telephone waits: it repeats its REGISTER, and gives up after 32 s."""


@dataclass(slots=True, eq=False)
class _Change:
    put: Sequence[Binding]
    gone: Sequence[Binding]
    kept: asyncio.Future[None]


class KeptBindings:
    """The edge's `BindingShelf`, on the registry's database."""

    def __init__(self, table: SipBindings) -> None:
        self._table = table
        self._waiting: deque[_Change] = deque()
        self._some = asyncio.Event()

    async def load(self) -> list[Binding]:
        """What the front before this one kept. Raises `RegistryError`."""
        return await asyncio.to_thread(self._table.load)

    async def keep(self, put: Sequence[Binding], gone: Sequence[Binding]) -> None:
        """Returns when the change is in the database. Raises `BindingsNotKept`."""
        if len(self._waiting) >= WAITING:
            raise BindingsNotKept("too many changes wait for the database")
        change = _Change(put, gone, asyncio.get_running_loop().create_future())
        self._waiting.append(change)
        self._some.set()
        try:
            async with asyncio.timeout(WITHIN_S):
                await change.kept
        except TimeoutError:
            raise BindingsNotKept(f"the database took no change within {WITHIN_S:g} s") from None

    async def forget_expired(self) -> None:
        """Raises `BindingsNotKept`."""
        try:
            await asyncio.to_thread(self._table.forget_expired)
        except RegistryError as error:
            raise BindingsNotKept(str(error)) from None

    async def run(self) -> None:
        """Writes what waits, for as long as the front lives."""
        while True:
            await self._some.wait()
            await self.write()

    async def write(self) -> None:
        """Writes what waits and is still waited for."""
        while self._waiting:
            some = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            batch = [change for change in some if not change.kept.done()]
            failed: BindingsNotKept | None = None
            try:
                await asyncio.to_thread(self._write, batch)
            except RegistryError as error:
                failed = BindingsNotKept(str(error))
            for change in batch:
                if not change.kept.done():
                    change.kept.set_exception(failed) if failed else change.kept.set_result(None)
        self._some.clear()

    def _write(self, batch: Sequence[_Change]) -> None:
        """One transaction; of two changes of a binding the later one holds. Raises `RegistryError`."""
        last: dict[tuple[str, str], tuple[Binding, bool]] = {}
        for change in batch:
            last.update({(one.user, one.key): (one, False) for one in change.gone})
            last.update({(one.user, one.key): (one, True) for one in change.put})
        put = [one for one, stays in last.values() if stays]
        self._table.keep(put, [one for one, stays in last.values() if not stays])
