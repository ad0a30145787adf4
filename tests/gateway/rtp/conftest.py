"""RTP lines, shared by the tests of a module."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.gateway.line.line_harness import silence
from tests.gateway.rtp.rtp_exchange import RtpExchange, an_rtp_exchange


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened() -> AsyncIterator[RtpExchange]:
    """With a narrow line, n0, and a wide one, w0."""
    async with an_rtp_exchange() as exchange:
        await exchange.line("n0", "narrow")
        await exchange.line("w0", "wide")
        yield exchange


@pytest_asyncio.fixture(loop_scope="module")
async def exchange(opened: RtpExchange) -> AsyncIterator[RtpExchange]:
    """As every test finds it: no calls, a hall that answers every tick with silence."""
    yield opened
    await opened.clear()
    opened.hall.sound, opened.hall.silent = silence, False
