"""A process with telephones' calls, as the supervisor starts it: two lines, one end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator

import pytest

from gateway.config.runtime import Runtime
from gateway.ipc.line_messages import CallLeft
from tests.gateway.conftest import short_folder
from tests.gateway.line.line_harness import TOKEN, FakeFront, FakeHall, is_tone, tone
from tests.gateway.rtp.rtp_exchange import RtpExchange
from tests.needs import HANGS_S

pytestmark = pytest.mark.asyncio


@contextlib.asynccontextmanager
async def a_house() -> AsyncIterator[RtpExchange]:
    """A front and a hall, for lines that are not in this process."""
    with short_folder() as folder:
        runtime = Runtime(folder)
        exchange = RtpExchange(runtime, await FakeFront(runtime).start(), await FakeHall(runtime).start())
        try:
            yield exchange
        finally:
            await exchange.close()


def argv(exchange: RtpExchange, *more: str) -> list[str]:
    words = [sys.executable, "-m", "gateway.rtp.sip_process", "--number", "3", "--hall", "hall0"]
    return [*words, "--runtime", str(exchange.runtime.path), *more]


ENVIRON = {**os.environ, "VOICEGATE_BOOT_TOKEN": TOKEN}


async def test_it_has_a_line_of_each_kind_and_all_its_calls_end_with_it() -> None:
    async with a_house() as exchange:
        process = await asyncio.create_subprocess_exec(
            *argv(exchange, "--narrow", "2", "--wide", "1"), env=ENVIRON
        )
        narrow, wide = await exchange.front.hears_hello("n3"), await exchange.front.hears_hello("w3")
        assert (narrow.kind, narrow.rate_hz, narrow.capacity) == ("narrow", 8_000, 2)
        assert (wide.kind, wide.rate_hz, wide.capacity) == ("wide", 16_000, 1)
        assert narrow.process == wide.process == "sip3"
        calls = [await exchange.call("n3"), await exchange.call("w3", "G722")]
        for phone, started in calls:
            exchange.hall.sounds[started.call] = tone(440, rate_hz=phone.coder.rate_hz)
            assert is_tone((await phone.hears(1.0, HANGS_S))[-6400:], 440, phone.coder.rate_hz)
        process.send_signal(signal.SIGTERM)
        for phone, _ in calls:
            await phone.request("BYE", HANGS_S)
            assert (
                await exchange.hall.hears(CallLeft, phone.call_id)
            ).how == "failed: the gateway was stopped"
        assert await asyncio.wait_for(process.wait(), HANGS_S) == 0


async def test_a_process_whose_supervisor_died_says_that_it_was_not_stopped() -> None:
    async with a_house() as exchange:
        line = shlex.join(argv(exchange, "--narrow", "1"))
        parent = await asyncio.create_subprocess_exec(
            "sh", "-c", f"{line} >&2 & echo $!; wait", env=ENVIRON, stdout=asyncio.subprocess.PIPE
        )
        assert parent.stdout is not None
        pid = int(await parent.stdout.readline())
        phone, _ = await exchange.call("n3")
        parent.kill()
        await parent.wait()
        os.kill(pid, signal.SIGTERM)  # as the kernel does when a parent dies
        await phone.request("BYE", HANGS_S)
        assert (await exchange.hall.hears(CallLeft, phone.call_id)).how == "failed: its line died"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "it is to take no calls: --narrow or --wide says how many"),
        (("--narrow", "256"), "256 is not in the range 0<=x<=255"),
        (("--wide", "101"), "101 is not in the range 0<=x<=100"),
    ],
)
async def test_what_it_cannot_do_is_said_in_a_line(more: tuple[str, ...], said: str) -> None:
    async with a_house() as exchange:
        process = await asyncio.create_subprocess_exec(
            *argv(exchange, *more), env=ENVIRON, stderr=asyncio.subprocess.PIPE
        )
        _, error = await asyncio.wait_for(process.communicate(), HANGS_S)
        assert process.returncode != 0
        assert said in error.decode()
        assert "Traceback" not in error.decode()
