"""Requests between processes, over real unix sockets."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import RpcError, RpcTimeout
from gateway.ipc.rpc import BACKLOG_LIMIT, MAX_MESSAGE, Peer, Server, connect, encode
from tests.gateway.conftest import short_folder

TOKEN = "token of this boot"


class Desk:
    """A server whose handlers note what they were told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.joined: asyncio.Queue[Peer] = asyncio.Queue()
        self.left: asyncio.Queue[Peer] = asyncio.Queue()
        self.told: asyncio.Queue[Any] = asyncio.Queue()
        self.release = asyncio.Event()
        handlers = {
            "echo": self.echo, "refuse": self.refuse, "fail": self.fail, "wait": self.wait,
            "much": self.much, "odd": self.odd, "note": self.note,
        }  # fmt: skip
        self.server = Server(path, TOKEN, handlers, joined=self.joined.put, left=self.left.put)

    async def echo(self, peer: Peer, **params: Any) -> Any:
        return [peer.name, params]

    async def refuse(self, _: Peer) -> None:
        raise RpcError("not today")

    async def fail(self, _: Peer) -> None:
        raise KeyError("a bug")

    async def wait(self, _: Peer) -> str:
        await self.release.wait()
        return "late"

    async def much(self, _: Peer) -> str:
        return "x" * (MAX_MESSAGE + 1)

    async def odd(self, _: Peer) -> object:
        return object()

    async def note(self, _: Peer, **params: Any) -> None:
        self.told.put_nowait(params)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    with short_folder() as folder:
        opened = Desk(folder / "desk.sock")
        await opened.server.start()
        yield opened
        await opened.server.stop()


async def soon(awaitable: Any) -> Any:
    async with asyncio.timeout(10):
        return await awaitable


async def visit(desk: Desk, **handlers: Any) -> Peer:
    return await connect(desk.path, TOKEN, handlers, role="line", name="n0")


async def raw(desk: Desk, *messages: bytes) -> asyncio.StreamReader:
    reader, writer = await asyncio.open_unix_connection(desk.path)
    for message in messages:
        writer.write(message)
    reader.writer = writer  # type: ignore[attr-defined]  # kept open for as long as the reader
    return reader


def hello(**more: object) -> bytes:
    return encode({"tell": "hello", "params": {"name": "n0", "token": TOKEN, **more}})


async def test_both_sides_ask_and_tell(desk: Desk) -> None:
    async def ping(_: Peer, n: int) -> int:
        return n + 1

    here = await visit(desk, ping=ping)
    assert await here.ask("echo", a=1, b=["ü"]) == ["n0", {"a": 1, "b": ["ü"]}]
    there = await soon(desk.joined.get())
    assert there.hello["role"] == "line"
    assert await there.ask("ping", n=4) == 5
    here.tell("note", what="rain")
    assert await soon(desk.told.get()) == {"what": "rain"}
    here.close()


async def test_answers_find_their_questions_in_any_order(desk: Desk) -> None:
    here = await visit(desk)
    slow = asyncio.ensure_future(here.ask("wait", 10.0))
    assert await here.ask("echo", n=1) == ["n0", {"n": 1}]
    desk.release.set()
    assert await slow == "late"
    here.close()


async def test_a_refusal_comes_back_in_its_own_words(desk: Desk) -> None:
    here = await visit(desk)
    with pytest.raises(RpcError, match=r"^not today$"):
        await here.ask("refuse")
    with pytest.raises(RpcError, match="nobody here knows 'dance'"):
        await here.ask("dance")
    here.close()


@pytest.mark.parametrize("method", ["fail", "much", "odd"])
async def test_a_handler_that_fails_answers_all_the_same(desk: Desk, method: str) -> None:
    here = await visit(desk)
    with pytest.raises(RpcError) as error:
        await here.ask(method, 10.0)
    assert not isinstance(error.value, RpcTimeout)
    assert await here.ask("echo") == ["n0", {}], "the connection is as good as before"
    here.close()


async def test_wrong_params_are_an_error_and_no_more(desk: Desk) -> None:
    here = await visit(desk)
    with pytest.raises(RpcError, match="unexpected keyword"):
        await here.ask("refuse", surprise=1)
    assert await here.ask("echo") == ["n0", {}]
    here.close()


async def test_no_answer_in_time_is_a_timeout_and_the_late_one_is_dropped(desk: Desk) -> None:
    here = await visit(desk)
    with pytest.raises(RpcTimeout, match=r"did not answer within 0\.05 s"):
        await here.ask("wait", 0.05)
    assert here._open == {}
    desk.release.set()
    assert await here.ask("echo", n=2) == ["n0", {"n": 2}]
    here.close()


async def test_a_message_that_is_too_large_is_not_sent(desk: Desk) -> None:
    here = await visit(desk)
    with pytest.raises(RpcError, match="larger than"):
        await here.ask("echo", much="x" * MAX_MESSAGE)
    assert here._open == {}
    assert await here.ask("echo") == ["n0", {}]
    here.close()


@pytest.mark.parametrize(
    "message",
    [
        encode({"tell": "hello", "params": {"name": "n0", "token": "wrong"}}),
        encode({"tell": "hello", "params": {"name": "n0", "token": "ключ"}}),
        encode({"tell": "hello", "params": {"name": "n0"}}),
        encode({"tell": "hello", "params": ["n0"]}),
        encode({"ask": 1, "method": "echo", "params": {}}),
        struct.pack(">I", MAX_MESSAGE + 1),
        struct.pack(">I", 7) + b"no json",
        struct.pack(">I", 3) + b"[1]",
        struct.pack(">I", 200_000) + b"[" * 200_000,
    ],
    ids=["token", "letters", "none", "list", "no hello", "large", "no json", "no object", "deep"],
)
async def test_who_does_not_say_a_right_hello_is_shown_out(desk: Desk, message: bytes) -> None:
    reader = await raw(desk, message)
    assert await soon(reader.read()) == b""
    assert desk.joined.empty()
    assert not desk.server.peers


@pytest.mark.parametrize(
    "message",
    [
        struct.pack(">I", MAX_MESSAGE + 1),
        struct.pack(">I", 7) + b"no json",
        struct.pack(">I", 200_000) + b"[" * 200_000,
    ],
    ids=["large", "no json", "deep"],
)
async def test_a_peer_that_breaks_the_form_is_dropped(desk: Desk, message: bytes) -> None:
    reader = await raw(desk, hello(), message)
    assert await soon(reader.read()) == b""
    assert await soon(desk.left.get()) is await soon(desk.joined.get())
    assert not desk.server.peers


async def test_odd_messages_change_nothing(desk: Desk) -> None:
    odd = [
        {"answer": 99, "result": 1},
        {"answer": [1], "result": 1},
        {"answer": None},
        {"tell": "note", "params": None},
        {"tell": "note", "params": [1]},
        {},
    ]
    reader = await raw(desk, hello(), *map(encode, odd), encode({"ask": 5, "method": "echo", "params": {}}))
    (length,) = struct.unpack(">I", await soon(reader.readexactly(4)))
    assert json.loads(await soon(reader.readexactly(length))) == {"answer": 5, "result": ["n0", {}]}
    assert desk.told.empty()


async def test_a_peer_that_is_lost_fails_what_it_was_asked(desk: Desk) -> None:
    here = await visit(desk)
    asked = asyncio.ensure_future(here.ask("wait", 30.0))
    there = await soon(desk.joined.get())
    there.close()
    with pytest.raises(RpcError, match="was lost"):
        await soon(asked)
    assert await soon(desk.left.get()) is there
    with pytest.raises(RpcError, match="closed"):
        await here.ask("echo")
    here.tell("note", what="lost without a word")


async def test_a_peer_that_does_not_read_is_dropped_before_it_costs_memory(desk: Desk) -> None:
    await raw(desk, hello())
    there = await soon(desk.joined.get())
    for _ in range(BACKLOG_LIMIT // 100_000 + 20):
        there.tell("news", text="x" * 100_000)
    assert there.closed.is_set()
    assert await soon(desk.left.get()) is there


async def test_nobody_listening_is_an_error_that_names_the_socket(tmp_path: Path) -> None:
    with pytest.raises(RpcError, match=r"cannot reach hall9\.sock"):
        await connect(tmp_path / "hall9.sock", TOKEN, {}, role="front", name="front")


async def test_the_socket_is_for_its_owner_only_and_gone_at_the_end() -> None:
    with short_folder() as folder:
        desk = Desk(folder / "desk.sock")
        await desk.server.start()
        assert desk.path.stat().st_mode & 0o777 == 0o600
        here = await visit(desk)
        await here.ask("echo")
        await desk.server.stop()
        await soon(here.closed.wait())
        assert not desk.path.exists()
