"""The lines' form of RPC, on a poll loop in a thread, against the real server."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gateway import __version__
from gateway.errors import RpcError
from gateway.ipc.envelope import Ask
from gateway.ipc.hello import Hello, LineCall, LineFacts
from gateway.ipc.line_messages import DropCall, KeyPressed
from gateway.ipc.line_wire import Wire
from gateway.ipc.poll_loop import Loop
from gateway.ipc.rpc import Peer, Server
from tests.gateway.conftest import short_folder

TOKEN = "token of this boot"
FACTS = LineFacts("narrow", 8_000, "hall0", 4, (LineCall("c1", 7, 0),), 5062)


@dataclass(frozen=True)
class Add(Ask[int]):
    wire: ClassVar[str] = "add"
    n: int


class House:
    """A server, and wires on a loop's thread of their own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.joined: asyncio.Queue[Peer] = asyncio.Queue()
        self.keys: asyncio.Queue[KeyPressed] = asyncio.Queue()
        self.loop = Loop()
        self.server = self.new_server()
        self._thread = threading.Thread(target=self.loop.run)
        self._thread.start()

    def new_server(self) -> Server:
        return Server(self.path, TOKEN, [KeyPressed.handled_by(self._pressed)], joined=self.joined.put)

    async def _pressed(self, _: Peer, key: KeyPressed) -> None:
        self.keys.put_nowait(key)

    def wire(self, hello: Callable[[], Hello] = lambda: Hello("line", "n0", TOKEN, line=FACTS)) -> Wire:
        handlers = [Add.handled_at_once_by(lambda _, asked: asked.n + 1), DropCall.handled_at_once_by(drop)]
        wire = Wire(self.loop, self.path, hello, handlers)
        self.loop.call(wire.connect)
        return wire

    def end(self) -> None:
        self.loop.stop()
        self._thread.join()


def drop(_: Wire, asked: DropCall) -> None:
    raise RpcError(f"no call {asked.call_id}")


@pytest.fixture
async def house() -> AsyncIterator[House]:
    with short_folder() as folder:
        opened = House(folder / "hall0.sock")
        await opened.server.start()
        yield opened
        await opened.server.stop()
        opened.end()


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    lines: list[tuple[str, dict[str, Any]]] = []
    for module in ("line_wire", "envelope"):
        monkeypatch.setattr(
            f"gateway.ipc.{module}.note", lambda _, event, **facts: lines.append((event, facts))
        )
    return lines


async def soon(queue: asyncio.Queue[Any]) -> Any:
    async with asyncio.timeout(10):
        return await queue.get()


async def test_a_line_says_hello_tells_and_answers(house: House) -> None:
    wire = house.wire()
    peer: Peer = await soon(house.joined)
    assert peer.hello == Hello("line", "n0", TOKEN, line=FACTS)
    house.loop.call(wire.tell, KeyPressed("c1", "5"))
    assert await soon(house.keys) == KeyPressed("c1", "5")
    assert await peer.ask(Add(4)) == 5
    with pytest.raises(RpcError, match=r"^no call c9$"):
        await peer.ask(DropCall("c9"))


async def test_what_a_line_does_not_understand_is_refused_and_noted(
    house: House, noted: list[tuple[str, dict[str, Any]]]
) -> None:
    house.wire()
    peer: Peer = await soon(house.joined)
    with pytest.raises(RpcError, match="add, field n: expected a whole number, got text"):
        await peer.ask(Add("four"))  # type: ignore[arg-type]  # a bug
    peer.tell(KeyPressed("c1", "5"))
    with pytest.raises(RpcError, match=r"nobody here knows 'call\.dtmf'"):
        await peer.ask(Odd())
    assert await peer.ask(Add(1)) == 2, "the connection is as good as before"
    assert [event for event, _ in noted] == ["rpc.not_understood"] * 3


@dataclass(frozen=True)
class Odd(Ask[None]):
    wire: ClassVar[str] = "call.dtmf"


async def test_a_server_that_comes_back_is_found_again(house: House) -> None:
    house.wire()
    await soon(house.joined)
    await house.server.stop()
    house.server = house.new_server()
    await house.server.start()
    peer: Peer = await soon(house.joined)
    assert await peer.ask(Add(1)) == 2


async def test_a_line_of_another_version_is_refused_and_both_sides_say_so(
    house: House, noted: list[tuple[str, dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    versions = iter(["0.0.9", __version__])
    house.wire(lambda: Hello("line", "n0", TOKEN, version=next(versions)))
    await soon(house.joined)  # the next try is of this version
    why = f"n0 is of version 0.0.9, this process of {__version__}: restart the gateway"
    assert ("rpc.refused_by", {"socket": "hall0.sock", "error": why}) in noted
    assert why in capsys.readouterr().out


async def test_the_hello_is_what_json_makes_of_it(house: House) -> None:
    """What the engine writes by hand (`model.reference`) and what lines write is one form."""
    reader, writer = await asyncio.open_unix_connection(house.path)
    params = {"role": "engine", "name": "engine", "token": TOKEN, "version": __version__}
    body = json.dumps({"tell": "hello", "params": params}).encode()
    writer.write(len(body).to_bytes(4, "big") + body)
    peer: Peer = await soon(house.joined)
    assert peer.hello == Hello("engine", "engine", TOKEN)
    writer.close()
    await reader.read()
