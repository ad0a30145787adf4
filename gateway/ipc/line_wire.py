"""RPC as lines speak it: `gateway.ipc.rpc`'s messages, without asyncio, on the line's own loop.

A line is asked and tells; it never asks. The connection is made again by itself whenever it goes: after
50 ms, doubling to 1 s. What is told while there is no connection is lost; the hello (made anew each time)
and `opened` say what the other side missed.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from gateway.config.notes import note
from gateway.errors import RpcError
from gateway.ipc import codec, envelope
from gateway.ipc.envelope import Handled, Handlers, Message
from gateway.ipc.framing import Unframer, framed
from gateway.ipc.hello import Hello
from gateway.ipc.poll_loop import Loop

FIRST_RETRY_S: Final = 0.05
LAST_RETRY_S: Final = 1.0
BACKLOG_LIMIT: Final = 4 << 20
"""Bytes the other side may leave unread before it counts as gone."""


class Wire:
    """One connection to the front or to the hall. Everything here runs in the loop's thread."""

    def __init__(
        self,
        loop: Loop,
        path: Path,
        hello: Callable[[], Hello],
        handlers: Iterable[Handled[Wire, object]],
        *,
        opened: Callable[[], None] = lambda: None,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = loop
        self._path = path
        self._hello = hello
        self._handlers = Handlers(handlers)
        self._opened = opened
        self._lost = lost
        self._socket: socket.socket | None = None
        self._inbox = Unframer()
        self._outbox = bytearray()
        self._retry_s = FIRST_RETRY_S
        self._closed = False

    @property
    def up(self) -> bool:
        """Whether there is a connection now."""
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
        self.tell(self._hello())
        if self.up:
            self._opened()

    def _again(self) -> None:
        self._loop.later(self._retry_s, self.connect)
        self._retry_s = min(2 * self._retry_s, LAST_RETRY_S)

    def close(self) -> None:
        """Closes the connection for good; what was told before still goes out if the socket takes it now."""
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

    def tell(self, message: Message) -> None:
        """Says something that needs no answer; lost without a word when the connection is gone."""
        self._send(envelope.told(message))

    def _send(self, body: bytes) -> None:
        if self._socket is None:
            return
        self._outbox += framed(body)
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
        try:
            for body in self._inbox.feed(data):
                self._take(codec.unpacked(body))
        except RpcError as error:
            note("warning", "rpc.broken", socket=self._path.name, error=str(error))
            self.drop()

    def _take(self, said: dict[str, Any]) -> None:
        if "refused" in said:
            note("error", "rpc.refused_by", socket=self._path.name, error=str(said["refused"]))
            self._retry_s = LAST_RETRY_S
            self.drop()
        elif "answer" not in said:  # we asked nothing
            answer = envelope.answer_at_once(self._handlers, self, said)
            if answer is not None:
                with contextlib.suppress(RpcError):
                    self._send(answer)
