"""The house in memory, for test modules that say `HOUSE_TIME = True`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway.hall.virtual_hall import House
from tests.house_time import HouseLoop


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, HouseLoop), "the module must say HOUSE_TIME = True"
    opened = House(tmp_path)
    await opened.open()
    yield opened
    await opened.close()
    assert opened.engine.wrongs == []
