"""Where SIP messages come in and go out: UDP and TCP for callers, loopback UDP for lines.

A `Flow` is where a message came from and therefore the only place an answer may go (RFC 5626's word); a peer
over UDP may name another port of its own address (`responses.way_back`), never another address. TLS and WSS
will be two more ways to make flows; nothing behind this module asks which one it is.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import structlog

log = structlog.get_logger("edge")

MAX_HEAD: Final = 16_384
MAX_BODY: Final = 65_536
FIRST_WORD_S: Final = 10.0
"""A TCP connection says something by then, and whatever message it begins it ends by then."""
IDLE_S: Final = 3700.0
"""A TCP connection without a word for longer than most calls last is closed."""
MAX_CONNECTIONS: Final = 1024
MAX_PER_SOURCE: Final = 64
MAX_UNSENT: Final = 262_144
"""Bytes that may wait for a peer (TCP) or the kernel (UDP); what is more is lost, as on a network."""


class Flow:
    """One peer as we see it. `transport` is "udp" or "tcp"; `host` an address without brackets."""

    __slots__ = ("_via", "_where", "came_from", "host", "port", "transport")

    def __init__(self, transport: str, host: str, port: int, via: Any, where: Any = None) -> None:
        self.transport = transport
        self.host = host
        self.port = port
        self.came_from = port
        """the port that the peer sends from; `port` is the one it is sent to"""
        self._via = via
        self._where = where

    @property
    def reliable(self) -> bool:
        return self.transport != "udp"

    @property
    def open(self) -> bool:
        return not self._via.is_closing()

    def toward_port(self, port: int) -> Flow:
        """The same peer over UDP, where it listens at another port than it sends from."""
        flow = Flow(self.transport, self.host, port, self._via, (self._where[0], port, *self._where[2:]))
        flow.came_from = self.came_from
        return flow

    def same_sender(self, other: Flow) -> bool:
        """Sent by the same socket, as far as anybody can see."""
        return (self._via, self.host, self.came_from) == (other._via, other.host, other.came_from)

    def same_peer(self, other: Flow) -> bool:
        """By the same socket of ours and from the same host; the port may differ: a NAT's."""
        return self._via is other._via and self.host == other.host

    def send(self, message: bytes) -> None:
        """Never raises and never waits: a peer that is gone is noticed by timers."""
        if not self.open:
            return
        if self._where is not None:
            if self._via.get_write_buffer_size() < MAX_UNSENT:
                self._via.sendto(message, self._where)
        elif self._via.get_write_buffer_size() < MAX_UNSENT:
            self._via.write(message)
        else:
            self._via.abort()  # it takes nothing any more

    def close(self) -> None:
        """Ends a connection."""
        self._via.close()


Receive = Callable[[bytes, Flow], bool]
"""Takes one message; False: that was no SIP."""


class UdpPort(asyncio.DatagramProtocol):
    """A UDP port. Until it is open it has no address and no flows."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._transport: Any = None
        self._six = False
        self._closed = asyncio.Event()

    async def open(self, host: str, port: int) -> None:
        """Raises `OSError` when the port is taken."""
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, local_addr=(host, port))

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        sock = transport.get_extra_info("socket")
        self._six = sock.family == socket.AF_INET6
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if data.strip(b"\r\n\0 "):  # else a keep-alive
            self._receive(data, Flow("udp", plain_host(addr[0]), addr[1], self._transport, addr))

    def error_received(self, exc: Exception) -> None:
        """An ICMP error for something sent before: timers deal with it."""

    def flow(self, host: str, port: int) -> Flow:
        where = f"::ffff:{host}" if self._six and ":" not in host else host
        return Flow("udp", host, port, self._transport, (where, port))

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that are bound."""
        name = self._transport.get_extra_info("sockname")
        return str(name[0]), int(name[1])

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()

    async def close(self) -> None:
        """Returns when the port is free again; at once when it was never open."""
        if self._transport is not None:
            self._transport.close()
            await self._closed.wait()


class TcpPort:
    """A listening TCP port; connections stay open and are used for requests toward their peer too."""

    def __init__(self, receive: Receive, lost: Callable[[Flow], None]) -> None:
        """`lost` is told of each connection that ended."""
        self._receive = receive
        self._lost = lost
        self._server: asyncio.Server | None = None
        self._flows: dict[tuple[str, int], Flow] = {}
        self._from: Counter[str] = Counter()
        self.turned_away = 0

    async def open(self, host: str, port: int) -> None:
        """Raises `OSError` when the port is taken."""
        self._server = await asyncio.start_server(self._connected, host, port, limit=MAX_HEAD)

    def __len__(self) -> int:
        return len(self._flows)

    def flow(self, host: str, port: int) -> Flow | None:
        """The connection that is open from there."""
        return self._flows.get((host, port))

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer, port = writer.get_extra_info("peername")[:2]
        host = plain_host(peer)
        if len(self._flows) >= MAX_CONNECTIONS or self._from[host] >= MAX_PER_SOURCE:
            self.turned_away += 1
            writer.close()
            return
        flow = Flow("tcp", host, port, writer.transport)
        self._flows[host, port] = flow
        self._from[host] += 1
        try:
            patience_s = FIRST_WORD_S
            while self._receive(await self._read(reader, flow, patience_s), flow):
                patience_s = IDLE_S
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # not SIP, too slow, or gone: the connection ends
        except Exception:
            log.exception("edge.connection_failed", source=host)
        finally:
            del self._flows[host, port]
            self._from[host] -= 1
            if not self._from[host]:
                del self._from[host]
            writer.close()
            self._lost(flow)

    async def _read(self, reader: asyncio.StreamReader, flow: Flow, patience_s: float) -> bytes:
        """One message (RFC 3261 §18.3). Raises `ValueError` for what cannot be framed, `TimeoutError`."""
        async with asyncio.timeout(patience_s):
            blank = 0
            while not (line := await reader.readuntil(b"\r\n")).strip(b"\r\n"):
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
            return head + (await reader.readexactly(length) if length else b"")

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            for flow in list(self._flows.values()):
                flow.close()
            await self._server.wait_closed()


def plain_host(host: str) -> str:
    """An IPv4 address that an IPv6 socket shows is IPv4."""
    return host.removeprefix("::ffff:") if "." in host else host
