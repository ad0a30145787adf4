"""The zygote forks lines on request and tells of their deaths; real processes, and a real call's way in."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from gateway import __version__
from gateway.config.runtime import Runtime
from gateway.errors import RpcError
from gateway.line.line_plan import CAPACITY
from gateway.line.zygote_messages import LineDied
from tests.gateway.conftest import short_folder
from tests.gateway.line.line_harness import House, Zygote


async def test_a_line_is_forked_and_its_death_is_told() -> None:
    with short_folder() as folder:
        async with House(folder) as house:
            assert 0 < await house.line() < 65536
            facts = (await house.hall.line("n0")).hello.line
            assert facts is not None
            assert (facts.kind, facts.rate_hz, facts.hall, facts.capacity) == (
                "narrow",
                8_000,
                "h0",
                CAPACITY,
            )
            os.kill(house.zygote.pids["n0"], signal.SIGKILL)
            async with asyncio.timeout(10):
                died = await house.zygote.deaths.get()
            assert died == LineDied("n0", house.zygote.pids["n0"], -signal.SIGKILL)


async def test_a_supervisor_of_another_version_is_refused_and_the_zygote_ends(tmp_path: Path) -> None:
    zygote = Zygote()
    await zygote.start(version="0.0.9")
    with pytest.raises(RpcError, match=rf"supervisor is of version 0\.0\.9, this process of {__version__}"):
        await zygote.fork(Runtime(tmp_path), "n0", "narrow", "h0")
    assert zygote.process is not None
    async with asyncio.timeout(10):
        assert await zygote.process.wait() == 0


async def test_who_does_not_know_the_token_forks_nothing(tmp_path: Path) -> None:
    zygote = Zygote()
    await zygote.start(token="wrong")
    with pytest.raises(RpcError, match="lost"):
        await zygote.fork(Runtime(tmp_path), "n0", "narrow", "h0")
    await zygote.stop()
