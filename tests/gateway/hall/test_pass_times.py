"""The figures of the last seconds' passes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.hall.calls.pass_times import FEWEST, KEPT, WINDOW_S, PassFigures, PassTimes
from gateway.hall.calls.ticks import TickLine, TickServer
from gateway.hall.media.audio import FRAME_S
from gateway.ipc import tick
from gateway.ipc.codec import packed
from model import __version__
from tests.gateway.conftest import short_folder

HOUSE_TIME = True
TOKEN = "token of this boot"


def test_nothing_is_said_of_a_few_passes() -> None:
    times = PassTimes()
    for number in range(FEWEST - 1):
        times.note(100 + number * FRAME_S, 0.5, 0.5)
    assert times.figures(101.0) == PassFigures()


def test_the_slowest_of_a_hundred_is_told_and_one_of_a_thousand_is_not() -> None:
    times = PassTimes()
    for number in range(200):
        slow = number % 100 < 2
        times.note(100 + number * FRAME_S, 0.03 if slow else 0.001, 0.02 if slow else 0.002)
    figures = times.figures(104.0)
    assert (figures.took_s, figures.late_s) == (0.02, 0.03)
    assert figures.late_share == pytest.approx(0.02)
    times = PassTimes()
    for number in range(200):
        times.note(100 + number * FRAME_S, 0.0, 0.5 if number == 7 else 0.002)
    assert times.figures(104.0).took_s == 0.002


def test_what_is_older_than_the_window_is_forgotten() -> None:
    times = PassTimes()
    for number in range(3 * KEPT):
        times.note(100 + number * FRAME_S, 0.0, 0.5)
    at = 100 + 3 * KEPT * FRAME_S
    assert times.figures(at).took_s == 0.5
    for number in range(round(WINDOW_S / FRAME_S) + 1):
        times.note(at + number * FRAME_S, 0.0, 0.001)
    assert times.figures(at + WINDOW_S + FRAME_S).took_s == 0.001
    assert times.figures(at + 100.0) == PassFigures()


# ── at the ticks ─────────────────────────────────────────────────────────────────────────────────────────


def answered(lines: list[TickLine]) -> None:
    for line in lines:
        line.answer(tick.pack(line.waiting[-1].seq, []))
        line.waiting.clear()


@pytest.fixture
async def ticking() -> AsyncIterator[tuple[TickServer, socket.socket]]:
    """A server, and a line that says hello."""
    with short_folder() as folder:
        server = TickServer(folder / "hall0.tick", TOKEN, answered)
        await server.start()
        yield server, await connect(folder / "hall0.tick")
        await server.stop()


async def connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.setblocking(False)
    sock.connect(str(path))
    hello = {"name": "n0", "rate_hz": 8_000, "token": TOKEN, "version": __version__}
    await asyncio.get_running_loop().sock_sendall(sock, packed({"tell": "tick.hello", "params": hello}))
    return sock


async def beats(line: socket.socket, gaps_s: list[float], begin: int = 0) -> None:
    """Ticks, each so long after the one before."""
    loop = asyncio.get_running_loop()
    for seq, gap_s in enumerate(gaps_s, begin):
        await asyncio.sleep(gap_s)
        line.send(tick.pack(seq, []))
        await loop.sock_recv(line, tick.MAX_PACKET)


async def test_ticks_in_time_are_not_late(ticking: tuple[TickServer, socket.socket]) -> None:
    server, line = ticking
    await beats(line, [FRAME_S] * 100)
    figures = server.times.figures(asyncio.get_running_loop().time())
    assert figures.late_s == pytest.approx(0.0, abs=1e-4)
    line.close()


async def test_a_tick_that_comes_after_60_ms_is_40_ms_late(ticking: tuple[TickServer, socket.socket]) -> None:
    server, line = ticking
    await beats(line, [FRAME_S] * 95 + [0.060] * 5)
    figures = server.times.figures(asyncio.get_running_loop().time())
    assert figures.late_s == pytest.approx(0.040, abs=1e-4)
    assert figures.late_share == pytest.approx(0.05)
    line.close()


async def test_a_line_that_had_no_call_is_not_late(ticking: tuple[TickServer, socket.socket]) -> None:
    server, line = ticking
    await beats(line, [FRAME_S] * 60)
    await asyncio.sleep(2.0)
    await beats(line, [FRAME_S] * 60)
    figures = server.times.figures(asyncio.get_running_loop().time())
    assert figures.late_s == pytest.approx(0.0, abs=1e-4)
    line.close()


async def test_ticks_that_waited_together_were_late(ticking: tuple[TickServer, socket.socket]) -> None:
    server, line = ticking
    loop = asyncio.get_running_loop()
    for _ in range(60):  # nobody read for 60 ms, again and again
        for seq in range(3):
            line.send(tick.pack(seq, []))
        await loop.sock_recv(line, tick.MAX_PACKET)
        await asyncio.sleep(0.6)
        server.lines["n0"].ticked_at = loop.time() - 60.0
    late_s = [float(late_s) for late_s in server.times._late_s[:60]]
    assert late_s == pytest.approx([0.040] * 60, abs=1e-4)
    line.close()
