"""The tick socket: real SOCK_SEQPACKET lines at a real `TickServer`."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.hall.calls.ticks import BACKLOG_TICKS, TickLine, TickServer
from gateway.ipc import tick
from gateway.ipc.codec import packed
from model import __version__
from tests.gateway.conftest import short_folder

HOUSE_TIME = True
TOKEN = "token of this boot"


class Turns:
    """Notes the seqs of each turn by line, and answers the newest tick of each."""

    def __init__(self) -> None:
        self.turns: list[dict[str, list[int]]] = []
        self.fails = False
        self._more = asyncio.Event()

    def __call__(self, lines: list[TickLine]) -> None:
        self.turns.append({line.name: [packet.seq for packet in line.waiting] for line in lines})
        self._more.set()
        if self.fails:
            raise RuntimeError("a bug")
        for line in lines:
            line.answer(tick.pack(line.waiting[-1].seq, []))
            line.waiting.clear()

    async def until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not happened():
                self._more.clear()
                await self._more.wait()


@pytest.fixture
async def served() -> AsyncIterator[tuple[TickServer, Turns, Path]]:
    with short_folder() as folder:
        turns = Turns()
        server = TickServer(folder / "hall0.tick", TOKEN, turns)
        await server.start()
        yield server, turns, folder / "hall0.tick"
        await server.stop()


async def connect(path: Path, **hello: object) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.setblocking(False)
    sock.connect(str(path))
    said = {"name": "n0", "rate_hz": 8_000, "token": TOKEN, "version": __version__} | hello
    body = packed({"tell": "tick.hello", "params": said})
    await asyncio.get_running_loop().sock_sendall(sock, body)
    return sock


async def hears(sock: socket.socket) -> tick.Tick:
    async with asyncio.timeout(10):
        return tick.unpack(await asyncio.get_running_loop().sock_recv(sock, tick.MAX_PACKET))


async def is_refused(sock: socket.socket) -> bool:
    async with asyncio.timeout(10):
        return await asyncio.get_running_loop().sock_recv(sock, 1) == b""


async def test_a_tick_is_answered_with_its_number(served: tuple[TickServer, Turns, Path]) -> None:
    _, _, path = served
    line = await connect(path)
    for seq in (1, 2, 2**32 - 1):
        line.send(tick.pack(seq, []))
        assert (await hears(line)).seq == seq
    line.close()


async def test_ticks_of_all_lines_are_one_turn(served: tuple[TickServer, Turns, Path]) -> None:
    server, turns, path = served
    lines = [await connect(path, name=f"n{k}") for k in range(4)]
    for line in lines:  # the first round teaches it who ticks
        line.send(tick.pack(1, []))
        await hears(line)
    for known in server.lines.values():
        known.ticked_at = float("inf")  # it ticks, however late this machine is
    turns.turns.clear()
    for line in lines:
        line.send(tick.pack(2, []))
    for line in lines:
        assert (await hears(line)).seq == 2
    assert sum(len(turn) for turn in turns.turns) == 4
    assert len(turns.turns) < 4, "they were gathered"
    for line in lines:
        line.close()


async def test_ticks_that_came_while_the_hall_was_late_come_together(
    served: tuple[TickServer, Turns, Path],
) -> None:
    _, turns, path = served
    line = await connect(path)
    line.send(tick.pack(1, []))
    await hears(line)
    for seq in range(2, 6):
        line.send(tick.pack(seq, []))
    assert (await hears(line)).seq == 5
    assert turns.turns[-1] == {"n0": [2, 3, 4, 5]}
    line.close()


async def test_a_backlog_is_bounded(served: tuple[TickServer, Turns, Path]) -> None:
    server, _, path = served
    line = await connect(path)
    line.send(tick.pack(1, []))
    await hears(line)
    known = server.lines["n0"]
    known.waiting.extend(tick.Tick(seq, []) for seq in range(500))
    server._readable(known)
    assert len(known.waiting) == BACKLOG_TICKS
    assert known.waiting[-1].seq == 499
    line.close()


async def test_a_turn_that_fails_does_not_silence_its_lines(served: tuple[TickServer, Turns, Path]) -> None:
    _, turns, path = served
    line = await connect(path)
    turns.fails = True
    line.send(tick.pack(1, []))
    await turns.until(lambda: len(turns.turns) == 1)
    turns.fails = False
    line.send(tick.pack(2, []))
    assert (await hears(line)).seq == 2
    assert turns.turns[-1] == {"n0": [2]}
    line.close()


@pytest.mark.parametrize(
    "hello",
    [
        {"token": "wrong"},
        {"token": "ключ"},
        {"rate_hz": 44_100},
        {"rate_hz": "fast"},
        {"rate_hz": None},
        {"version": "0.0.9"},
        {"version": None},
    ],
)
async def test_a_wrong_hello_is_refused(
    served: tuple[TickServer, Turns, Path], hello: dict[str, object]
) -> None:
    server, _, path = served
    line = await connect(path, **hello)
    assert await is_refused(line)
    assert server.lines == {}
    line.close()


@pytest.mark.parametrize("hello", [b"no json", b"[1]", b"{}"])
async def test_what_is_no_hello_is_refused(served: tuple[TickServer, Turns, Path], hello: bytes) -> None:
    _, _, path = served
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.setblocking(False)
    sock.connect(str(path))
    sock.send(hello)
    assert await is_refused(sock)
    sock.close()


async def test_a_line_that_sends_what_is_no_tick_is_dropped(served: tuple[TickServer, Turns, Path]) -> None:
    server, _, path = served
    line, other = await connect(path), await connect(path, name="n1")
    other.send(tick.pack(1, []))
    await hears(other)
    line.send(b"\x00" * 40)
    assert await is_refused(line)
    assert list(server.lines) == ["n1"]
    other.send(tick.pack(2, []))
    assert (await hears(other)).seq == 2
    line.close()
    other.close()


async def test_a_line_that_comes_back_takes_its_name_over(served: tuple[TickServer, Turns, Path]) -> None:
    server, _, path = served
    old = await connect(path)
    old.send(tick.pack(1, []))
    await hears(old)
    new = await connect(path)
    new.send(tick.pack(7, []))
    assert (await hears(new)).seq == 7
    assert await is_refused(old)
    assert list(server.lines) == ["n0"]
    old.close()
    new.close()


async def test_a_line_that_does_not_read_loses_frames_and_holds_up_nobody(
    served: tuple[TickServer, Turns, Path],
) -> None:
    server, _, path = served
    stuck, other = await connect(path), await connect(path, name="n1")
    other.send(tick.pack(1, []))
    await hears(other)
    stuck.send(tick.pack(1, []))
    await hears(stuck)
    sound = [tick.SlotAudio(1, 0, 0, 0, bytes(1920))]
    for seq in range(2000):
        server.lines["n0"].answer(tick.pack(seq, sound))
    other.send(tick.pack(2, []))
    assert (await hears(other)).seq == 2
    stuck.close()
    other.close()


async def test_the_socket_is_for_its_owner_only_and_gone_at_the_end(tmp_path: Path) -> None:
    with short_folder() as folder:
        path = folder / "hall0.tick"
        server = TickServer(path, TOKEN, Turns())
        await server.start()
        assert path.stat().st_mode & 0o777 == 0o600
        line = await connect(path)
        line.send(tick.pack(1, []))
        await hears(line)
        await server.stop()
        assert await is_refused(line)
        assert not path.exists()
        line.close()
