"""Where SIP messages come in and go out: UDP and TCP for callers, loopback UDP for lines.

A `Flow` is where a message came from and therefore the only place an answer may go (RFC 5626's word). TLS and
WSS will be two more ways to make flows; nothing behind this module asks which one it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

MAX_UDP: Final = 65_507
MAX_HEAD: Final = 16_384
MAX_BODY: Final = 65_536
IDLE_S: Final = 3700.0
"""A TCP connection without a word for longer than the longest call is closed."""
MAX_CONNECTIONS: Final = 1024


@dataclass(eq=False, slots=True)
class Flow:
    """One peer as we see it. `transport` is "udp" or "tcp"."""

    transport: str
    host: str
    port: int
    write: Callable[[bytes], None]

    @property
    def reliable(self) -> bool:
        return self.transport != "udp"

    def send(self, message: bytes) -> None:
        with contextlib.suppress(OSError, RuntimeError):  # a peer that is gone is noticed by timers
            self.write(message)


Receive = Callable[[bytes, Flow], None]


class UdpPort(asyncio.DatagramProtocol):
    """A bound UDP port."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._transport: asyncio.DatagramTransport | None = None

    @classmethod
    async def open(cls, host: str, port: int, receive: Receive) -> UdpPort:
        """Raises `OSError` when the port is taken."""
        _, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: cls(receive), local_addr=(host, port)
        )
        return protocol

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._receive(data, self.flow(addr[0], addr[1]))

    def error_received(self, exc: Exception) -> None:
        """An ICMP error for something sent before: timers deal with it."""

    def flow(self, host: str, port: int) -> Flow:
        transport = self._transport
        assert transport is not None
        return Flow("udp", host, port, lambda message: transport.sendto(message, (host, port)))

    @property
    def port(self) -> int:
        assert self._transport is not None
        return int(self._transport.get_extra_info("sockname")[1])

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class TcpPort:
    """A listening TCP port; connections stay open and are used for requests toward their peer too."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._server: asyncio.Server | None = None
        self._flows: dict[tuple[str, int], Flow] = {}

    async def open(self, host: str, port: int) -> None:
        """Raises `OSError` when the port is taken."""
        self._server = await asyncio.start_server(self._connected, host, port, limit=MAX_HEAD)

    def flow(self, host: str, port: int) -> Flow | None:
        """The connection that is open from there."""
        return self._flows.get((host, port))

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = writer.get_extra_info("peername")[:2]
        if len(self._flows) >= MAX_CONNECTIONS:
            writer.close()
            return
        flow = Flow("tcp", host, port, writer.write)
        self._flows[host, port] = flow
        try:
            while message := await self._read(reader, writer):
                self._receive(message, flow)
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass  # not SIP, or gone: the connection ends
        finally:
            self._flows.pop((host, port), None)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """One message (RFC 3261 §18.3). Raises `ValueError` for what cannot be framed."""
        async with asyncio.timeout(IDLE_S):
            head = await reader.readuntil(b"\r\n")
            while head in (b"\r\n", b"\r\n\r\n"):  # RFC 5626 keep-alive
                if head == b"\r\n\r\n":
                    writer.write(b"\r\n")
                    head = b""
                head += await reader.readuntil(b"\r\n")
            head = head.lstrip(b"\r\n") + await reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, colon, value = line.partition(b":")
            if colon and name.strip().lower() in (b"content-length", b"l"):
                length = int(value)
        if not 0 <= length <= MAX_BODY:
            raise ValueError("a body of that length is not taken")
        return head + (await reader.readexactly(length) if length else b"")

    def close(self) -> None:
        if self._server is not None:
            self._server.close()


def local_address_toward(host: str) -> str:
    """The address of ours that `host` would see (nothing is sent)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
