"""Real SIP lines, shared by the tests of a module."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.gateway.line.exchange import Exchange, an_exchange
from tests.gateway.line.line_harness import silence


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened() -> AsyncIterator[Exchange]:
    """With a narrow line, n0, and a wide one, w0."""
    async with an_exchange() as exchange:
        await exchange.line("n0", "narrow")
        await exchange.line("w0", "wide")
        yield exchange


@pytest_asyncio.fixture(loop_scope="module")
async def exchange(opened: Exchange) -> AsyncIterator[Exchange]:
    """As every test finds it: no calls, a hall that answers every tick with silence."""
    yield opened
    await opened.clear()
    opened.hall.sound, opened.hall.silent = silence, False
