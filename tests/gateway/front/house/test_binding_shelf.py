"""Changes of where telephones are wait for the database together, a while, and not in any number."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from gateway.errors import BindingsNotKept
from gateway.front.house import binding_shelf as module
from gateway.front.house.binding_shelf import KeptBindings
from gateway.ipc.binding import Binding
from gateway.store.registry import RegistryError
from tests.gateway.store.test_sip_bindings import binding


class Table:
    """A table that writes when it may."""

    def __init__(self) -> None:
        self.writes: list[tuple[list[Binding], list[Binding]]] = []
        self.fails = False
        self.may = threading.Event()
        self.may.set()

    def keep(self, put: Sequence[Binding], gone: Sequence[Binding]) -> None:
        self.may.wait(10)
        if self.fails:
            raise RegistryError("the disk is full")
        self.writes.append((list(put), list(gone)))


async def test_changes_that_wait_are_one_transaction_and_the_last_one_holds() -> None:
    table = Table()
    shelf = KeptBindings(table)  # type: ignore[arg-type]
    first, second = binding(cseq=1), binding(cseq=2)
    asked = [
        asyncio.ensure_future(shelf.keep(*change))
        for change in (([first], []), ([second], []), ([], [second]))
    ]
    await asyncio.sleep(0)
    await shelf.write()
    await asyncio.gather(*asked)
    assert table.writes == [([], [second])]


async def test_a_telephone_hears_that_the_database_failed() -> None:
    table = Table()
    table.fails = True
    shelf = KeptBindings(table)  # type: ignore[arg-type]
    asked = asyncio.ensure_future(shelf.keep([binding()], []))
    await asyncio.sleep(0)
    await shelf.write()
    with pytest.raises(BindingsNotKept, match="the disk is full"):
        await asked


async def test_a_database_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WITHIN_S", 0.05)
    monkeypatch.setattr(module, "WAITING", 2)
    table = Table()
    table.may.clear()
    shelf = KeptBindings(table)  # type: ignore[arg-type]
    running = asyncio.ensure_future(shelf.run())
    try:
        with pytest.raises(BindingsNotKept, match="within"):
            await shelf.keep([binding()], [])
        waiting = [asyncio.ensure_future(shelf.keep([binding()], [])) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(BindingsNotKept, match="too many"):
            await shelf.keep([binding()], [])
        for one in waiting:
            with pytest.raises(BindingsNotKept):
                await one
    finally:
        table.may.set()
        running.cancel()
