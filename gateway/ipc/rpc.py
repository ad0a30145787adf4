"""Messages between the gateway's processes over unix sockets; both sides may ask.

`gateway.ipc.envelope` says what a message is and what is written around it, `gateway.ipc.framing` how it
stands on the socket. The first message of a connection is `Hello`, told by the one that connects; one of
another version is told so, and shown out.

Every request has a time limit. When the connection goes, every open question fails with `RpcError`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final

import structlog

from gateway.errors import OtherVersion, RpcError, RpcTimeout
from gateway.ipc import codec, envelope
from gateway.ipc.envelope import A, Ask, Handled, Handlers, Message
from gateway.ipc.framing import HEAD_BYTES, MAX_MESSAGE, framed, length_of
from gateway.ipc.hello import Hello, admitted
from model.tasks import Tasks, failed

RETRY_S: Final = 0.05
RETRY_AT_MOST_S: Final = 1.0
DEFAULT_TIMEOUT_S: Final = 2.0
BACKLOG_LIMIT: Final = 2 * MAX_MESSAGE
"""Bytes the other side may leave unread before it counts as gone."""

log = structlog.get_logger("rpc")


class Peer:
    """One end of a connection to `name`. `hello` is what the connecting side said of itself."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        handlers: Iterable[Handled[Peer, Awaitable[object]]],
        hello: Hello,
        name: str,
    ) -> None:
        self.hello = hello
        self.name = name
        self._reader = reader
        self._writer = writer
        self._handlers = Handlers(handlers)
        self._ids = itertools.count(1)
        self._open: dict[int, asyncio.Future[object]] = {}
        self.tasks = Tasks()
        """reads, and handles what came; it goes on when the connection is gone"""
        self._gone = f"the connection to {name} was lost"
        """What open questions hear when it goes."""
        self.closed = asyncio.Event()

    async def ask(self, message: Ask[A], timeout_s: float = DEFAULT_TIMEOUT_S) -> A:
        """Asks, and returns the other side's answer. Raises `RpcTimeout`, or `RpcError` with its refusal."""
        if self.closed.is_set():
            raise RpcError(f"{message.wire}: the connection to {self.name} is closed")
        number = next(self._ids)
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._open[number] = future
        try:
            self._send(envelope.asked(number, message))
            async with asyncio.timeout(timeout_s):
                result = await future
        except TimeoutError:
            raise RpcTimeout(f"{message.wire}: {self.name} did not answer within {timeout_s:g} s") from None
        finally:
            self._open.pop(number, None)
        return message.answer_from(result)

    def tell(self, message: Message) -> None:
        """Says something that needs no answer; lost without a word when the connection is gone."""
        if not self.closed.is_set():
            self._send(envelope.told(message))

    def _send(self, body: bytes) -> None:
        self._writer.write(framed(body))
        unread = self._writer.transport.get_write_buffer_size()
        if unread > BACKLOG_LIMIT:
            log.warning("rpc.stuck", peer=self.name, unread_bytes=unread)
            self.close()
            self._writer.transport.abort()  # a graceful close would wait for the reader

    async def run(self) -> None:
        """Reads until the connection ends. Handlers run as tasks, in the order of their messages."""
        try:
            while (message := await read_message(self._reader)) is not None:
                self._take(message)
        except (RpcError, ConnectionError) as error:
            log.warning("rpc.broken", peer=self.name, error=str(error))
        finally:
            self.close()

    def _take(self, said: dict[str, Any]) -> None:
        if "refused" in said:
            self._gone = f"{self.name} refuses this process: {said['refused']}"
            log.error("rpc.refused_by", peer=self.name, error=str(said["refused"]))
            self.close()
            return
        if "answer" in said:
            number = said["answer"]
            future = self._open.get(number) if isinstance(number, int) else None
            if future is not None and not future.done():
                if "error" in said:
                    future.set_exception(RpcError(str(said["error"])))
                else:
                    future.set_result(said.get("result"))
            return
        self.tasks.short(self._handle(said), "rpc.handle")

    async def _handle(self, said: dict[str, Any]) -> None:
        number, method = said.get("ask"), envelope.name_of(said)
        try:
            handled, message = self._handlers.read(said)
        except RpcError as error:
            log.warning("rpc.not_understood", peer=self.name, error=str(error))
            self._reply(number, envelope.failed(number, str(error)))
            return
        if (
            call_id := getattr(message, "call_id", None)
        ) is not None:  # this task's lines are about that call
            structlog.contextvars.bind_contextvars(call_id=call_id)
        try:
            result = await handled.handler(self, message)
        except RpcError as error:
            self._reply(number, envelope.failed(number, str(error)))
            return
        except Exception as error:
            failed(f"rpc.{method}", error, peer=self.name)
            self._reply(number, envelope.failed(number, f"{type(error).__name__}: {error}"))
            return
        if number is None:
            return
        try:
            self._reply(number, envelope.answered(number, handled.kind, result))
        except RpcError as error:  # too large, or not what was asked for
            log.error("rpc.answer_failed", method=method, peer=self.name, error=str(error))
            self._reply(number, envelope.failed(number, f"the answer cannot be sent: {error}"))

    def _reply(self, number: object, body: bytes) -> None:
        if number is not None and not self.closed.is_set():
            self._send(body)

    def close(self) -> None:
        """Closes the connection; questions that are still open fail with `RpcError`."""
        if self.closed.is_set():
            return
        self.closed.set()
        for future in self._open.values():
            if not future.done():
                future.set_exception(RpcError(self._gone))
        with contextlib.suppress(Exception):
            self._writer.close()


async def read_message(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The next message; None at the connection's end. Raises `RpcError` for what is not a message."""
    try:
        length = length_of(await reader.readexactly(HEAD_BYTES))
        return codec.unpacked(await reader.readexactly(length))
    except asyncio.IncompleteReadError:
        return None


class Server:
    """Listens on a unix socket; each connection that says a right hello becomes a `Peer`."""

    def __init__(
        self,
        path: Path,
        token: str,
        handlers: Iterable[Handled[Peer, Awaitable[object]]],
        *,
        joined: Callable[[Peer], Awaitable[None]] | None = None,
        left: Callable[[Peer], Awaitable[None]] | None = None,
    ) -> None:
        self._path = path
        self._token = token
        self._handlers = tuple(handlers)
        self._joined = joined
        self._left = left
        self._server: asyncio.Server | None = None
        self.peers: set[Peer] = set()

    async def start(self) -> None:
        """Listens at the path, which only the owner may open; removes a socket that was left there."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._connected, self._path, limit=MAX_MESSAGE + 64)
        os.chmod(self._path, 0o600)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(DEFAULT_TIMEOUT_S):
                said = await read_message(reader)
            if said is None:
                raise RpcError("it left without a word")
            hello = admitted(Hello, said, self._token)
        except (RpcError, TimeoutError, ConnectionError) as error:
            log.warning("rpc.refused", socket=self._path.name, error=str(error))
            if isinstance(error, OtherVersion):
                writer.write(framed(envelope.refused(str(error))))
            writer.close()
            return
        except Exception as error:  # of a hello that nobody thought of; asyncio would only print it
            failed("rpc.hello", error, socket=self._path.name)
            writer.close()
            return
        peer = Peer(reader, writer, self._handlers, hello, hello.name)
        self.peers.add(peer)
        try:
            await self._serve(peer)
        except Exception as error:  # asyncio began this task, and nobody awaits it
            failed("rpc.connection", error, peer=peer.name)

    async def _serve(self, peer: Peer) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(peer.run())
                if self._joined is not None:
                    await self._joined(peer)
        finally:
            peer.close()
            self.peers.discard(peer)
            if self._left is not None:
                await self._left(peer)

    async def stop(self) -> None:
        """Closes the socket and every connection."""
        if self._server is not None:
            self._server.close()
        for peer in list(self.peers):
            peer.close()
        self._path.unlink(missing_ok=True)


async def connect(
    path: Path, hello: Hello, handlers: Iterable[Handled[Peer, Awaitable[object]]] = ()
) -> Peer:
    """Connects, says hello, and reads in a task of its own until the connection ends.

    Raises `RpcError` when nobody listens. A side that refuses this process says so later: what it is asked
    then fails with its reason.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=MAX_MESSAGE + 64)
    except OSError as error:
        raise RpcError(f"cannot reach {path.name}: {error}") from None
    peer = Peer(reader, writer, handlers, hello, path.stem)
    peer.tell(peer.hello)
    peer.tasks.short(peer.run(), "rpc.read")
    return peer


async def stay_joined(join: Callable[[], Awaitable[None]]) -> None:
    """Joins again whenever the connection is lost.

    `join` connects, and returns or raises `RpcError` or `OSError` when that is over. After a connection that
    did not last a second the pause grows.
    """
    pause = RETRY_S
    while True:
        with contextlib.suppress(RpcError, OSError):
            before = asyncio.get_running_loop().time()
            await join()
            if asyncio.get_running_loop().time() - before > 1.0:
                pause = RETRY_S
        await asyncio.sleep(pause)
        pause = min(2 * pause, RETRY_AT_MOST_S)
