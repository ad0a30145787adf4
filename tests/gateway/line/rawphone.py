"""A telephone of two UDP sockets: it says exactly what a test wants said, and notes what comes back.

It calls a line, or takes the call of the test phone.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import av

from gateway.ipc.line_signature import signature
from gateway.line.opus import OpusDecoder, OpusEncoder
from gateway.rtp.payloads.g729 import G729Decoder, G729Encoder
from tests.gateway.line.line_harness import TOKEN, Sound

EVENT = 101
"""Payload type of telephone-event (RFC 4733)."""
DIGITS = "0123456789*#ABCD"
"""By event code (RFC 4733 §3.2)."""


class Coder:
    """One codec, both ways, as FFmpeg has it: int16 mono at `rate_hz`, 160 bytes for 20 ms."""

    def __init__(self, codec: str) -> None:
        self.codec = codec
        self.step = 960 if codec == "OPUS" else 160
        """units of the RTP clock in 20 ms"""
        self.mapped = "opus/48000/2" if codec == "OPUS" else f"{codec}/8000"
        if codec == "OPUS":
            self.payload_type, self.rate_hz = 111, 16_000
            self.encode = OpusEncoder(rate_hz=16_000).encode  # type: ignore[method-assign]
            self.decode = OpusDecoder(16_000).decode  # type: ignore[method-assign]
            return
        if codec == "G729":
            self.payload_type, self.rate_hz = 18, 8_000
            self.encode = G729Encoder().encode  # type: ignore[method-assign]
            ear = G729Decoder()
            self.decode = lambda payload: ear.decode(payload).tobytes()  # type: ignore[method-assign]
            return
        self.payload_type, name = {"PCMU": (0, "pcm_mulaw"), "PCMA": (8, "pcm_alaw"), "G722": (9, "g722")}[
            codec
        ]
        self.rate_hz = 16_000 if codec == "G722" else 8_000
        self._encoder = av.CodecContext.create(name, "w")
        self._decoder = av.CodecContext.create(name, "r")
        for context in (self._encoder, self._decoder):
            context.sample_rate, context.layout, context.format = self.rate_hz, "mono", "s16"  # type: ignore[attr-defined]

    def encode(self, pcm: bytes) -> bytes:
        frame = av.AudioFrame(format="s16", layout="mono", samples=len(pcm) // 2)
        frame.sample_rate = self.rate_hz
        frame.planes[0].update(pcm)
        return b"".join(bytes(packet) for packet in self._encoder.encode(frame))  # type: ignore[attr-defined]

    def decode(self, payload: bytes) -> bytes:
        frames = self._decoder.decode(av.Packet(payload))  # type: ignore[attr-defined]
        return b"".join(bytes(frame.planes[0])[: 2 * frame.samples] for frame in frames)


@dataclass
class Message:
    """A SIP message as it came."""

    start: str
    headers: dict[str, str]
    body: str

    @property
    def status(self) -> int:
        """0 for a request."""
        return int(self.start.split()[1]) if self.start.startswith("SIP/2.0") else 0

    @property
    def method(self) -> str:
        return self.headers["cseq"].split()[1]

    @property
    def reason(self) -> str:
        return self.start.split(" ", 2)[2]

    @classmethod
    def parse(cls, data: bytes) -> Message:
        head, _, body = data.decode().partition("\r\n\r\n")
        start, *lines = head.split("\r\n")
        headers: dict[str, str] = {}
        for name, value in (line.split(":", 1) for line in lines):
            name, value = name.strip().lower(), value.strip()
            many = name in ("via", "record-route") and name in headers
            headers[name] = f"{headers[name]}, {value}" if many else value
        return cls(start, headers, body)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class _Inbox(asyncio.DatagramProtocol):
    def __init__(self, take: Callable[[bytes, tuple[str, int]], None]) -> None:
        self._take = take

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        self._take(data, source)


@dataclass
class RawPhone:
    """One call's telephone. Use `RawPhone.open()`."""

    line: tuple[str, int] = ("127.0.0.1", 0)
    """The SIP address of the line, or of who called last."""
    call_id: str = ""
    codec: str = "PCMU"
    dials: str = "demo"
    """The user that it calls."""
    sip_call_id: str = field(default_factory=lambda: secrets.token_hex(8))
    tag: str = field(default_factory=lambda: secrets.token_hex(4))
    packets: int = 0
    """Audio packets received."""
    reports: list[bytes] = field(default_factory=list)
    """RTCP packets received."""
    pcm: bytearray = field(default_factory=bytearray)
    """What they said, in the order of their arrival."""
    deaf: bool = False
    """Answers no BYE."""
    to_tag: str = ""
    host: str = "127.0.0.1"
    """Its own address, of IPv4 or IPv6."""
    rule: str = "off"
    """Whether the edge wants its sound encrypted."""
    target: str = ""
    """What its requests within a call name, where a proxy stands between (RFC 3261 §12.2.1.1)."""
    media: tuple[str, int] | None = None
    """Where the line wants our RTP."""
    _cseq: int = 0
    _branch: str = ""
    _unread: list[Message] = field(default_factory=list)
    _talking: asyncio.Task[None] | None = None

    async def open(self) -> RawPhone:
        loop = asyncio.get_running_loop()
        self.use(self.codec)
        self.pressed: Counter[tuple[int, str]] = Counter()
        """Packets of each key heard, by (RTP timestamp of its beginning, digit)."""
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._came = asyncio.Event()
        self._sip, _ = await loop.create_datagram_endpoint(
            lambda: _Inbox(self._sip_came), local_addr=(self.host, 0)
        )
        self._sockets: list[asyncio.DatagramTransport] = [self._sip]
        await self.move()
        self.sip_port: int = self._sip.get_extra_info("sockname")[1]
        self.sequence, self.timestamp, self.ssrc = 1, 0, secrets.randbits(32)
        return self

    def use(self, codec: str) -> None:
        """Speaks and understands this codec from now on."""
        self.codec, self.coder = codec, Coder(codec)

    async def move(self) -> None:
        """Sends and takes RTP with another socket from now on, as behind a NAT that forgot us."""
        loop = asyncio.get_running_loop()
        while True:  # the port after it is for RTCP, which must not come to somebody else
            rtp, _ = await loop.create_datagram_endpoint(
                lambda: _Inbox(self._rtp_came), local_addr=(self.host, 0)
            )
            self.rtp_port: int = rtp.get_extra_info("sockname")[1]
            try:
                rtcp, _ = await loop.create_datagram_endpoint(
                    lambda: _Inbox(self._rtcp_came), local_addr=(self.host, self.rtp_port + 1)
                )
            except OSError:
                rtp.close()
                continue
            self._rtp, self._rtcp = rtp, rtcp
            self._sockets += [rtp, rtcp]
            return

    def close(self) -> None:
        self.hush()
        for each in self._sockets:
            each.close()

    # ── SIP ──────────────────────────────────────────────────────────────────────────────────────────

    def _sip_came(self, data: bytes, source: tuple[str, int]) -> None:
        if not data.strip():
            return
        self.line = source[:2]
        message = Message.parse(data)
        if not message.status and message.method == "BYE" and not self.deaf:
            self.answer(message)
        self._messages.put_nowait(message)

    def offer(self, direction: str = "sendrecv", *, keys: bool = True) -> str:
        """Our SDP; without `keys` we cannot hear any."""
        kind = self.coder.payload_type
        event = f"a=rtpmap:{EVENT} telephone-event/8000\r\na=fmtp:{EVENT} 0-16\r\n" if keys else ""
        at = f"IN IP{6 if ':' in self.host else 4} {self.host}"
        return (
            f"v=0\r\no=- 1 {self._cseq + 1} {at}\r\ns=-\r\nc={at}\r\nt=0 0\r\n"
            f"m=audio {self.rtp_port} RTP/AVP {kind}{f' {EVENT}' if keys else ''}\r\n"
            f"a=rtpmap:{kind} {self.coder.mapped}\r\n{event}a={direction}\r\n"
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
        here, line = _bracketed(self.host), _bracketed(self.line[0])
        message = (
            f"{method} {self.target or f'sip:{self.dials}@{line}:{self.line[1]}'} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {here}:{self.sip_port};branch={self._branch}\r\nMax-Forwards: 70\r\n"
            f"From: <sip:raw@{here}>;tag={self.tag}\r\nTo: <sip:{self.dials}@{here}>{to_tag}\r\n"
            f"Call-ID: {self.sip_call_id}\r\nCSeq: {self._cseq} {method}\r\n"
            f"Contact: <sip:raw@{here}:{self.sip_port}>\r\n{headers}{typed}"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )
        self._sip.sendto(message.encode(), self.line)

    def signed(self) -> str:
        """The headers by which a line knows that the edge sent the INVITE."""
        auth = signature(TOKEN, self.call_id, self.sip_call_id, self.rule)
        return f"X-VG-Call: {self.call_id}\r\nX-VG-SRTP: {self.rule}\r\nX-VG-Auth: {auth}\r\n"

    async def _next(self, wanted: Callable[[Message], bool], timeout_s: float) -> Message:
        """The next message of that kind; others wait their turn."""
        async with asyncio.timeout(timeout_s):
            for message in self._unread:
                if wanted(message):
                    self._unread.remove(message)
                    return message
            while not wanted(message := await self._messages.get()):
                self._unread.append(message)
            return message

    async def response(self, method: str = "INVITE", status: int = 0, timeout_s: float = 5.0) -> Message:
        """The next response to that method, or the next with that status."""
        return await self._next(
            lambda m: m.status > 0 and m.method == method and status in (0, m.status), timeout_s
        )

    async def request(self, method: str, timeout_s: float = 5.0) -> Message:
        """The line's next request of that method; a BYE is answered already, unless it is deaf."""
        return await self._next(lambda m: m.status == 0 and m.method == method, timeout_s)

    async def final(self, method: str = "INVITE", timeout_s: float = 5.0) -> Message:
        """The final response to it; so long is waited for each response."""
        while (message := await self.response(method, timeout_s=timeout_s)).status < 200:
            pass
        if method == "INVITE":
            tag = re.search(r"tag=([^;>\s]+)", message.headers["to"])
            assert tag is not None
            self.to_tag = tag[1]
            if port := re.search(r"m=audio (\d+)", message.body):
                self.media = (self.host, int(port[1]))
        return message

    def acknowledge(self, body: str = "") -> None:
        """The ACK for the last INVITE's final response."""
        branch = self._branch
        self.send("ACK", body, same=True)
        self._branch = branch

    def invite(self, headers: str | None = None, *, offers: bool = True) -> None:
        """`offers`: with our SDP; else the line is to make the offer."""
        body = self.offer() if offers else ""
        self.send("INVITE", body, self.signed() if headers is None else headers)

    async def invited(self, headers: str | None = None) -> Message:
        """The final response to an INVITE, which is acknowledged."""
        self.invite(headers)
        message = await self.final()
        self.acknowledge()
        return message

    async def turn(self, direction: str) -> Message:
        """The final response to a re-INVITE with that direction, acknowledged: a hold, or its end."""
        self.send("INVITE", self.offer(direction))
        message = await self.final()
        self.acknowledge()
        return message

    def answer(
        self,
        request: Message,
        status: str = "200 OK",
        body: str = "",
        headers: str = "",
        contact: str = "",
    ) -> None:
        contact = contact or f"<sip:raw@{_bracketed(self.host)}:{self.sip_port}>"
        names = ("Via", "From", "To", "Call-ID", "CSeq")
        lines = [f"{name}: {request.headers[name.lower()]}" for name in names]
        if "tag=" not in lines[2]:
            lines[2] += f";tag={self.tag}"
        typed = "Content-Type: application/sdp\r\n" if body else ""
        text = (
            "\r\n".join([f"SIP/2.0 {status}", *lines])
            + f"\r\nContact: {contact}\r\n{headers}{typed}"
            + f"Content-Length: {len(body)}\r\n\r\n{body}"
        )
        self._sip.sendto(text.encode(), self.line)

    async def hang_up(self) -> None:
        self.send("BYE")
        assert (await self.final("BYE")).status == 200

    # ── RTP ──────────────────────────────────────────────────────────────────────────────────────────

    def _rtcp_came(self, data: bytes, _: tuple[str, int]) -> None:
        self.reports.append(data)
        self._came.set()

    def _rtp_came(self, data: bytes, _: tuple[str, int]) -> None:
        kind, timestamp = data[1] & 0x7F, int.from_bytes(data[4:8], "big")
        if kind == EVENT:
            self.pressed[timestamp, DIGITS[data[12]]] += 1
        elif kind == self.coder.payload_type:
            self.packets += 1
            self.pcm += self.coder.decode(data[12:])
        self._came.set()

    async def _until(self, come: Callable[[], bool], timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s):
            while not come():
                self._came.clear()
                await self._came.wait()

    async def hears(self, seconds: float, timeout_s: float = 5.0) -> bytes:
        """The sound of the next `seconds` that come."""
        start, count = len(self.pcm), round(seconds * self.coder.rate_hz) * 2
        await self._until(lambda: len(self.pcm) >= start + count, timeout_s)
        return bytes(self.pcm[start : start + count])

    def frames(self) -> list[bytes]:
        """What came, 20 ms each."""
        size = self.coder.rate_hz // 50 * 2
        return [bytes(self.pcm[at : at + size]) for at in range(0, len(self.pcm), size)]

    async def hears_loud(self, timeout_s: float = 5.0) -> None:
        """Waits for a packet that is no silence."""
        start = len(self.pcm)
        await self._until(lambda: any(b not in (0, 8) for b in self.pcm[start::2]), timeout_s)

    async def hears_keys(self, count: int, timeout_s: float = 5.0) -> str:
        """The first keys that come, in their order."""
        await self._until(lambda: len(self.pressed) >= count, timeout_s)
        return "".join(digit for _, digit in sorted(self.pressed))

    def send_rtp(self, payload: bytes, *, payload_type: int | None = None, marker: bool = False) -> None:
        assert self.media is not None
        kind = self.coder.payload_type if payload_type is None else payload_type
        second = kind | (0x80 if marker else 0)
        head = struct.pack(">BBHII", 0x80, second, self.sequence & 0xFFFF, self.timestamp, self.ssrc)
        self.send_packet(head + payload)
        self.sequence += 1

    def send_packet(self, packet: bytes) -> None:
        """A packet of RTP as it is."""
        self._rtp.sendto(packet, self.media)

    def send_rtcp(self, packet: bytes) -> None:
        assert self.media is not None
        host, port = self.media
        self._rtcp.sendto(packet, (host, port + 1))

    def press(self, digit: str, duration_ms: int = 160, *, payload_type: int = EVENT) -> None:
        """A key, as RFC 4733 sends it: its beginning, and its end three times."""
        code = DIGITS.index(digit)
        for n, duration in enumerate((160, *[duration_ms * 8] * 3)):
            event = struct.pack(">BBH", code, (0x80 if n else 0) | 10, duration)
            self.send_rtp(event, payload_type=payload_type, marker=not n)
        self.timestamp += duration_ms * 8

    def talk(self, sound: Sound) -> None:
        """Says `sound`, 20 ms at the codec's rate a time, until it is hushed."""

        async def run() -> None:
            start, sent = time.monotonic(), 0
            while True:
                self.send_rtp(self.coder.encode(sound(sent)))
                self.timestamp += self.coder.step
                sent += 1
                await asyncio.sleep(max(0.0, start + sent * 0.02 - time.monotonic()))

        self.hush()
        self._talking = asyncio.create_task(run())

    def hush(self) -> None:
        if self._talking is not None:
            self._talking.cancel()
            self._talking = None
