"""Connections by which SIP comes and goes, TCP and TLS, whoever opened them; what reads messages of them.

A peer's connection is used for what we ask it later too. One of ours is known by the name that its
certificate was checked for, beside its address: who connects from the port of a server is not that server.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import structlog

from gateway.edge.flows.peer_certificate import certificate_of
from gateway.edge.flows.transport import Flow, Receive, SentEar, bound, plain_host

log = structlog.get_logger("edge")

MAX_HEAD: Final = 16_384
MAX_BODY: Final = 65_536
FIRST_WORD_S: Final = 10.0
"""A peer's connection says something by then, and whatever message it begins it ends by then."""
HANDSHAKE_S: Final = 10.0
IDLE_S: Final = 3700.0
"""A connection without a word for longer than most calls last is closed."""
MAX_CONNECTIONS: Final = 1024
MAX_PER_SOURCE: Final = 64

Peer = tuple[str, str, int]
"""(transport, host, port)"""


class Connections:
    """Those that are open. `lost` is told of each that ended, `sent` hears what goes out by them."""

    def __init__(self, receive: Receive, lost: Callable[[Flow], None], sent: SentEar | None = None) -> None:
        self.receive = receive
        self.sent = sent
        self._lost = lost
        self._flows: dict[Peer, Flow] = {}
        self._from: Counter[str] = Counter()
        self._taken = 0
        self.turned_away = 0
        self.failed_handshakes = 0

    def __len__(self) -> int:
        return len(self._flows)

    def __iter__(self) -> Iterator[Flow]:
        return iter(list(self._flows.values()))

    def flow(self, transport: str, host: str, port: int) -> Flow | None:
        """The connection that a peer opened from there."""
        return self._flows.get((transport, host, port))

    def take(self, host: str) -> bool:
        """Counts one more of a peer, from before its handshake on; False: it has too many, or all have."""
        if self._taken >= MAX_CONNECTIONS or self._from[host] >= MAX_PER_SOURCE:
            self.turned_away += 1
            return False
        self._taken += 1
        self._from[host] += 1
        return True

    def give(self, host: str) -> None:
        """It is over."""
        self._taken -= 1
        self._from[host] -= 1
        if not self._from[host]:
            del self._from[host]

    def add(self, flow: Flow) -> None:
        """A peer's connection, from now on found by `flow`."""
        self._flows[flow.transport, flow.host, flow.port] = flow

    def remove(self, flow: Flow) -> None:
        """It ended: what waits for an answer on it waits in vain."""
        key = (flow.transport, flow.host, flow.port)
        if self._flows.get(key) is flow:
            del self._flows[key]
        self._lost(flow)

    async def read(self, reader: asyncio.StreamReader, flow: Flow, first_within_s: float) -> None:
        """Gives on what comes, until the connection ends or says what is not SIP. Never raises."""
        try:
            patience_s = first_within_s
            while self.receive(await _message(reader, flow, patience_s), flow):
                patience_s = IDLE_S
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # not SIP, too slow, or gone: the connection ends
        except Exception:
            log.exception("edge.connection_failed", source=flow.host)


class TlsOffer(Protocol):
    """What a port shows, and asks for, in handshakes."""

    def context(self) -> ssl.SSLContext:
        """For the next one."""

    def admits(self, flow: Flow) -> bool:
        """Whether a peer may stay that has shaken hands."""


class StreamPort:
    """A listening port: "tcp", or "tls" by what `open` is given."""

    def __init__(self, transport: str, connections: Connections) -> None:
        self._transport = transport
        self._connections = connections
        self._offer: TlsOffer | None = None
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[Any]] = set()

    async def open(self, host: str, port: int, offer: TlsOffer | None = None) -> None:
        """Raises `OSError` when the port is taken."""
        self._offer = offer
        listener = bound(host, port, socket.SOCK_STREAM)
        self._server = await asyncio.start_server(self._connected, sock=listener, limit=MAX_HEAD)

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port that are bound; None while there are none."""
        if self._server is None or not self._server.sockets:
            return None
        name = self._server.sockets[0].getsockname()
        return str(name[0]), int(name[1])

    def welcomes(self, flow: Flow) -> bool:
        """Whether a peer may stay that has shaken hands here; of other ports' peers it knows nothing."""
        return self._offer is None or flow.transport != self._transport or self._offer.admits(flow)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # streams run this as a task
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:  # by `close`; streams would tell the loop of a task that ends so
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer, port = writer.get_extra_info("peername")[:2]
        host = plain_host(peer)
        if not self._connections.take(host):
            writer.transport.abort()
            return
        try:
            offer = self._offer
            if offer is not None and not await self._shake_hands(writer, offer.context()):
                return
            flow = Flow(self._transport, host, port, writer.transport, sent=self._connections.sent)
            flow.certificate = certificate_of(writer.get_extra_info("ssl_object"))
            flow.names = frozenset() if flow.certificate is None else flow.certificate.names
            if offer is not None and not offer.admits(flow):
                self._connections.failed_handshakes += 1
                writer.transport.abort()
                return
            self._connections.add(flow)
            try:
                await self._connections.read(reader, flow, FIRST_WORD_S)
            finally:
                writer.close()
                self._connections.remove(flow)
        finally:
            self._connections.give(host)

    async def _shake_hands(self, writer: asyncio.StreamWriter, context: ssl.SSLContext) -> bool:
        try:
            await writer.start_tls(context, ssl_handshake_timeout=HANDSHAKE_S)
        except (OSError, ssl.SSLError) as error:
            self._connections.failed_handshakes += 1
            log.debug("edge.handshake_failed", error=type(error).__name__)
            writer.transport.abort()
            return False
        return True

    async def close(self) -> None:
        """Ends its connections too."""
        if self._server is None:
            return
        self._server.close()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving)
        await self._server.wait_closed()


async def _message(reader: asyncio.StreamReader, flow: Flow, patience_s: float) -> bytes:
    """One message (RFC 3261 §18.3). Raises `ValueError` for what cannot be framed, `TimeoutError`."""
    async with asyncio.timeout(patience_s):
        blank = 0
        while not (line := await reader.readuntil(b"\r\n")).strip(b"\r\n"):
            flow.heard_at = time.monotonic()
            blank += 1
            if blank % 2 == 0:
                flow.send(b"\r\n")  # RFC 5626 §4.4.1
    async with asyncio.timeout(FIRST_WORD_S):
        head = line + await reader.readuntil(b"\r\n\r\n")
        lengths = {
            int(value)
            for name, colon, value in (field.partition(b":") for field in head.split(b"\r\n")[1:])
            if colon and name.strip().lower() in (b"content-length", b"l")
        }
        if len(lengths) > 1 or not all(0 <= length <= MAX_BODY for length in lengths):
            raise ValueError("a body of that length is not taken")
        length = lengths.pop() if lengths else 0
        flow.heard_at = time.monotonic()
        return head + (await reader.readexactly(length) if length else b"")
