"""Where SIP messages come in and go out: a `Flow`, and a UDP port, for callers and (on loopback) for lines.

A `Flow` is where a message came from and therefore the only place an answer may go (RFC 5626's word); a peer
over UDP may name another port of its own address (`responses.way_back`), never another address. TCP, TLS and
WebSocket make flows too (`connections`); nothing behind this room asks which one it is.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, Final

from gateway.edge.flows.peer_certificate import PeerCertificate

MAX_UNSENT: Final = 262_144
"""Bytes that may wait for a peer (a connection) or the kernel (UDP); more are lost, as on a network."""


SentEar = Callable[[bytes, "Flow"], None]
"""Hears of what was sent, and where."""


class Flow:
    """One peer as we see it. `transport` is "udp", "tcp", "tls", "ws" or "wss"; `host` an address without
    brackets."""

    __slots__ = (
        "_sent", "_via", "_where", "came_from", "certificate", "checked_by", "heard_at", "host", "names",
        "port", "transport",
    )  # fmt: skip

    def __init__(
        self,
        transport: str,
        host: str,
        port: int,
        via: Any,
        where: Any = None,
        sent: SentEar | None = None,
    ) -> None:
        """`sent` hears of each message that is sent by it."""
        self.transport = transport
        self.host = host
        self.port = port
        self.came_from = port
        """the port that the peer sends from; `port` is the one it is sent to"""
        self.names: frozenset[str] = frozenset()
        """what its certificate says it is, where that was verified"""
        self.certificate: PeerCertificate | None = None
        """what it showed when it connected to us, where that was verified"""
        self.checked_by: ssl.SSLContext | None = None
        """by what we checked the server that we opened it to, where that is not the house's trust"""
        self.heard_at = time.monotonic()
        """when the peer last sent something by it, be it two line breaks; monotonic"""
        self._via = via
        self._where = where
        self._sent = sent

    @property
    def reliable(self) -> bool:
        return self.transport != "udp"

    @property
    def secure(self) -> bool:
        """Whether nobody on the way reads it."""
        return self.transport in ("tls", "wss")

    @property
    def open(self) -> bool:
        return not self._via.is_closing()

    def toward_port(self, port: int) -> Flow:
        """The same peer over UDP, where it listens at another port than it sends from."""
        where = (self._where[0], port, *self._where[2:])
        flow = Flow(self.transport, self.host, port, self._via, where, self._sent)
        flow.came_from, flow.heard_at = self.came_from, self.heard_at
        return flow

    def same_sender(self, other: Flow) -> bool:
        """Sent by the same socket, as far as anybody can see."""
        return (self._via, self.host, self.came_from) == (other._via, other.host, other.came_from)

    def same_peer(self, other: Flow) -> bool:
        """By the same socket of ours and from the same host; the port may differ: a NAT's."""
        return self._via is other._via and self.host == other.host

    def overheard(self, ear: Callable[[bytes], None]) -> Flow:
        """The same peer, with somebody who hears of each message that is sent there."""
        return _Overheard(self, ear)

    def send(self, message: bytes) -> None:
        """Never raises and never waits: a peer that is gone is noticed by timers."""
        if not self.open:
            return
        if self._via.get_write_buffer_size() >= MAX_UNSENT:
            if self._where is None:
                self._via.abort()  # it takes nothing any more
            return
        if self._where is not None:
            self._via.sendto(message, self._where)
        else:
            self._via.write(message)
        if self._sent is not None:
            self._sent(message, self)

    def close(self) -> None:
        """Ends a connection."""
        self._via.close()


class _Overheard(Flow):
    """See `Flow.overheard`."""

    __slots__ = ("_ear",)

    def __init__(self, flow: Flow, ear: Callable[[bytes], None]) -> None:
        super().__init__(flow.transport, flow.host, flow.port, flow._via, flow._where, flow._sent)
        self.came_from, self.names = flow.came_from, flow.names
        self.certificate, self.checked_by = flow.certificate, flow.checked_by
        self._ear = ear

    def send(self, message: bytes) -> None:
        self._ear(message)
        super().send(message)


Receive = Callable[[bytes, Flow], bool]
"""Takes one message; False: that was no SIP."""


class UdpPort(asyncio.DatagramProtocol):
    """A UDP port. Until it is open it has no address and no flows."""

    def __init__(self, receive: Receive, sent: SentEar | None = None) -> None:
        self.blank: Callable[[Flow], None] | None = None
        """told of telephones' keep-alives: line breaks, spaces and zeros"""
        self._receive = receive
        self._sent = sent
        self._transport: Any = None
        self._six = False
        self._closed = asyncio.Event()

    async def open(self, host: str, port: int) -> None:
        """Raises `OSError` when the port is taken."""
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, sock=bound(host, port, socket.SOCK_DGRAM))

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._closed.clear()
        sock = transport.get_extra_info("socket")
        self._six = sock.family == socket.AF_INET6
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        flow = Flow("udp", plain_host(addr[0]), addr[1], self._transport, addr, self._sent)
        if data.strip(b"\r\n\0 "):
            self._receive(data, flow)
        elif self.blank is not None:
            self.blank(flow)

    def error_received(self, exc: Exception) -> None:
        """An ICMP error for something sent before: timers deal with it."""

    def flow(self, host: str, port: int) -> Flow:
        where = f"::ffff:{host}" if self._six and ":" not in host else host
        return Flow("udp", host, port, self._transport, (where, port), self._sent)

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


def bound(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """A socket at a port; "::" is every address, of IPv4 too, whatever the machine's default is.

    Raises `OSError` when the port is taken.
    """
    family, _, protocol, _, address = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_PASSIVE)[0]
    made = socket.socket(family, kind, protocol)  # asyncio sends at once only where it reads that this is TCP
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


def plain_host(host: str) -> str:
    """An IPv4 address that an IPv6 socket shows is IPv4."""
    return host.removeprefix("::ffff:") if "." in host else host
