"""Requests between the house's processes: length-prefixed JSON over unix sockets, both sides may ask.

A message is a 4-byte big-endian length and one JSON object:

    {"ask": id, "method": name, "params": {...}}     a question
    {"answer": id, "result": ...}                    its answer
    {"answer": id, "error": text}                    … or why there is none
    {"tell": name, "params": {...}}                  needs no answer

The first message of a connection is `hello`, told by the one that connects: `{"role", "name", "token", …}`.
Every request has a time limit. When the connection goes, every open question fails with `RpcError`.
Lines are no asyncio programs: they use the blocking form, `gateway.ipc.line_wire`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import itertools
import json
import os
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from gateway.errors import RpcError, RpcTimeout

MAX_MESSAGE: Final = 8 << 20
"""A voice's reference clip (30 s of float32 at 24 kHz, in base64) is the largest that travels."""
DEFAULT_TIMEOUT_S: Final = 2.0
BACKLOG_LIMIT: Final = 2 * MAX_MESSAGE
"""Bytes the other side may leave unread before it counts as gone."""
LENGTH: Final = struct.Struct(">I")

Params = Mapping[str, Any]
Handler = Callable[..., Awaitable[Any]]
"""Called with the message's params as keyword arguments; its result goes back as JSON."""

log = structlog.get_logger("rpc")


class Peer:
    """One end of a connection. `hello` is what the connecting side said of itself."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        handlers: Mapping[str, Handler],
        hello: Params,
    ) -> None:
        self.hello = hello
        self._reader = reader
        self._writer = writer
        self._handlers = handlers
        self._ids = itertools.count(1)
        self._open: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.closed = asyncio.Event()

    @property
    def name(self) -> str:
        return str(self.hello.get("name", "?"))

    async def ask(self, method: str, timeout_s: float = DEFAULT_TIMEOUT_S, /, **params: Any) -> Any:
        """The other side's answer. Raises `RpcTimeout`, or `RpcError` with its refusal."""
        if self.closed.is_set():
            raise RpcError(f"{method}: the connection to {self.name} is closed")
        number = next(self._ids)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._open[number] = future
        try:
            self._send({"ask": number, "method": method, "params": params})
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise RpcTimeout(f"{method}: {self.name} did not answer within {timeout_s:g} s") from None
        finally:
            self._open.pop(number, None)

    def tell(self, method: str, /, **params: Any) -> None:
        """Says something that needs no answer; lost without a word when the connection is gone."""
        if not self.closed.is_set():
            self._send({"tell": method, "params": params})

    def _send(self, message: Mapping[str, Any]) -> None:
        self._writer.write(encode(message))
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

    def _take(self, message: Mapping[str, Any]) -> None:
        if "answer" in message:
            number = message["answer"]
            future = self._open.get(number) if isinstance(number, int) else None
            if future is not None and not future.done():
                if "error" in message:
                    future.set_exception(RpcError(str(message["error"])))
                else:
                    future.set_result(message.get("result"))
            return
        task = asyncio.create_task(self._handle(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, message: Mapping[str, Any]) -> None:
        number = message.get("ask")
        method = str(message.get("method") or message.get("tell"))
        handler = self._handlers.get(method)
        answer: dict[str, Any] = {"answer": number}
        try:
            if handler is None:
                raise RpcError(f"nobody here knows {method!r}")
            answer["result"] = await handler(self, **message.get("params", {}))
        except RpcError as error:
            answer["error"] = str(error)
        except Exception as error:
            log.exception("rpc.handler_failed", method=method, peer=self.name)
            answer["error"] = f"{type(error).__name__}: {error}"
        if number is not None and not self.closed.is_set():
            try:
                self._send(answer)
            except (RpcError, TypeError, ValueError) as error:  # too large, or no JSON
                log.error("rpc.answer_failed", method=method, peer=self.name, error=str(error))
                self._send({"answer": number, "error": f"the answer cannot be sent: {error}"})

    def close(self) -> None:
        if self.closed.is_set():
            return
        self.closed.set()
        for future in self._open.values():
            if not future.done():
                future.set_exception(RpcError(f"the connection to {self.name} was lost"))
        with contextlib.suppress(Exception):
            self._writer.close()


def encode(message: Mapping[str, Any]) -> bytes:
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > MAX_MESSAGE:
        raise RpcError(f"a message of {len(body)} bytes is larger than {MAX_MESSAGE}")
    return LENGTH.pack(len(body)) + body


async def read_message(reader: asyncio.StreamReader) -> Mapping[str, Any] | None:
    """The next message; None at the connection's end. Raises `RpcError` for what is no message."""
    try:
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        if length > MAX_MESSAGE:
            raise RpcError(f"a message of {length} bytes is larger than {MAX_MESSAGE}")
        message = json.loads(await reader.readexactly(length))
    except asyncio.IncompleteReadError:
        return None
    except (ValueError, RecursionError) as error:
        raise RpcError(f"not JSON: {error}") from None
    if not isinstance(message, dict):
        raise RpcError("a message must be a JSON object")
    return message


class Server:
    """Listens on a unix socket; each connection that says a right hello becomes a `Peer`."""

    def __init__(
        self,
        path: Path,
        token: str,
        handlers: Mapping[str, Handler],
        *,
        joined: Callable[[Peer], Awaitable[None]] | None = None,
        left: Callable[[Peer], Awaitable[None]] | None = None,
    ) -> None:
        self._path = path
        self._token = token
        self._handlers = handlers
        self._joined = joined
        self._left = left
        self._server: asyncio.Server | None = None
        self.peers: set[Peer] = set()

    async def start(self) -> None:
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._connected, self._path, limit=MAX_MESSAGE + 64)
        os.chmod(self._path, 0o600)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(DEFAULT_TIMEOUT_S):
                message = await read_message(reader)
            if message is None or message.get("tell") != "hello":
                raise RpcError("the first message must be hello")
            hello = message.get("params", {})
            if not isinstance(hello, dict):
                raise RpcError("hello must say who is there")
            if not hmac.compare_digest(str(hello.get("token", "")).encode(), self._token.encode()):
                raise RpcError(f"{hello.get('name', '?')} does not know this boot's token")
        except (RpcError, TimeoutError, ConnectionError) as error:
            log.warning("rpc.refused", socket=self._path.name, error=str(error))
            writer.close()
            return
        peer = Peer(reader, writer, self._handlers, hello)
        self.peers.add(peer)
        try:
            if self._joined is not None:
                reading = asyncio.create_task(peer.run())
                await self._joined(peer)
                await reading
            else:
                await peer.run()
        finally:
            peer.close()
            self.peers.discard(peer)
            if self._left is not None:
                await self._left(peer)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for peer in list(self.peers):
            peer.close()
        self._path.unlink(missing_ok=True)


async def connect(path: Path, token: str, handlers: Mapping[str, Handler], **hello: Any) -> Peer:
    """Connects, says hello, and reads in a task of its own until the connection ends.

    `hello` names this side: `role` and `name` at least. Raises `RpcError` when nobody listens.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=MAX_MESSAGE + 64)
    except OSError as error:
        raise RpcError(f"cannot reach {path.name}: {error}") from None
    peer = Peer(reader, writer, handlers, {"name": path.stem})
    writer.write(encode({"tell": "hello", "params": {**hello, "token": token}}))
    task = asyncio.create_task(peer.run())
    peer._tasks.add(task)
    task.add_done_callback(peer._tasks.discard)
    return peer
