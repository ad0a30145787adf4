"""Frames that go into pjsua2 by address, and come out of it."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from gateway.phone.pcm_port import check_frame_layout


async def test_this_wheel_lays_out_its_frames_as_we_read_them() -> None:
    check_frame_layout()


@pytest.mark.parametrize("rate_hz", [8000, 16000])
async def test_what_one_port_plays_another_hears_to_the_byte(rate_hz: int) -> None:
    size = rate_hz // 50 * 2
    played = [os.urandom(size) for _ in range(20)]
    argv = [sys.executable, "-m", "tests.gateway.phone.port_pair", str(rate_hz), "30"]
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(10):
        out, _ = await process.communicate(b"".join(played))
    heard = [out[at : at + size] for at in range(0, len(out), size)]
    assert len(heard) == 30
    start = heard.index(played[0])
    assert heard[start : start + 20] == played
    assert set(heard[:start] + heard[start + 20 :]) <= {bytes(size)}
