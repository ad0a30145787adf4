"""Requests between processes, over real unix sockets."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import structlog.testing

from gateway.errors import RpcError, RpcTimeout
from gateway.ipc.codec import packed
from gateway.ipc.envelope import Ask, Handled, Tell
from gateway.ipc.framing import MAX_MESSAGE, framed
from gateway.ipc.hello import Hello
from gateway.ipc.rpc import BACKLOG_LIMIT, Peer, Server, connect
from model import __version__
from model.tasks import failures
from tests.gateway.conftest import short_folder

TOKEN = "token of this boot"


@dataclass(frozen=True)
class Echoed:
    name: str
    text: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Echo(Ask[Echoed]):
    wire: ClassVar[str] = "echo"
    text: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refuse(Ask[None]):
    wire: ClassVar[str] = "refuse"


@dataclass(frozen=True)
class Fail(Ask[None]):
    wire: ClassVar[str] = "fail"


@dataclass(frozen=True)
class Wait(Ask[str]):
    wire: ClassVar[str] = "wait"


@dataclass(frozen=True)
class Much(Ask[str]):
    wire: ClassVar[str] = "much"


@dataclass(frozen=True)
class Odd(Ask[str]):
    wire: ClassVar[str] = "odd"


@dataclass(frozen=True)
class Count(Ask[int]):
    wire: ClassVar[str] = "count"
    n: int


@dataclass(frozen=True)
class Note(Tell):
    wire: ClassVar[str] = "note"
    text: str


class Desk:
    """A server whose handlers note what they were told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.joined: asyncio.Queue[Peer] = asyncio.Queue()
        self.left: asyncio.Queue[Peer] = asyncio.Queue()
        self.told: asyncio.Queue[str] = asyncio.Queue()
        self.release = asyncio.Event()
        handlers = [
            Echo.handled_by(self.echo),
            Refuse.handled_by(self.refuse),
            Fail.handled_by(self.fail),
            Wait.handled_by(self.wait),
            Much.handled_by(self.much),
            Odd.handled_by(self.odd),
            Note.handled_by(self.note),
        ]
        self.server = Server(path, TOKEN, handlers, joined=self.joined.put, left=self.left.put)

    async def echo(self, peer: Peer, asked: Echo) -> Echoed:
        return Echoed(peer.name, asked.text, asked.words)

    async def refuse(self, _: Peer, __: Refuse) -> None:
        raise RpcError("not today")

    async def fail(self, _: Peer, __: Fail) -> None:
        raise KeyError("a bug")

    async def wait(self, _: Peer, __: Wait) -> str:
        await self.release.wait()
        return "late"

    async def much(self, _: Peer, __: Much) -> str:
        return "x" * (MAX_MESSAGE + 1)

    async def odd(self, _: Peer, __: Odd) -> str:
        return object()  # type: ignore[return-value]  # a bug

    async def note(self, _: Peer, told: Note) -> None:
        self.told.put_nowait(told.text)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    with short_folder() as folder:
        opened = Desk(folder / "desk.sock")
        await opened.server.start()
        yield opened
        await opened.server.stop()


async def answer(reader: asyncio.StreamReader) -> Any:
    (length,) = struct.unpack(">I", await soon(reader.readexactly(4)))
    return json.loads(await soon(reader.readexactly(length)))


async def soon(awaitable: Any) -> Any:
    async with asyncio.timeout(10):
        return await awaitable


async def visit(desk: Desk, *handlers: Handled[Peer, Awaitable[object]]) -> Peer:
    return await connect(desk.path, Hello("line", "n0", TOKEN), handlers)


def encode(said: object) -> bytes:
    return framed(packed(said))


async def raw(desk: Desk, *messages: bytes) -> asyncio.StreamReader:
    reader, writer = await asyncio.open_unix_connection(desk.path)
    for message in messages:
        writer.write(message)
    reader.writer = writer  # type: ignore[attr-defined]  # kept open for as long as the reader
    return reader


def hello(**more: object) -> bytes:
    params = {"role": "line", "name": "n0", "token": TOKEN, "version": __version__, **more}
    return encode({"tell": "hello", "params": params})


async def test_both_sides_ask_and_tell(desk: Desk) -> None:
    async def count(_: Peer, asked: Count) -> int:
        return asked.n + 1

    here = await visit(desk, Count.handled_by(count))
    assert await here.ask(Echo("a", ("ü",))) == Echoed("n0", "a", ("ü",))
    there = await soon(desk.joined.get())
    assert there.hello == Hello("line", "n0", TOKEN)
    assert await there.ask(Count(4)) == 5
    here.tell(Note("rain"))
    assert await soon(desk.told.get()) == "rain"
    here.close()


async def test_answers_find_their_questions_in_any_order(desk: Desk) -> None:
    here = await visit(desk)
    slow = asyncio.ensure_future(here.ask(Wait(), 10.0))
    assert await here.ask(Echo("1")) == Echoed("n0", "1", ())
    desk.release.set()
    assert await slow == "late"
    here.close()


async def test_a_refusal_comes_back_in_its_own_words(desk: Desk) -> None:
    here = await visit(desk)
    with pytest.raises(RpcError, match=r"^not today$"):
        await here.ask(Refuse())
    with pytest.raises(RpcError, match="nobody here knows 'count'"):
        await here.ask(Count(1))
    here.close()


@pytest.mark.parametrize("kind", [Fail, Much, Odd])
async def test_a_handler_that_fails_answers_all_the_same(desk: Desk, kind: type[Ask[Any]]) -> None:
    here = await visit(desk)
    with pytest.raises(RpcError) as error:
        await here.ask(kind(), 10.0)
    assert not isinstance(error.value, RpcTimeout)
    assert await here.ask(Echo("a")) == Echoed("n0", "a", ()), "the connection is as good as before"
    here.close()


async def test_a_handler_that_fails_is_counted_under_its_message(desk: Desk) -> None:
    before = failures["rpc.fail"]
    here = await visit(desk)
    with structlog.testing.capture_logs() as logs, pytest.raises(RpcError, match="KeyError: 'a bug'"):
        await here.ask(Fail())
    assert failures["rpc.fail"] == before + 1
    assert [(entry["event"], entry["task"], entry["peer"]) for entry in logs] == [
        ("task.failed", "rpc.fail", "n0")
    ]
    here.close()


async def test_a_peer_that_cannot_be_received_is_let_go_and_counted() -> None:
    async def receive(_: Peer) -> None:
        raise LookupError("no place for it")

    before = failures["rpc.connection"]
    with short_folder() as folder:
        server = Server(folder / "desk.sock", TOKEN, [], joined=receive)
        await server.start()
        here = await connect(folder / "desk.sock", Hello("line", "n0", TOKEN))
        await soon(here.closed.wait())
        assert not server.peers
        await server.stop()
    assert failures["rpc.connection"] == before + 1


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"text": "a", "surprise": 1}, "echo, field surprise: nobody here knows it"),
        ({}, "echo, field text: it is missing"),
        ({"text": 5}, "echo, field text: expected text, got a whole number"),
        ({"text": "a", "words": ["b", None]}, "echo, field words.1: expected text, got null"),
        (None, "echo: expected an object, got null"),
        ([1], "echo: expected an object, got an array"),
    ],
)
async def test_wrong_fields_are_an_error_and_no_more(desk: Desk, params: object, why: str) -> None:
    reader = await raw(desk, hello(), encode({"ask": 1, "method": "echo", "params": params}))
    assert await answer(reader) == {"answer": 1, "error": why}
    reader.writer.write(encode({"ask": 2, "method": "echo", "params": {"text": "a"}}))  # type: ignore[attr-defined]
    assert (await answer(reader))["answer"] == 2


async def test_an_answer_of_another_type_is_an_error(desk: Desk) -> None:
    async def count(_: Peer, __: Count) -> int:
        return "five"  # type: ignore[return-value]  # a bug

    here = await visit(desk, Count.handled_by(count))
    there = await soon(desk.joined.get())
    with pytest.raises(RpcError, match="the answer to count: expected a whole number, got text"):
        await there.ask(Count(4))
    here.close()


async def test_no_answer_in_time_is_a_timeout_and_the_late_one_is_dropped(desk: Desk) -> None:
    here = await visit(desk)
    with pytest.raises(RpcTimeout, match=r"did not answer within 0\.05 s"):
        await here.ask(Wait(), 0.05)
    assert here._open == {}
    desk.release.set()
    assert await here.ask(Echo("2")) == Echoed("n0", "2", ())
    here.close()


async def test_a_message_that_is_too_large_is_not_sent(desk: Desk) -> None:
    here = await visit(desk)
    with pytest.raises(RpcError, match="larger than"):
        await here.ask(Echo("x" * MAX_MESSAGE))
    assert here._open == {}
    assert await here.ask(Echo("a")) == Echoed("n0", "a", ())
    here.close()


@pytest.mark.parametrize(
    "message",
    [
        hello(token="wrong"),
        hello(token="ключ"),
        hello(token="wrong", version="0.0.9"),
        encode({"tell": "hello", "params": {"name": "n0"}}),
        hello(role="guest"),
        encode({"tell": "hello", "params": ["n0"]}),
        encode({"ask": 1, "method": "echo", "params": {}}),
        struct.pack(">I", MAX_MESSAGE + 1),
        struct.pack(">I", 7) + b"no json",
        struct.pack(">I", 3) + b"[1]",
        struct.pack(">I", 200_000) + b"[" * 200_000,
    ],
    ids=[
        "token",
        "letters",
        "token and version",
        "none",
        "role",
        "list",
        "no hello",
        "large",
        "no json",
        "no object",
        "deep",
    ],
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
    asked = {"ask": 5, "method": "echo", "params": {"text": "a"}}
    reader = await raw(desk, hello(), *map(encode, odd), encode(asked))
    assert await answer(reader) == {"answer": 5, "result": {"name": "n0", "text": "a", "words": []}}
    assert desk.told.empty()


async def test_a_peer_that_is_lost_fails_what_it_was_asked(desk: Desk) -> None:
    here = await visit(desk)
    asked = asyncio.ensure_future(here.ask(Wait(), 30.0))
    there = await soon(desk.joined.get())
    there.close()
    with pytest.raises(RpcError, match="was lost"):
        await soon(asked)
    assert await soon(desk.left.get()) is there
    with pytest.raises(RpcError, match="closed"):
        await here.ask(Echo("a"))
    here.tell(Note("lost without a word"))


async def test_a_peer_that_does_not_read_is_dropped_before_it_costs_memory(desk: Desk) -> None:
    await raw(desk, hello())
    there = await soon(desk.joined.get())
    for _ in range(BACKLOG_LIMIT // 100_000 + 20):
        there.tell(Note("x" * 100_000))
    assert there.closed.is_set()
    assert await soon(desk.left.get()) is there


async def test_nobody_listening_is_an_error_that_names_the_socket(tmp_path: Path) -> None:
    with pytest.raises(RpcError, match=r"cannot reach hall9\.sock"):
        await connect(tmp_path / "hall9.sock", Hello("front", "front", TOKEN))


async def test_the_socket_is_for_its_owner_only_and_gone_at_the_end() -> None:
    with short_folder() as folder:
        desk = Desk(folder / "desk.sock")
        await desk.server.start()
        assert desk.path.stat().st_mode & 0o777 == 0o600
        here = await visit(desk)
        await here.ask(Echo("a"))
        await desk.server.stop()
        await soon(here.closed.wait())
        assert not desk.path.exists()


# ── versions ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("more", [{"version": "0.0.9"}, {"version": "0.0.9", "news": 1}, {"version": None}])
async def test_a_peer_of_another_version_is_told_why_it_is_refused(
    desk: Desk, more: dict[str, object]
) -> None:
    with structlog.testing.capture_logs() as logs:
        reader = await raw(desk, hello(**more))
        said = await answer(reader)
    assert await soon(reader.read()) == b"", "and that is all"
    why = f"n0 is of version {more['version']}, this process of {__version__}: restart the gateway"
    assert said == {"refused": why}
    assert [(entry["event"], entry["error"]) for entry in logs] == [("rpc.refused", why)]
    assert desk.joined.empty()


async def test_who_is_refused_says_so_and_its_questions_fail_with_the_reason(desk: Desk) -> None:
    with structlog.testing.capture_logs() as logs:
        here = await connect(desk.path, Hello("line", "n0", TOKEN, version="0.0.9"))
        with pytest.raises(RpcError, match=rf"n0 is of version 0\.0\.9, this process of {__version__}"):
            await here.ask(Echo("a"))
    assert ("rpc.refused_by", "desk") in [(entry["event"], entry.get("peer")) for entry in logs]
    assert here.closed.is_set()
