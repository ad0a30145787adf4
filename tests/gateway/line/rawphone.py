"""A telephone of two UDP sockets: it says exactly what a test wants said, and times what comes back."""

from __future__ import annotations

import asyncio
import itertools
import math
import re
import secrets
import socket
import struct
import time
from dataclasses import dataclass, field

from gateway.ipc.line_signature import signature
from tests.gateway.line.line_harness import TOKEN

PAYLOAD_TYPES = {"PCMU": 0, "PCMA": 8, "G722": 9}


def linear_to_ulaw(sample: int) -> int:
    """G.711 µ-law, from its definition."""
    sign, magnitude = (0x80, -sample) if sample < 0 else (0, sample)
    magnitude = min(magnitude, 32635) + 132
    exponent = magnitude.bit_length() - 8
    return ~(sign | exponent << 4 | (magnitude >> (exponent + 3)) & 0x0F) & 0xFF


def ulaw_to_linear(byte: int) -> int:
    byte = ~byte & 0xFF
    magnitude = (((byte & 0x0F) << 3) + 132 << ((byte >> 4) & 7)) - 132
    return -magnitude if byte & 0x80 else magnitude


def tone(frequency_hz: float, samples: int, rate_hz: int = 8000, level: float = 8000.0) -> list[int]:
    return [round(level * math.sin(2 * math.pi * frequency_hz * n / rate_hz)) for n in range(samples)]


@dataclass
class Message:
    """A SIP message as it came."""

    start: str
    headers: dict[str, str]
    body: str

    @property
    def status(self) -> int:
        return int(self.start.split()[1]) if self.start.startswith("SIP/2.0") else 0

    @property
    def method(self) -> str:
        return self.headers["cseq"].split()[1]

    @classmethod
    def parse(cls, data: bytes) -> Message:
        head, _, body = data.decode().partition("\r\n\r\n")
        start, *lines = head.split("\r\n")
        pairs = [line.split(":", 1) for line in lines]
        headers: dict[str, str] = {}
        for name, value in pairs:
            headers.setdefault(name.strip().lower(), value.strip())
        vias = [value.strip() for name, value in pairs if name.strip().lower() == "via"]
        headers["via"] = ",".join(vias)
        return cls(start, headers, body)


@dataclass
class Packet:
    """One RTP packet received."""

    at: float
    payload_type: int
    sequence: int
    payload: bytes


class _Inbox(asyncio.DatagramProtocol):
    def __init__(self, take: object) -> None:
        self.take = take

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.take(data, addr)  # type: ignore[operator]


@dataclass
class RawPhone:
    """One call's telephone. Use `RawPhone.open()`."""

    line: tuple[str, int]
    call_id: str
    codec: str = "PCMU"
    sip_call_id: str = field(default_factory=lambda: secrets.token_hex(8))
    tag: str = field(default_factory=lambda: secrets.token_hex(4))
    received: list[Packet] = field(default_factory=list)
    _cseq: int = 0

    async def open(self) -> RawPhone:
        loop = asyncio.get_running_loop()
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._unread: list[Message] = []
        self._sip, _ = await loop.create_datagram_endpoint(
            lambda: _Inbox(self._sip_came), local_addr=("127.0.0.1", 0)
        )
        self._rtp, _ = await loop.create_datagram_endpoint(
            lambda: _Inbox(self._rtp_came), local_addr=("127.0.0.1", 0)
        )
        self.rtp_port = self._rtp.get_extra_info("sockname")[1]
        self.sip_port = self._sip.get_extra_info("sockname")[1]
        self.to_tag = ""
        self._branch = ""
        self._talking: asyncio.Task[None] | None = None
        self.sequence, self.timestamp, self.ssrc = 1, 0, secrets.randbits(32)
        self.media: tuple[str, int] | None = None
        return self

    def close(self) -> None:
        if self._talking is not None:
            self._talking.cancel()
        self._sip.close()
        self._rtp.close()

    # -- SIP

    def _sip_came(self, data: bytes, _: tuple[str, int]) -> None:
        if data.strip():
            self._messages.put_nowait(Message.parse(data))

    def offer(self, direction: str = "sendrecv", address: str = "127.0.0.1") -> str:
        payload_type = PAYLOAD_TYPES[self.codec]
        return (
            f"v=0\r\no=- 1 {self._cseq + 1} IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n"
            f"m=audio {self.rtp_port} RTP/AVP {payload_type} 101\r\n"
            f"a=rtpmap:{payload_type} {self.codec}/8000\r\n"
            f"a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na={direction}\r\n"
        )

    def send(
        self,
        method: str,
        body: str = "",
        headers: str = "",
        *,
        content: str = "application/sdp",
        same: bool = False,
    ) -> None:
        """`same`: ACK and CANCEL repeat the INVITE's CSeq; CANCEL its branch too."""
        if not same:
            self._cseq += 1
        if method != "CANCEL":
            self._branch = "z9hG4bK" + secrets.token_hex(6)
        to_tag = f";tag={self.to_tag}" if self.to_tag and method != "CANCEL" else ""
        typed = f"Content-Type: {content}\r\n" if body else ""
        message = (
            f"{method} sip:demo@{self.line[0]}:{self.line[1]} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP 127.0.0.1:{self.sip_port};branch={self._branch}\r\nMax-Forwards: 70\r\n"
            f"From: <sip:raw@127.0.0.1>;tag={self.tag}\r\nTo: <sip:demo@127.0.0.1>{to_tag}\r\n"
            f"Call-ID: {self.sip_call_id}\r\nCSeq: {self._cseq} {method}\r\n"
            f"Contact: <sip:raw@127.0.0.1:{self.sip_port}>\r\n{headers}{typed}"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )
        self._sip.sendto(message.encode(), self.line)

    def signed(self) -> str:
        return (
            f"X-VG-Call: {self.call_id}\r\nX-VG-Auth: {signature(TOKEN, self.call_id, self.sip_call_id)}\r\n"
        )

    async def next(self, *, status: int = 0, method: str = "", timeout_s: float = 5.0) -> Message:
        """The next message of that kind; others wait their turn."""

        def wanted(message: Message) -> bool:
            return (not status or message.status == status) and (not method or message.method == method)

        async with asyncio.timeout(timeout_s):
            for message in self._unread:
                if wanted(message):
                    self._unread.remove(message)
                    return message
            while not wanted(message := await self._messages.get()):
                self._unread.append(message)
            return message

    async def final(self, method: str = "INVITE", timeout_s: float = 5.0) -> Message:
        """The final response to it; an INVITE's is ACKed."""
        while (message := await self.next(method=method, timeout_s=timeout_s)).status < 200:
            pass
        if method == "INVITE":
            self.to_tag = re.search(r"tag=([^;>\s]+)", message.headers["to"])[1]  # type: ignore[index]
            branch = self._branch
            self.send("ACK", same=True)
            self._branch = branch
            if message.body:
                port = re.search(r"m=audio (\d+)", message.body)
                assert port is not None
                self.media = ("127.0.0.1", int(port[1]))
        return message

    async def invite(self, headers: str | None = None) -> Message:
        self.send("INVITE", self.offer(), self.signed() if headers is None else headers)
        return await self.final()

    def answer(self, request: Message, status: str = "200 OK") -> None:
        lines = [
            f"{name}: {request.headers[name.lower()]}" for name in ("Via", "From", "To", "Call-ID", "CSeq")
        ]
        self._sip.sendto(
            "\r\n".join([f"SIP/2.0 {status}", *lines, "Content-Length: 0", "", ""]).encode(), self.line
        )

    # -- RTP

    def _rtp_came(self, data: bytes, _: tuple[str, int]) -> None:
        _, second, sequence = struct.unpack_from(">BBH", data)
        self.received.append(Packet(time.monotonic(), second & 0x7F, sequence, data[12:]))

    def send_rtp(self, payload: bytes, *, payload_type: int | None = None, marker: bool = False) -> None:
        assert self.media is not None
        kind = PAYLOAD_TYPES[self.codec] if payload_type is None else payload_type
        head = struct.pack(
            ">BBHII", 0x80, kind | (0x80 if marker else 0), self.sequence & 0xFFFF, self.timestamp, self.ssrc
        )
        self._rtp.sendto(head + payload, self.media)
        self.sequence += 1

    def talk(self, samples: list[int]) -> None:
        """Sends µ-law in 20 ms packets, over and over, until the phone is closed."""
        encoded = bytes(map(linear_to_ulaw, samples))

        async def run() -> None:
            start, sent = time.monotonic(), 0
            while True:
                at = sent * 160 % len(encoded)
                self.send_rtp(encoded[at : at + 160])
                self.timestamp += 160
                sent += 1
                await asyncio.sleep(max(0.0, start + sent * 0.02 - time.monotonic()))

        self._talking = asyncio.create_task(run())

    def heard(self) -> list[int]:
        """Samples received, in the order of arrival (µ-law)."""
        return [ulaw_to_linear(byte) for p in self.received if p.payload_type == 0 for byte in p.payload]

    def gaps_s(self) -> list[float]:
        """Times between successive audio packets."""
        times = [p.at for p in self.received if p.payload_type != 101]
        return [b - a for a, b in itertools.pairwise(times)]


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
