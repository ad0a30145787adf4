"""The lines' form of RPC, on a poll loop in a thread, against the real server."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import pytest

from gateway.errors import RpcError
from gateway.ipc import envelope
from gateway.ipc.envelope import Ask
from gateway.ipc.framing import MAX_MESSAGE, framed
from gateway.ipc.hello import Hello, LineCall, LineFacts
from gateway.ipc.line_messages import DropCall, KeyPressed
from gateway.ipc.line_wire import BACKLOG_LIMIT, Wire
from gateway.ipc.poll_loop import Loop
from gateway.ipc.rpc import Peer, Server, read_message
from model import __version__
from tests.gateway.conftest import short_folder

T = TypeVar("T")
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
    house.loop.call(wire.tell, KeyPressed("c1", "5", "event"))
    assert await soon(house.keys) == KeyPressed("c1", "5", "event")
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
    peer.tell(KeyPressed("c1", "5", "event"))
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


# ── a peer that is no server of ours ─────────────────────────────────────────────────────────────────────


class HastyLoop(Loop):
    """Notes how long it is told to wait, and waits a twentieth of it."""

    def __init__(self, waits: Callable[[float], object]) -> None:
        super().__init__()
        self._waits = waits

    def later(self, delay_s: float, function: Callable[..., Any], *args: Any) -> None:
        self._waits(delay_s)
        super().later(delay_s / 20, function, *args)


class Visit(NamedTuple):
    """A connection that the wire made, at its other end."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def reads(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            message = await read_message(self.reader)
        assert message is not None
        return message

    async def is_left(self) -> None:
        async with asyncio.timeout(10):
            while await self.reader.read(1 << 16):
                pass


class Stranger:
    """The other side of one wire, byte by byte."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.visits: asyncio.Queue[Visit] = asyncio.Queue()
        self.seen: asyncio.Queue[str] = asyncio.Queue()
        """What the wire's owner was told: opened, lost."""
        self.waits_s: asyncio.Queue[float] = asyncio.Queue()
        self.hellos = 0
        self._here = asyncio.get_running_loop()
        self.loop = HastyLoop(partial(self._note, self.waits_s))
        handlers = [Add.handled_at_once_by(self._add), DropCall.handled_at_once_by(drop)]
        self.wire = Wire(
            self.loop,
            path,
            self._hello,
            handlers,
            opened=partial(self._note, self.seen, "opened"),
            lost=partial(self._note, self.seen, "lost"),
        )
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self.loop.run)
        self._thread.start()
        self.loop.call(self.wire.connect)

    def _note(self, where: asyncio.Queue[T], what: T) -> None:
        self._here.call_soon_threadsafe(where.put_nowait, what)

    def _hello(self) -> Hello:
        self.hellos += 1
        return Hello("line", f"n{self.hellos}", TOKEN)

    def _add(self, _: Wire, asked: Add) -> int:
        if asked.n < 0:
            raise KeyError("a bug")
        return asked.n + 1

    async def listen(self) -> None:
        self._server = await asyncio.start_unix_server(
            lambda *ends: self.visits.put_nowait(Visit(*ends)), self.path, limit=MAX_MESSAGE
        )

    async def visit(self) -> Visit:
        """The next connection, whose hello has been read."""
        visit: Visit = await soon(self.visits)
        assert (await visit.reads())["tell"] == "hello"
        return visit

    def tell(self, digit: str) -> None:
        self.loop.call(self.wire.tell, KeyPressed("c1", digit, "event"))

    def end(self) -> None:
        self.loop.call(self.wire.close)
        self.loop.call(self.loop.stop)
        self._thread.join()
        if self._server is not None:
            self._server.close()


@pytest.fixture
async def stranger() -> AsyncIterator[Stranger]:
    with short_folder() as folder:
        opened = Stranger(folder / "hall0.sock")
        yield opened
        opened.end()


def add(n: int, number: int = 1) -> bytes:
    return framed(envelope.asked(number, Add(n)))


async def test_it_tries_again_ever_later_and_soon_again_once_it_was_there(stranger: Stranger) -> None:
    for wait_s in (0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0):
        assert await soon(stranger.waits_s) == wait_s
    await stranger.listen()
    visit = await stranger.visit()
    while not stranger.waits_s.empty():
        assert stranger.waits_s.get_nowait() == 1.0
    visit.writer.close()
    await stranger.visit()
    assert await soon(stranger.waits_s) == 0.05


async def test_what_is_told_while_nobody_is_there_is_lost_and_who_opens_says_what_was_missed(
    stranger: Stranger,
) -> None:
    stranger.tell("1")
    await stranger.listen()
    first = await stranger.visit()
    assert await soon(stranger.seen) == "opened"
    first.writer.close()
    assert await soon(stranger.seen) == "lost"
    second: Visit = await soon(stranger.visits)
    assert (await second.reads())["params"]["name"] == "n2", "a hello of its own"
    assert await soon(stranger.seen) == "opened"
    stranger.tell("2")
    assert (await second.reads())["params"]["digit"] == "2"


async def test_a_question_that_comes_byte_by_byte_is_answered(stranger: Stranger) -> None:
    await stranger.listen()
    visit = await stranger.visit()
    for byte in add(4):
        visit.writer.write(bytes([byte]))
        await visit.writer.drain()
    assert await visit.reads() == {"answer": 1, "result": 5}


async def test_questions_that_come_at_once_are_answered_in_their_order(stranger: Stranger) -> None:
    await stranger.listen()
    visit = await stranger.visit()
    questions = b"".join(add(n, n) for n in range(100))
    visit.writer.write(questions[:-7])
    assert [await visit.reads() for _ in range(99)] == [{"answer": n, "result": n + 1} for n in range(99)]
    visit.writer.write(questions[-7:])
    assert await visit.reads() == {"answer": 99, "result": 100}


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ((MAX_MESSAGE + 1).to_bytes(4, "big"), f"a message of {MAX_MESSAGE + 1} bytes is larger"),
        (framed(b"{"), "not JSON"),
        (framed(b"[" * 100_000), "not JSON"),
        (framed(b"5"), "a message must be a JSON object"),
    ],
)
async def test_who_says_what_is_no_message_is_left_and_tried_again(
    stranger: Stranger, said: bytes, why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    await stranger.listen()
    visit = await stranger.visit()
    visit.writer.write(said)
    await visit.is_left()
    assert why in capfd.readouterr().err
    again = await stranger.visit()
    again.writer.write(add(1))
    assert await again.reads() == {"answer": 1, "result": 2}


async def test_half_a_message_does_not_outlive_its_connection(stranger: Stranger) -> None:
    await stranger.listen()
    visit = await stranger.visit()
    visit.writer.write(add(1)[:-3])
    visit.writer.close()
    again = await stranger.visit()
    again.writer.write(add(2))
    assert await again.reads() == {"answer": 1, "result": 3}


async def test_a_bug_in_a_handler_is_told_to_who_asked_and_noted(
    stranger: Stranger, capfd: pytest.CaptureFixture[str]
) -> None:
    await stranger.listen()
    visit = await stranger.visit()
    visit.writer.write(add(-1) + add(1, 2))
    assert await visit.reads() == {"answer": 1, "error": "KeyError: 'a bug'"}
    assert await visit.reads() == {"answer": 2, "result": 2}
    assert "rpc.handler_failed" in capfd.readouterr().err


async def test_an_answer_to_nothing_is_not_minded(stranger: Stranger) -> None:
    await stranger.listen()
    visit = await stranger.visit()
    visit.writer.write(framed(b'{"answer": 7, "result": null}') + add(1))
    assert await visit.reads() == {"answer": 1, "result": 2}


async def test_who_reads_late_gets_all_in_order(stranger: Stranger) -> None:
    await stranger.listen()
    visit = await stranger.visit()
    visit.writer.transport.pause_reading()  # type: ignore[attr-defined]
    many = BACKLOG_LIMIT // 2 // 1000
    for n in range(many):
        stranger.tell(f"{n:>1000}")
    handed = threading.Event()
    stranger.loop.call(handed.set)
    assert await asyncio.to_thread(handed.wait, 10)
    visit.writer.transport.resume_reading()  # type: ignore[attr-defined]
    digits = [int((await visit.reads())["params"]["digit"]) for _ in range(many)]
    assert digits == list(range(many))


async def test_who_never_reads_is_left_at_the_backlogs_limit(
    stranger: Stranger, capfd: pytest.CaptureFixture[str]
) -> None:
    await stranger.listen()
    visit = await stranger.visit()
    assert await soon(stranger.seen) == "opened"
    visit.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for _ in range(6):
        stranger.tell("1" * (1 << 20))
    assert await soon(stranger.seen) == "lost"
    assert "rpc.stuck" in capfd.readouterr().err
    again = await stranger.visit()
    stranger.tell("2")
    assert (await again.reads())["params"]["digit"] == "2", "what was left unread is not said again"


async def test_who_has_left_is_noticed_at_the_next_word_too(stranger: Stranger) -> None:
    await stranger.listen()
    visit = await stranger.visit()
    assert await soon(stranger.seen) == "opened"
    left = threading.Event()
    stranger.loop.call(left.wait, 10)  # so that the loop speaks before it looks
    stranger.tell("1")
    stranger.tell("2")
    visit.writer.close()
    await visit.writer.wait_closed()
    left.set()
    assert await soon(stranger.seen) == "lost"
    await stranger.visit()


async def test_one_that_is_closed_stays_closed(stranger: Stranger) -> None:
    await stranger.listen()
    visit = await stranger.visit()
    assert await soon(stranger.seen) == "opened"
    stranger.tell("1")
    stranger.loop.call(stranger.wire.close)
    assert (await visit.reads())["params"]["digit"] == "1"
    await visit.is_left()
    stranger.loop.call(stranger.wire.connect)
    stranger.loop.call(stranger.loop.stop)
    stranger.end()
    assert not stranger.wire.up
    assert stranger.seen.empty()
    assert stranger.visits.empty()
