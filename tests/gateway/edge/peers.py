"""What an edge meets, on real sockets: callers over UDP and TCP, lines, and a router that does as told."""

from __future__ import annotations

import asyncio
import re
import secrets
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from gateway.edge.router import Accept, IncomingCall, Refuse, RefusedInvite, WebAnswer
from gateway.ipc.call_facts import CallFacts

OFFER = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio 40000 RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\n"
)
ANSWER = (
    "v=0\r\no=- 7 7 IN IP4 127.0.0.1\r\ns=pj\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio 41000 RTP/AVP 0\r\na=rtcp:41001 IN IP4 127.0.0.1\r\n"
)
WEB_OFFER = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n"
    "m=audio 9 UDP/TLS/RTP/SAVPF 111 126\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=rtpmap:111 opus/48000/2\r\n"
    "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=setup:actpass\r\n"
    f"a=fingerprint:sha-256 {':'.join(['AB'] * 32)}\r\n"
)
WEB_ANSWER = WEB_OFFER.replace("actpass", "active")
DTMF, KEY_5 = "Content-Type: application/dtmf-relay", "Signal=5\r\nDuration=160\r\n"
BOOT, KEY = "boot-token", b"k" * 32


@dataclass
class Said:
    """A SIP message as it came."""

    start: str
    headers: list[tuple[str, str]]
    body: str
    at: float = field(
        default_factory=lambda: time.monotonic()
    )  # looked up when it comes: the house may set it

    @classmethod
    def parse(cls, data: bytes) -> Self:
        head, _, body = data.decode(errors="replace").partition("\r\n\r\n")
        start, *lines = head.split("\r\n")
        pairs = [line.split(":", 1) for line in lines]
        return cls(start, [(name.strip().lower(), value.strip()) for name, value in pairs], body)

    def all(self, name: str) -> list[str]:
        return [value for known, value in self.headers if known == name.lower()]

    def __getitem__(self, name: str) -> str:
        return self.all(name)[0]

    def __contains__(self, name: str) -> bool:
        return bool(self.all(name))

    @property
    def status(self) -> int:
        return int(self.start.split()[1]) if self.start.startswith("SIP/2.0") else 0

    @property
    def method(self) -> str:
        return self["cseq"].split()[1]

    @property
    def uri(self) -> str:
        return self.start.split()[1]

    def tag(self, name: str) -> str:
        found = re.search(r";tag=([^;>\s]+)", self[name])
        return found[1] if found else ""


class Inbox(asyncio.DatagramProtocol):
    """Messages received, kept until somebody asks for them."""

    def __init__(self) -> None:
        self.kept: list[Said] = []
        self._came = asyncio.Event()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if data.strip():
            self.kept.append(Said.parse(data))
            self._came.set()

    async def next(self, status: int = 0, method: str = "", within_s: float = 3.0) -> Said:
        """The first kept or coming message of that kind: a response if `status`, else a request."""

        def wanted(said: Said) -> bool:
            return said.status == status and (not method or said.method == method)

        async with asyncio.timeout(within_s):
            while True:
                for said in self.kept:
                    if wanted(said):
                        self.kept.remove(said)
                        return said
                self._came.clear()
                await self._came.wait()

    async def nothing(self, within_s: float = 0.15) -> None:
        """Nothing (more) comes."""
        await asyncio.sleep(within_s)
        assert not self.kept, [said.start for said in self.kept]


class Caller(Inbox):
    """One telephone with one call. `open` it first."""

    def __init__(self, edge_port: int, host: str = "127.0.0.1") -> None:
        super().__init__()
        self.edge = ("127.0.0.1", edge_port)
        self.host = host
        self.call_id, self.own_tag = secrets.token_hex(8), secrets.token_hex(4)
        self.to = "<sip:demo@127.0.0.1>"
        self.target = f"sip:demo@127.0.0.1:{edge_port}"
        self.routes: list[str] = []
        self.cseq = 0
        self.branch = ""

    async def open(self) -> Self:
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(self.host, 0))
        self.port = self.transport.get_extra_info("sockname")[1]
        return self

    def close(self) -> None:
        self.transport.close()

    def write(self, text: str | bytes) -> None:
        self.transport.sendto(text.encode() if isinstance(text, str) else text, self.edge)

    via_transport = "UDP"

    def text(
        self,
        method: str,
        body: str = "",
        *extra: str,
        branch: str = "",
        cseq: int = 0,
        uri: str = "",
        via: str = "",
        contact: str = "",
        to: str = "",
        routes: list[str] | None = None,
    ) -> str:
        if method not in ("ACK", "CANCEL") and not cseq:
            self.cseq += 1
        if method != "CANCEL":
            self.branch = branch or "z9hG4bK" + secrets.token_hex(6)
        own = f"{self.host}:{self.port}"
        lines = [
            f"{method} {uri or self.target} SIP/2.0",
            via or f"Via: SIP/2.0/{self.via_transport} {own};branch={branch or self.branch};rport",
            "Max-Forwards: 70",
            *(f"Route: {route}" for route in (self.routes if routes is None else routes)),
            f"From: <sip:alice@{self.host}>;tag={self.own_tag}",
            f"To: {to or self.to}",
            f"Call-ID: {self.call_id}",
            f"CSeq: {cseq or self.cseq} {method}",
            f"Contact: {contact or f'<sip:alice@{own}>'}",
            *extra,
        ]
        if body and not any(line.lower().startswith("content-type") for line in extra):
            lines.append("Content-Type: application/sdp")
        return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", body])

    def send(self, method: str, body: str = "", *extra: str, **options: Any) -> str:
        text = self.text(method, body, *extra, **options)
        self.write(text)
        return text

    def learn(self, answer: Said) -> None:
        """What an answer that makes a dialog tells (RFC 3261 §12.1.2)."""
        self.to = answer["to"]
        self.routes = list(reversed(answer.all("record-route")))
        self.target = re.sub(r"^.*<|>.*$", "", answer["contact"])

    def reply(self, request: Said, status: int, *extra: str, body: str = "") -> None:
        self.write(reply(request, status, *extra, body=body))


class TcpCaller(Caller):
    """The same over a connection."""

    via_transport = "TCP"
    pongs = 0

    async def open(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection(*self.edge)
        self.port = self.writer.get_extra_info("sockname")[1]
        self._reading = asyncio.create_task(self._read())
        return self

    async def _read(self) -> None:
        while True:
            head = await self.reader.readuntil(b"\r\n\r\n")
            self.pongs += head.startswith(b"\r\n")
            head = head.lstrip(b"\r\n")
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            self.datagram_received(
                head + await self.reader.readexactly(int(length[1]) if length else 0), None
            )

    def write(self, text: str | bytes) -> None:
        self.writer.write(text.encode() if isinstance(text, str) else text)

    async def gone(self, within_s: float = 3.0) -> None:
        """Waits until the edge has closed the connection."""
        async with asyncio.timeout(within_s):
            await asyncio.wait([self._reading])

    def close(self) -> None:
        self._reading.cancel()
        self.writer.close()


class TlsCaller(TcpCaller):
    """The same over TLS; `edge_port` is the edge's TLS port."""

    via_transport = "TLS"

    def __init__(self, edge_port: int, trust: ssl.SSLContext, name: str = "gate.example") -> None:
        super().__init__(edge_port)
        self.trust, self.name = trust, name

    async def open(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection(
            *self.edge, ssl=self.trust, server_hostname=self.name
        )
        self.port = self.writer.get_extra_info("sockname")[1]
        self._reading = asyncio.create_task(self._read())
        return self


class Line(Inbox):
    """A line's SIP side."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.own_tag = secrets.token_hex(4)
        self.cseq = 0
        self.invite: Said | None = None

    async def open(self) -> Self:
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        self.port = self.transport.get_extra_info("sockname")[1]
        return self

    def close(self) -> None:
        self.transport.close()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.edge = addr
        super().datagram_received(data, addr)

    async def invited(self) -> Said:
        """The next INVITE, answered 100 as a line does."""
        self.invite = await self.next(method="INVITE")
        self.reply(self.invite, 100)
        return self.invite

    def reply(self, request: Said, status: int, *extra: str, body: str = "") -> None:
        contact = f"Contact: <sip:127.0.0.1:{self.port};ob>"
        routes = [f"Record-Route: {route}" for route in request.all("record-route")]
        text = reply(request, status, contact, *routes, *extra, body=body, tag=self.own_tag)
        self.transport.sendto(text.encode(), self.edge)

    def send(self, method: str, body: str = "", *extra: str, cseq: int = 0, branch: str = "") -> None:
        """A request within the dialog of `invite`."""
        assert self.invite is not None
        if not cseq:
            self.cseq += 1
        self.branch = branch or "z9hG4bK" + secrets.token_hex(6)
        routes = [f"Route: {route}" for route in self.invite.all("record-route")]
        target = re.sub(r"^.*<|>.*$", "", self.invite["contact"])
        lines = [
            f"{method} {target} SIP/2.0",
            f"Via: SIP/2.0/UDP 127.0.0.1:{self.port};rport;branch={self.branch}",
            "Max-Forwards: 70",
            *routes,
            f"From: {self.invite['to']};tag={self.own_tag}",
            f"To: {self.invite['from']}",
            f"Call-ID: {self.invite['call-id']}",
            f"CSeq: {cseq or self.cseq} {method}",
            f"Contact: <sip:127.0.0.1:{self.port};ob>",
            *extra,
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        self.transport.sendto("\r\n".join([*lines, "", body]).encode(), self.edge)


def reply(request: Said, status: int, *extra: str, body: str = "", tag: str = "x") -> str:
    to = request["to"] if request.tag("to") or status == 100 else f"{request['to']};tag={tag}"
    lines = [
        f"SIP/2.0 {status} Whatever",
        *(f"Via: {via}" for via in request.all("via")),
        f"From: {request['from']}",
        f"To: {to}",
        f"Call-ID: {request['call-id']}",
        f"CSeq: {request['cseq']}",
        *extra,
        *(["Content-Type: application/sdp"] if body else []),
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", body])


class Desk:
    """The router. Says yes, unless told otherwise; `hold` keeps it thinking."""

    def __init__(self) -> None:
        self.calls: list[IncomingCall] = []
        self.away: set[str] = set()
        """halls that take no calls"""
        self.busy = False
        self.on_web: set[str] = set()
        """calls on browsers' lines"""
        self.recording = False
        """a route answers calls to emergency numbers"""
        """they take none because they have no time"""
        self.verdict: Callable[[IncomingCall], Accept | Refuse] = lambda call: Accept(secrets.token_hex(8))
        self.targets: dict[str, str] = {}
        self.endings: list[tuple[str, str]] = []
        self.refusals: list[RefusedInvite] = []
        self.web_calls: list[CallFacts] = []
        self.web_offers: list[tuple[str, str]] = []
        self.web_verdict: WebAnswer | Refuse = WebAnswer("w1", WEB_ANSWER)
        self.keys: list[tuple[str, str]] = []
        self.thinking = asyncio.Event()
        self.thinking.set()
        self.asked = asyncio.Event()
        self.told = asyncio.Event()

    def hall_for(self, held: Mapping[str, int]) -> str | None:
        able = [hall for hall in held if hall not in self.away]
        return min(able, key=lambda hall: (held[hall], hall), default=None)

    def answers_emergencies(self) -> bool:
        return self.recording

    def no_hall(self) -> Refuse:
        if self.busy:
            return Refuse(503, "busy", 10)
        return Refuse(503, "no hall takes calls now", 2)

    def hold(self) -> None:
        self.thinking.clear()

    async def offered(self, call: IncomingCall) -> Accept | Refuse:
        self.calls.append(call)
        self.asked.set()
        await self.thinking.wait()
        return self.verdict(call)

    async def web_offered(self, facts: CallFacts, offer: str) -> WebAnswer | Refuse:
        self.web_calls.append(facts)
        self.asked.set()
        await self.thinking.wait()
        return self.web_verdict

    async def web_renewed(self, call_id: str, offer: str) -> WebAnswer | Refuse:
        self.web_offers.append((call_id, offer))
        await self.thinking.wait()
        return self.web_verdict

    async def web_pressed(self, call_id: str, digit: str) -> None:
        self.keys.append((call_id, digit))

    def on_web_line(self, call_id: str) -> bool:
        return call_id in self.on_web

    def target_of(self, call_id: str, target: str) -> str | Refuse:
        where = self.targets.get(target)
        return Refuse(403, "no such target") if where is None else where

    def refused(self, call: RefusedInvite) -> str | None:
        self.refusals.append(call)
        return call.call_id or f"refused{len(self.refusals)}"

    async def ended(self, call_id: str, how: str) -> None:
        self.endings.append((call_id, how))
        self.told.set()

    async def ending(self, within_s: float = 3.0) -> str:
        """How the next call ended."""
        async with asyncio.timeout(within_s):
            while not self.endings:
                self.told.clear()
                await self.told.wait()
        return self.endings.pop(0)[1]
