"""Tries a trunk step by step, beside a gateway or without one: the first step that fails is where calls die.

It has a port of its own, and its REGISTER has no Contact: it only asks (RFC 3261 §10.2.3), so that it takes
no call away from a gateway that is registered. An INVITE is cancelled as soon as it rings.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from gateway.config.certificate import Trust, asking
from gateway.config.own_address import seen_from
from gateway.edge.dialogs.identity import Identity
from gateway.edge.dialogs.transaction import Transactions, ack_of, of_transaction
from gateway.edge.flows.peer_ports import PeerPorts
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.header import CSeq
from gateway.edge.grammar.message import Unreadable, read
from gateway.edge.grammar.session_part import SDP
from gateway.edge.grammar.sip_message import Request, Response
from gateway.edge.grammar.uri import URI
from gateway.edge.trunks.digest_answer import Credentials
from gateway.edge.trunks.trunk import Trunk
from gateway.edge.trunks.trunk_requests import TrunkRequests
from gateway.edge.trunks.trunk_tls import TrunkTls
from gateway.edge.trunks.trunk_ways import TrunkWay, TrunkWays
from gateway.errors import NoFlow

RINGS_WITHIN_S: Final = 20.0
_SECRET: Final = re.compile(r'\b(response|cnonce)="[^"]*"')
_KEY: Final = re.compile(r"inline:\S+")
_SHOWN: Final = (
    "From", "To", "Contact", "CSeq", "Expires", "Min-Expires", "Reason", "Warning", "Retry-After",
    "WWW-Authenticate", "Proxy-Authenticate", "Authorization", "Proxy-Authorization",
)  # fmt: skip


class TrialStep(NamedTuple):
    """What was tried, whether it went well, and what is to be said of it."""

    what: str
    well: bool
    text: str


class Ladder:
    """The messages of a trial in their order, without what answers a challenge and without keys."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._began = time.monotonic()

    def note(self, arrow: str, message: Request | Response) -> None:
        """`arrow` says which way it went."""
        first = bytes(message).partition(b"\r\n")[0].decode(errors="replace")
        self.lines.append(f"{time.monotonic() - self._began:7.3f} s {arrow} {blanked(first)}")
        for name in _SHOWN:
            for value in message.headers.getlist(name):
                self.lines.append(f"{'':12}{name}: {blanked(value)}")


def blanked(text: str) -> str:
    """Without what a password was part of, and without keys for sound."""
    return _KEY.sub("inline:…", _SECRET.sub(r'\1="…"', text))


class TrunkTrial:
    """One trunk's. `steps` runs it."""

    def __init__(self, trunk: Trunk, trust: Trust = asking) -> None:
        """`trust` says which servers' certificates hold. Raises `SettingsError`."""
        self.trunk = trunk
        self.ladder = Ladder()
        self._ways = TrunkWays(trunk)
        self._transactions = Transactions(lambda served, answer: None)
        self._tls = TrunkTls(trunk, trust)
        self._ports = PeerPorts(self._take, lambda flow: None, lambda: trust(None, None))
        ourselves = Identity(self._ports.udp, None, self._ports.port)
        self._ourselves = ourselves
        self._requests = TrunkRequests(self._transactions, ourselves, self._connect, self._asked)

    async def steps(self, number: str | None, host: str = "0.0.0.0") -> AsyncIterator[TrialStep]:  # noqa: S104
        """One after the other; none after the first that did not go well. `number` None: no INVITE."""
        await self._ports.open(host, 0)
        try:
            yield (step := await self._look_up())
            way = None
            for way in self._ways.all if step.well else ():
                yield (step := await self._options(way))
                if step.well:
                    break
            if way is None or not step.well:
                return
            if self.trunk.user:
                yield (step := await self._register(way))
            if number is None or not step.well:
                return
            if (why := self.trunk.why_not(number)) is not None:
                yield TrialStep("may be called", False, f"{number}: {why}")
                return
            yield await self._invite(way, number)
        finally:
            self._transactions.close()
            await self._ports.close()

    # ── steps ────────────────────────────────────────────────────────────────────────────────────────

    async def _look_up(self) -> TrialStep:
        await self._ways.look_up()
        if unknown := self._ways.unknown:
            why = "; ".join(f"{name}: {what}" for name, what in unknown.items())
            return TrialStep("addresses", bool(self._ways.all), why)
        return TrialStep("addresses", bool(self._ways.all), ", ".join(map(str, self._ways.all)) or "none")

    async def _options(self, way: TrunkWay) -> TrialStep:
        try:
            answer, _ = await self._requests.ask(self.trunk, way, "OPTIONS", {"Accept": SDP})
        except NoFlow as error:
            return TrialStep("connection", False, str(error))
        except PermissionError as error:
            return TrialStep("OPTIONS", True, f"{way} answers, and asks for a password here: {error}")
        if answer is None:
            return TrialStep("OPTIONS", False, f"{way} does not answer")
        return TrialStep("OPTIONS", True, f"{way} answered {answer.code} {answer.phrase}")

    async def _register(self, way: TrunkWay) -> TrialStep:
        try:
            answer, _ = await self._requests.ask(self.trunk, way, "REGISTER", {})
        except (NoFlow, PermissionError) as error:
            return TrialStep("REGISTER", False, str(error))
        if answer is None:
            return TrialStep("REGISTER", False, f"{way} does not answer")
        well = 200 <= answer.code < 300 or not self.trunk.register
        return TrialStep("REGISTER", well, f"answered {answer.code} {answer.phrase}")

    async def _invite(self, way: TrunkWay, number: str) -> TrialStep:
        flow = await self._connect(way)
        known, call_id, tag = Credentials(self.trunk), secrets.token_hex(12), secrets.token_hex(6)
        for cseq in range(1, 5):
            invite = self._invitation(flow, number, call_id, tag, cseq)
            known.put(invite)
            answer = await self._rings(invite, flow)
            if answer is None:
                return TrialStep("INVITE", False, f"{way} does not answer")
            if answer.code >= 300:
                flow.send(bytes(ack_of(invite, answer)))
            if answer.code in (401, 407):
                if (why := known.learn(answer)) is not None:
                    return TrialStep("INVITE", False, why)
                continue
            if answer.code < 200:
                cancel = of_transaction(invite, "CANCEL")
                cancel.headers.set("To", invite.headers["To"])
                self._asked("→", cancel)
                flow.send(bytes(cancel))
                await asyncio.sleep(1.0)  # its 487 belongs into the ladder
            elif answer.code < 300:
                self._leave(invite, answer, flow)
            return TrialStep("INVITE", answer.code < 300, f"answered {answer.code} {answer.phrase}")
        return TrialStep("INVITE", False, "the trunk asks for the password again and again")

    def _invitation(self, flow: Flow, number: str, call_id: str, tag: str, cseq: int) -> Request:
        trunk, address = self.trunk, seen_from(flow.host)
        family = 6 if ":" in address else 4
        body = (
            f"v=0\r\no=- 1 1 IN IP{family} {address}\r\ns=-\r\nc=IN IP{family} {address}\r\nt=0 0\r\n"
            "m=audio 49152 RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\n"
        ).encode()
        invite = Request("INVITE", URI.read(f"{trunk.scheme}:{number}@{trunk.realm_host}"), body)
        invite.via = [self._ourselves.via(flow, self._transactions.branch())]
        invite.max_forwards = 70
        invite.headers.set("From", f"<{trunk.scheme}:{trunk.shown_as('')}@{trunk.realm_host}>;tag={tag}")
        invite.headers.set("To", f"<{trunk.scheme}:{number}@{trunk.realm_host}>")
        invite.call_id = call_id
        invite.cseq = CSeq(cseq, "INVITE")
        invite.headers.set("Contact", self._requests.contact(trunk, flow))
        invite.headers.set("Content-Type", SDP)
        invite.headers.set("Content-Length", str(len(body)))
        return invite

    async def _rings(self, invite: Request, flow: Flow) -> Response | None:
        """The first answer that says something: a ringing, or a final one."""
        came: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()

        def answered(answer: Response | None) -> None:
            if answer is not None:
                self._asked("←", answer)
            if not came.done() and (answer is None or answer.code > 100):
                came.set_result(answer)

        self._asked("→", invite)
        self._transactions.send(invite, flow, answered, 4.0)
        try:
            return await asyncio.wait_for(came, RINGS_WITHIN_S)
        except TimeoutError:
            return None

    def _leave(self, invite: Request, answer: Response, flow: Flow) -> None:
        """Somebody picked up: ACK and BYE."""
        uri = answer.contact[0].uri if answer.contact else invite.uri
        for method, more in (("ACK", 0), ("BYE", 1)):
            request = Request(method, uri)
            request.via = [self._ourselves.via(flow, self._transactions.branch())]
            request.max_forwards = 70
            for name in ("From", "To", "Call-ID"):
                request.headers.set(name, answer.headers[name])
            request.cseq = CSeq(answer.cseq.sequence + more, method)
            if routes := answer.headers.getlist("Record-Route"):
                request.headers.setlist("Route", list(reversed(routes)))
            request.headers.set("Content-Length", "0")
            self._asked("→", request)
            flow.send(bytes(request))

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────

    async def _connect(self, way: TrunkWay) -> Flow:
        return await self._ports.connect(way.transport, way.host, way.port, way.name, self._tls.context())

    def _asked(self, arrow: str, message: Request | Response) -> None:
        self.ladder.note(arrow, message)

    def _take(self, data: bytes, flow: Flow) -> bool:
        try:
            message = read(data)
        except Unreadable:
            return False
        if isinstance(message, Response):
            self._transactions.take(message, flow)
        return True
