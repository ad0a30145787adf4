"""Trunks that are taken while the edge runs: who is as before goes on, nobody else is remembered."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.edge.trunks.trunk import Trunk, TrunkHost
from gateway.edge.trunks.trunk_desk import TrunkDesk
from gateway.edge.trunks.trunk_ways import TrunkWay
from gateway.errors import NoFlow, SettingsError

HOUSE_TIME = True


def trunk(name: str, **more: Any) -> Trunk:
    return Trunk(name=name, hosts=(TrunkHost("192.0.2.1", 5060),), prefixes=("+49",), ping_s=0, **more)


def desk(*trunks: Trunk) -> TrunkDesk:
    board: Any = SimpleNamespace(
        config=SimpleNamespace(trust=lambda *_: None), transactions=None, toward_callers=None, dialogs=(),
        ports=SimpleNamespace(unwelcome=list),
    )  # fmt: skip
    return TrunkDesk(trunks, board, lambda _: [], lambda *_: None)


async def test_who_is_as_before_goes_on_and_who_changed_begins_anew() -> None:
    one, two = trunk("one"), trunk("two", calls=1)
    opened = desk(one, two, trunk("three"))
    kept, use = opened.known["one"], opened.use["two"]
    assert use.take("+4930") is None
    opened.take([trunk("one"), replace(two, calls=2, register=True, user="u"), trunk("four")])
    assert set(opened.known) == set(opened.use) == {"one", "two", "four"}
    assert opened.known["one"] is kept
    assert opened.use["two"] is use, "the calls that it has still count"
    assert use.take("+4930") is None
    assert use.take("+4930") is not None, "and the new bound holds"
    assert set(opened.registrations) == {"two"}
    opened.take([])
    assert opened.state() == ()
    with pytest.raises(NoFlow, match="no trunk one"):
        await opened.connect(TrunkWay("udp", "192.0.2.1", 5060, trunk="one"))


async def test_a_house_without_trunks_looks_after_those_that_come() -> None:
    opened = desk()
    looking = asyncio.create_task(opened.look_after())
    await asyncio.sleep(1.0)
    opened.take([trunk("one")])
    await asyncio.sleep(5.0)
    assert opened.known["one"].ways.all, "its address was looked up"
    opened.take([])
    await asyncio.sleep(5.0)
    assert not looking.done()
    looking.cancel()


def test_files_that_do_not_hold_change_nothing(tmp_path: Path) -> None:
    opened = desk(trunk("one"))
    before = dict(opened.known)
    with pytest.raises(SettingsError):
        opened.take([trunk("two", authority=tmp_path / "none.pem", known_by="certificate")])
    assert opened.known == before
