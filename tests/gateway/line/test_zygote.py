"""The zygote forks real lines, tells of their deaths, and leaves none behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import ClassVar

import pytest
import pytest_asyncio

from gateway.errors import RpcError
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.envelope import Ask
from gateway.ipc.framing import MAX_MESSAGE, framed
from gateway.ipc.line_messages import AnswerCall, CallLeft, CallStarted
from gateway.line.line_plan import RTP_PORTS
from gateway.line.zygote import FAREWELL_S
from gateway.line.zygote_messages import LineDied
from model import __version__
from tests.gateway.line.exchange import Exchange, ZygoteProcess, an_exchange, gone
from tests.needs import HANGS_S

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def dying() -> AsyncIterator[Exchange]:
    """An exchange of a test's own, whose zygote ends in it; with two lines."""
    async with an_exchange() as exchange:
        await exchange.line("n0")
        await exchange.line("n1")
        yield exchange


async def no_line_is_left(exchange: Exchange, within_s: float = 5.0) -> None:
    for pid in exchange.pids.values():
        await gone(pid, within_s)


# ── forking ──────────────────────────────────────────────────────────────────────────────────────────


async def test_a_line_that_is_killed_is_told_of_and_its_next_takes_calls(exchange: Exchange) -> None:
    await exchange.call()
    killed = exchange.pids["n0"]
    os.kill(killed, signal.SIGKILL)
    assert await exchange.zygote.tells_death() == LineDied("n0", killed, -signal.SIGKILL)
    await exchange.front.misses("n0")
    await exchange.hall.misses("n0")
    await exchange.line("n0")
    assert exchange.pids["n0"] != killed
    await exchange.call()


async def test_a_line_that_is_told_to_stop_says_bye_and_ends_well(exchange: Exchange) -> None:
    await exchange.line("n1")
    phone, _ = await exchange.call("n1")
    os.kill(exchange.pids["n1"], signal.SIGTERM)
    await phone.request("BYE")
    assert await exchange.hall.hears(CallLeft) == CallLeft(phone.call_id, CallEnding(End.GATEWAY_STOPPED))
    assert await exchange.zygote.tells_death() == LineDied("n1", exchange.pids["n1"], 0)


async def test_a_line_does_what_its_plan_says(exchange: Exchange) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    await exchange.line("w1", "wide", sip_port=port, rtp_port=31_000, capacity=1, public_address="192.0.2.7")
    facts = await exchange.front.hears_hello("w1")
    assert (facts.kind, facts.rate_hz, facts.sip_port, facts.capacity) == ("wide", 16_000, port, 1)
    phone = await exchange.phone("w1", "G722")
    phone.invite()
    await exchange.hall.hears(CallStarted, phone.call_id)
    await exchange.hall.ask(AnswerCall(phone.call_id))
    answer = await phone.final()
    phone.acknowledge()
    assert "c=IN IP4 192.0.2.7\r\n" in answer.body
    assert phone.media is not None
    assert 31_000 <= phone.media[1] < 31_000 + RTP_PORTS
    second = await exchange.phone("w1", "G722")
    assert (await second.invited()).status == 486


async def test_a_line_that_cannot_start_says_why_and_is_told_of(exchange: Exchange) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        pid = await exchange.zygote.forks(exchange.plan("n9", sip_port=port))
        assert await exchange.zygote.tells_death() == LineDied("n9", pid, 1)
    failed = await exchange.zygote.notes("process.failed")
    assert failed["process"] == "n9"
    assert failed["error"] == f"cannot listen on UDP 127.0.0.1:{port}: Address already in use"


@dataclass(frozen=True)
class Odd(Ask[int]):
    """What nobody has taught the zygote."""

    wire: ClassVar[str] = "line.dance"


async def test_what_it_does_not_know_is_refused_and_it_forks_on(exchange: Exchange) -> None:
    with pytest.raises(RpcError, match=r"nobody here knows 'line\.dance'"):
        await exchange.zygote.peer.ask(Odd())
    with pytest.raises(RpcError, match=r"line\.fork, field plan\.kind: expected one of 'narrow', 'wide'"):
        await exchange.zygote.forks(exchange.plan("n9", "huge"))  # type: ignore[arg-type]  # a bug
    await exchange.line("n1")


async def test_ctrl_c_is_the_supervisors_to_interpret(exchange: Exchange) -> None:
    phone, call = await exchange.call()
    exchange.zygote.process.send_signal(signal.SIGINT)
    os.kill(exchange.pids["n0"], signal.SIGINT)
    await exchange.hall.hears_ticks(call.call, 10)
    await phone.hang_up()
    await exchange.line("n2")


# ── who starts it ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("argv", "token", "why"),
    [
        ([], "t", "is started by the supervisor"),
        (["--fd", "99"], "t", "is started by the supervisor"),
        (["--fd", "0"], "", "VOICEGATE_BOOT_TOKEN is not set"),
    ],
)
async def test_by_hand_it_says_who_starts_it(argv: list[str], token: str, why: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        started = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-m", "gateway.line.zygote", *argv], stdin=theirs,
            capture_output=True, text=True, timeout=HANGS_S,
            env={**os.environ, "VOICEGATE_BOOT_TOKEN": token},
        )  # fmt: skip
    assert started.returncode == 1
    assert why in started.stderr
    assert "Traceback" not in started.stderr


async def test_a_supervisor_of_another_version_is_refused_and_the_zygote_ends(exchange: Exchange) -> None:
    zygote = await ZygoteProcess.start()
    await zygote.greet(version="0.0.9")
    with pytest.raises(RpcError, match=rf"supervisor is of version 0\.0\.9, this process of {__version__}"):
        await zygote.forks(exchange.plan("n9"))
    assert await zygote.ends() == 0


@pytest.mark.parametrize("said", ["a wrong token", "no hello", "too much"])
async def test_who_does_not_know_the_token_forks_nothing(said: str) -> None:
    zygote = await ZygoteProcess.start()
    if said == "a wrong token":
        await zygote.greet(token="wrong")
    else:
        no_hello = framed(b'{"ask": 1, "method": "line.fork", "params": {}}')
        too_much = (MAX_MESSAGE + 1).to_bytes(4, "big")
        await zygote.says_raw(no_hello if said == "no hello" else too_much)
    assert await zygote.ends() == 0


# ── ends ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_when_its_supervisor_is_gone_lines_say_bye_and_end(dying: Exchange) -> None:
    phone, _ = await dying.call("n1")
    dying.zygote.let_go()
    await phone.request("BYE")
    assert await dying.hall.hears(CallLeft) == CallLeft(phone.call_id, CallEnding(End.GATEWAY_STOPPED))
    await no_line_is_left(dying)
    assert await dying.zygote.ends() == 0


async def test_sigterm_ends_it_and_its_lines(dying: Exchange) -> None:
    phone, _ = await dying.call("n1")
    dying.zygote.process.terminate()
    await phone.request("BYE")
    await no_line_is_left(dying)
    assert await dying.zygote.ends() == 0


async def test_when_it_is_killed_its_lines_say_bye_and_end_with_it(dying: Exchange) -> None:
    phone, _ = await dying.call("n1")
    os.kill(dying.pids["n0"], signal.SIGSTOP)
    dying.zygote.process.kill()
    async with asyncio.timeout(5):
        await (
            dying.zygote.peer.closed.wait()
        )  # a line that hangs does not hold the zygote's end of the socket
    await phone.request("BYE")
    os.kill(dying.pids["n0"], signal.SIGCONT)
    await no_line_is_left(dying)


async def test_a_line_that_hangs_is_killed_at_the_farewell(dying: Exchange) -> None:
    os.kill(dying.pids["n0"], signal.SIGSTOP)
    loop = asyncio.get_running_loop()
    asked_at = loop.time()
    dying.zygote.let_go()
    await gone(dying.pids["n1"])
    os.kill(dying.pids["n0"], 0)  # still there
    await no_line_is_left(dying, FAREWELL_S + 2)
    assert loop.time() - asked_at >= FAREWELL_S - 0.1
    await dying.zygote.ends()
