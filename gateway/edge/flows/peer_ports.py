"""All ways to peers: the ports that we listen at, and the connections that we open.

Of ours only `connect` makes connections, for whom the operator named (a trunk); nothing that a peer wrote
leads there.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final

from gateway.edge.flows.connections import IDLE_S, MAX_HEAD, Connections, StreamPort, TlsOffer
from gateway.edge.flows.transport import Flow, Receive, SentEar, UdpPort, plain_host
from gateway.errors import NoFlow
from model.tasks import Tasks

CONNECT_S: Final = 5.0
PORT_TRIES: Final = 16
MAX_OUTGOING: Final = 256

_Way = tuple[str, str, int, str, ssl.SSLContext | None]
"""(transport, host, port, name that its certificate was checked for, context)"""


class PeerPorts:
    """UDP, TCP, TLS, what we opened, and browsers' WebSockets, which the HTTP server has at `web_ports`.

    `trust` makes what certificates of others are checked by; `sent` hears what goes out.
    """

    def __init__(
        self,
        receive: Receive,
        lost: Callable[[Flow], None],
        trust: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        web_ports: Mapping[str, int] | None = None,
        sent: SentEar | None = None,
    ) -> None:
        self.udp = UdpPort(receive, sent)
        self.connections = Connections(receive, lost, sent)
        self._tcp = StreamPort("tcp", self.connections)
        self._tls = StreamPort("tls", self.connections)
        self._web_ports = web_ports or {}
        self._make_trust = trust
        self._trust: ssl.SSLContext | None = None
        self._outgoing: dict[_Way, Flow] = {}
        self._opening: dict[_Way, asyncio.Task[Flow]] = {}
        self._tasks = Tasks()

    async def open(self, host: str, port: int) -> None:
        """UDP and TCP; port 0 is any that is free for both. Raises `OSError` when the port is taken."""
        for left in reversed(range(1 if port else PORT_TRIES)):
            await self.udp.open(host, port)
            try:
                await self._tcp.open(*self.udp.address)
            except OSError:  # what is free for UDP may be somebody's by TCP
                if not left:
                    raise
                await self.udp.close()
            else:
                return

    async def open_tls(self, host: str, port: int, offer: TlsOffer) -> None:
        """Raises `OSError` when the port is taken."""
        await self._tls.open(host, port, offer)

    def port(self, transport: str) -> int:
        """Ours, at which peers reach us over that transport; UDP's where there is none."""
        if transport in self._web_ports:
            return self._web_ports[transport]
        found = self._tls.address if transport == "tls" else None
        return self.udp.address[1] if found is None else found[1]

    def flow(self, transport: str, host: str, port: int) -> Flow | None:
        """The way to a peer that came from there; None: it has closed its connection."""
        if transport == "udp":
            return self.udp.flow(host, port)
        return self.connections.flow(transport, host, port)

    def unwelcome(self) -> list[Flow]:
        """Peers' connections that would not be taken any more."""
        return [flow for flow in self.connections if not self._tls.welcomes(flow)]

    # ── ours ─────────────────────────────────────────────────────────────────────────────────────────

    async def connect(
        self,
        transport: str,
        host: str,
        port: int,
        server_name: str = "",
        context: ssl.SSLContext | None = None,
    ) -> Flow:
        """The way to a server: "udp", "tcp" or "tls". An open connection is used again.

        `host` is an address, or a name to resolve. TLS: the server's certificate must be for `server_name`
        (else `host`), and its chain lead to what `context`, or what the settings trust. Raises `NoFlow`,
        which says why.
        """
        if transport == "udp":
            return self.udp.flow(host, port)
        if transport not in ("tcp", "tls"):
            raise NoFlow(f"there is no way out over {transport}")
        name = (server_name or host) if transport == "tls" else ""
        way = (transport, host, port, name.lower(), context)
        flow = self._outgoing.get(way)
        if flow is not None and flow.open:
            return flow
        opening = self._opening.get(way)
        if opening is None:
            if len(self._outgoing) + len(self._opening) >= MAX_OUTGOING:
                raise NoFlow("too many connections of ours are open")
            opening = self._tasks.short(self._open(way), "edge.connect", told=(NoFlow,))
            self._opening[way] = opening
            opening.add_done_callback(lambda _: self._opening.pop(way, None))
        return await asyncio.shield(opening)

    async def _open(self, way: _Way) -> Flow:
        transport, host, port, name, context = way
        more: dict[str, Any] = {}
        if transport == "tls":
            more = {"ssl": context or self._trusted(), "server_hostname": name}
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_connection(host, port, limit=MAX_HEAD, **more)
        except ssl.SSLCertVerificationError as error:
            raise NoFlow(f"{host}:{port}: its certificate does not hold ({error.verify_message})") from None
        except ssl.SSLError as error:
            raise NoFlow(f"{host}:{port}: no TLS with it ({error.reason or type(error).__name__})") from None
        except TimeoutError:
            raise NoFlow(f"{host}:{port} does not answer over {transport.upper()}") from None
        except OSError as error:
            raise NoFlow(f"{host}:{port}: {error.strerror or error}") from None
        peer = writer.get_extra_info("peername")[0]
        flow = Flow(transport, plain_host(peer), port, writer.transport, sent=self.connections.sent)
        flow.names = frozenset({name}) if name else frozenset()
        flow.checked_by = context
        self._outgoing[way] = flow
        self._tasks.short(self._read(way, reader, writer, flow), "edge.read")
        return flow

    async def _read(
        self, way: _Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flow: Flow
    ) -> None:
        try:
            await self.connections.read(reader, flow, IDLE_S)
        finally:
            writer.close()
            if self._outgoing.get(way) is flow:
                del self._outgoing[way]
            self.connections.remove(flow)

    def _trusted(self) -> ssl.SSLContext:
        """Read at the first need: the system's authorities are a megabyte."""
        if self._trust is None:
            self._trust = self._make_trust()
        return self._trust

    async def close(self) -> None:
        """Ends every connection, and frees the ports."""
        await self._tasks.stop()
        await self._tls.close()
        await self._tcp.close()
        await self.udp.close()
