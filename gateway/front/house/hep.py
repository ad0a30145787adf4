"""SIP messages told to a collector of captures (Homer, HEPlify) by HEP3: a UDP packet each, blanked.

Our call id is the correlation id. Nobody waits for it: what cannot be sent at once is lost, and counted.
The packet: "HEP3", its length, then chunks of vendor (0), type, length and value, all in network order
(https://github.com/sipcapture/HEP, revision 32).
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import struct
import zlib
from collections.abc import Callable
from typing import Final

import structlog

from gateway.ipc.wire_message import US, WireMessage

ASK_AGAIN_S: Final = 60.0
"""How often the collector's name is looked up."""
MAX_PACKET: Final = 60_000
SIP: Final = 1
"""The protocol type, of chunk 11."""
_TCP, _UDP = 6, 17
_LENGTH: Final = re.compile(r"^Content-Length: \d+$", re.MULTILINE)

log = structlog.get_logger("front")


OwnEnd = Callable[[str, str], tuple[str, int]]
"""Our address and port, by transport and as the peer at an address sees them."""


def hep_sender(place: str | None, own_end: OwnEnd, counted: Callable[[str], None]) -> HepSender | None:
    """One for the collector that the settings name; None: they name none."""
    return None if place is None else HepSender(place, own_end, counted)


class HepSender:
    """Tells the collector at `place` ("HOST:PORT"); `counted` is told "sent" or "lost" of each packet."""

    def __init__(self, place: str, own_end: OwnEnd, counted: Callable[[str], None]) -> None:
        host, _, port = place.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._own_end = own_end
        self._counted = counted
        self._socket: socket.socket | None = None
        self._away = False
        self._agent = zlib.crc32(socket.gethostname().encode()) or 1
        """which machine captured it"""

    async def look_up(self) -> None:
        """Finds the collector, again and again; until it is found, packets are lost."""
        while True:
            await self._find()
            await asyncio.sleep(ASK_AGAIN_S)

    async def _find(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)
            family, kind, protocol, _, address = found[0]
            if self._socket is not None and self._socket.getpeername() == address:
                return
            made = socket.socket(family, kind, protocol)
            made.setblocking(False)
            made.connect(address)
        except OSError as error:
            if not self._away:
                log.warning("hep.unknown", host=self._host, error=error.strerror or str(error))
            self._away = True
            return
        self._away = False
        self.close()
        self._socket = made

    def tell(self, call_id: str, message: WireMessage) -> None:
        """Sends one message; HTTP's and what could not be read are nobody's business there."""
        if message.protocol == "http" or "\n" not in message.text:
            return
        try:
            if self._socket is None:
                raise OSError("the collector is unknown")
            self._socket.send(self._packet(call_id, message))
        except (OSError, ValueError):
            self._counted("lost")
        else:
            self._counted("sent")

    def _packet(self, call_id: str, message: WireMessage) -> bytes:
        """Raises `ValueError` for an address that is none."""
        theirs = ipaddress.ip_address(message.host.partition("%")[0])
        own_host, own_port = self._own_end(message.protocol, message.host)
        ours = ipaddress.ip_address(own_host)
        if ours.version != theirs.version:
            ours = type(theirs)(0)
        one, two = (theirs, message.port), (ours, own_port)
        (source, source_port), (target, target_port) = (two, one) if message.sender == US else (one, two)
        four = theirs.version == 4
        seconds = int(message.at)
        chunks = [
            _chunk(1, struct.pack("!B", socket.AF_INET if four else 10)),
            _chunk(2, struct.pack("!B", _UDP if message.protocol == "udp" else _TCP)),
            _chunk(3 if four else 5, source.packed),
            _chunk(4 if four else 6, target.packed),
            _chunk(7, struct.pack("!H", source_port)),
            _chunk(8, struct.pack("!H", target_port)),
            _chunk(9, struct.pack("!I", seconds)),
            _chunk(10, struct.pack("!I", int((message.at - seconds) * 1e6))),
            _chunk(11, struct.pack("!B", SIP)),
            _chunk(12, struct.pack("!I", self._agent)),
            _chunk(17, call_id.encode()),
            _chunk(15, _payload(message.text)),
        ]
        body = b"".join(chunks)
        if len(body) > MAX_PACKET:
            raise ValueError("too long for a packet")
        return b"HEP3" + struct.pack("!H", len(body) + 6) + body

    def close(self) -> None:
        """Nothing is sent any more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _chunk(kind: int, value: bytes) -> bytes:
    return struct.pack("!HHH", 0, kind, len(value) + 6) + value


def _payload(text: str) -> bytes:
    """A message that a SIP parser takes: its lines' ends, and a length that is that of the blanked body."""
    head, _, body = text.partition("\n\n")
    said = body.replace("\n", "\r\n").encode()
    lines = _LENGTH.sub(f"Content-Length: {len(said)}", head).replace("\n", "\r\n")
    return lines.encode() + b"\r\n\r\n" + said
