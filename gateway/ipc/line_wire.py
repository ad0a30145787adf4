"""RPC as lines speak it: `gateway.ipc.rpc`'s messages, without asyncio, on the line's own loop.

A line is asked and tells; it never asks. The connection is made again by itself whenever it goes: after
50 ms, doubling to 1 s. What is told while there is no connection is lost; the hello (made anew each time)
and `opened` say what the other side missed.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from gateway.config.notes import note
from gateway.errors import RpcError
from gateway.ipc.poll_loop import Loop

MAX_MESSAGE: Final = 1 << 20
LENGTH: Final = struct.Struct(">I")
FIRST_RETRY_S: Final = 0.05
LAST_RETRY_S: Final = 1.0
BACKLOG_LIMIT: Final = 4 * MAX_MESSAGE
"""Bytes the other side may leave unread before it counts as gone."""

Handler = Callable[..., Any]
"""Called in the loop's thread with the message's params as keyword arguments."""


def encode(message: Mapping[str, Any]) -> bytes:
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > MAX_MESSAGE:
        raise RpcError(f"a message of {len(body)} bytes is larger than {MAX_MESSAGE}")
    return LENGTH.pack(len(body)) + body


class Wire:
    """One connection to the front or to the hall. Everything here runs in the loop's thread."""

    def __init__(
        self,
        loop: Loop,
        path: Path,
        hello: Callable[[], Mapping[str, Any]],
        handlers: Mapping[str, Handler],
        *,
        opened: Callable[[], None] = lambda: None,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = loop
        self._path = path
        self._hello = hello
        self._handlers = handlers
        self._opened = opened
        self._lost = lost
        self._socket: socket.socket | None = None
        self._inbox = bytearray()
        self._outbox = bytearray()
        self._retry_s = FIRST_RETRY_S
        self._closed = False

    @property
    def up(self) -> bool:
        return self._socket is not None

    def connect(self) -> None:
        """Tries now, and again later if nobody listens."""
        if self._closed or self._socket is not None:
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.setblocking(False)
        try:
            sock.connect(str(self._path))
        except OSError:
            sock.close()
            self._again()
            return
        self._socket = sock
        self._retry_s = FIRST_RETRY_S
        self._inbox.clear()
        self._outbox.clear()
        self._loop.watch(sock.fileno(), select.POLLIN, self._ready)
        self.tell("hello", **self._hello())
        if self.up:
            self._opened()

    def _again(self) -> None:
        self._loop.later(self._retry_s, self.connect)
        self._retry_s = min(2 * self._retry_s, LAST_RETRY_S)

    def close(self) -> None:
        """For good; what was told before still goes out if the socket takes it now."""
        self._closed = True
        self.drop()

    def drop(self) -> None:
        """Gives up this connection; a new one is tried unless closed."""
        if self._socket is None:
            return
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        self._socket = None
        if not self._closed:
            self._lost()
            self._again()

    def tell(self, method: str, /, **params: Any) -> None:
        """Says something that needs no answer; lost without a word when the connection is gone."""
        self._send({"tell": method, "params": params})

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._socket is None:
            return
        self._outbox += encode(message)
        self._flush()

    def _flush(self) -> None:
        if self._socket is None:
            return
        try:
            while self._outbox:
                del self._outbox[: self._socket.send(self._outbox)]
        except BlockingIOError:
            if len(self._outbox) > BACKLOG_LIMIT:
                note("warning", "rpc.stuck", socket=self._path.name, unread_bytes=len(self._outbox))
                self.drop()
                return
        except OSError:
            self.drop()
            return
        mask = select.POLLIN | (select.POLLOUT if self._outbox else 0)
        self._loop.watch(self._socket.fileno(), mask, self._ready)

    def _ready(self, events: int) -> None:
        if events & select.POLLOUT:
            self._flush()
        if self._socket is None or not events & ~select.POLLOUT:
            return
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.drop()
            return
        self._inbox += data
        try:
            self._read()
        except RpcError as error:
            note("warning", "rpc.broken", socket=self._path.name, error=str(error))
            self.drop()

    def _read(self) -> None:
        while len(self._inbox) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._inbox)
            if length > MAX_MESSAGE:
                raise RpcError(f"a message of {length} bytes is larger than {MAX_MESSAGE}")
            end = LENGTH.size + length
            if len(self._inbox) < end:
                return
            body = bytes(self._inbox[LENGTH.size : end])
            del self._inbox[:end]
            try:
                message = json.loads(body)
            except ValueError as error:
                raise RpcError(f"not JSON: {error}") from None
            if not isinstance(message, dict):
                raise RpcError("a message must be a JSON object")
            self._take(message)

    def _take(self, message: Mapping[str, Any]) -> None:
        if "answer" in message:
            return  # we asked nothing
        method = str(message.get("method") or message.get("tell"))
        answer: dict[str, Any] = {"answer": message.get("ask")}
        handler = self._handlers.get(method)
        try:
            if handler is None:
                raise RpcError(f"nobody here knows {method!r}")
            answer["result"] = handler(**message.get("params", {}))
        except RpcError as error:
            answer["error"] = str(error)
        except Exception as error:
            note("error", "rpc.handler_failed", method=method, error=f"{type(error).__name__}: {error}")
            answer["error"] = f"{type(error).__name__}: {error}"
        if "ask" in message:
            with contextlib.suppress(RpcError):
                self._send(answer)
