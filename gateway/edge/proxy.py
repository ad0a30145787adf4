"""The edge: a transaction-stateful SIP proxy between callers and this host's lines that watches dialogs too.

Callers reach us over UDP and TCP; lines are loopback UDP and speak only to us. A request toward a line
carries one Via (ours) and few headers; what was taken off is put back on its response. In-dialog requests
find their way by the signed word in our Record-Route and Contact (`token`), also after a restart.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

import structlog
from sipmessage import URI, CSeq, Message, Parameters, Request, Response, Via

from gateway.edge import sdp
from gateway.edge.dialog import Dialog
from gateway.edge.digest import Digest, HashOf, Verdict
from gateway.edge.limits import Limits, is_scanner
from gateway.edge.token import PARAM, RouteToken
from gateway.edge.transaction import Sent, Served
from gateway.edge.transport import Flow, TcpPort, UdpPort, local_address_toward

log = structlog.get_logger("edge")

MAX_MESSAGE: Final = 16_384
MAX_TO_LINE: Final = 3_500
"""pjsua2 cuts an INVITE over 4,000 bytes on UDP."""
ACK_WITHIN_S: Final = 8.0
UNACKED_SHARE: Final = 0.25
PHRASES: Final = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 408: "Request Timeout", 416: "Unsupported URI Scheme", 420: "Bad Extension",
    480: "Temporarily Unavailable", 481: "Call/Transaction Does Not Exist", 482: "Loop Detected",
    483: "Too Many Hops", 487: "Request Terminated", 488: "Not Acceptable Here", 500: "Server Internal Error",
    503: "Service Unavailable", 513: "Message Too Large",
}  # fmt: skip
ALLOW: Final = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, PRACK"
SUPPORTED: Final = frozenset({"100rel", "timer", "replaces-none"})
TO_LINE: Final = frozenset(
    {"from", "to", "call-id", "cseq", "contact", "content-type", "supported", "require", "allow",
     "session-expires", "min-se", "rack", "rseq", "accept", "reason", "event", "info-package"}
)  # fmt: skip
"""Headers that a line needs; whatever else a caller sends stays here."""


@dataclass(frozen=True, slots=True)
class EdgeConfig:
    """Addresses and rules. `route_key` signs what we put into dialogs, `boot_token` what lines get."""

    host: str
    port: int
    boot_token: str
    route_key: bytes
    public_address: str | None = None
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    invites_per_s: float = 20.0
    ha1: HashOf | None = None
    """None: callers need no password"""


@dataclass(frozen=True, slots=True)
class LineInfo:
    """A line that is up; `calls` are those it has already (the edge is newer than the line)."""

    name: str
    kind: str
    sip_port: int
    capacity: int
    calls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IncomingCall:
    """A new INVITE that passed the doors."""

    caller: str
    called: str
    display: str
    source: str
    transport: str
    user: str | None
    kind: str
    user_agent: str


@dataclass(frozen=True, slots=True)
class Accept:
    """Take the call under this id; `line` None: any free one of its kind."""

    call_id: str
    line: str | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    status: int
    reason: str
    retry_after_s: int | None = None


class Router(Protocol):
    """Who decides about calls."""

    async def offered(self, call: IncomingCall) -> Accept | Refuse: ...

    async def ended(self, call_id: str, how: str) -> None: ...


@dataclass(eq=False, slots=True)
class _Line:
    info: LineInfo
    calls: set[str] = field(default_factory=set)

    @property
    def free(self) -> int:
        return self.info.capacity - len(self.calls)


class Edge:
    """See the module. All methods belong to one event loop."""

    def __init__(self, config: EdgeConfig, router: Router, spawn: Callable[[Any], None]) -> None:
        self.config = config
        self.counts: Counter[str] = Counter()
        self.refused: Counter[int] = Counter()
        self._router = router
        self._spawn = spawn
        self._limits = Limits(config.allow, config.deny, config.invites_per_s)
        self._digest = Digest(config.ha1) if config.ha1 is not None else None
        self._branch_key = secrets.token_bytes(16)
        self._lines: dict[str, _Line] = {}
        self._served: dict[tuple[str, str, str], Served] = {}
        self._sent: dict[tuple[str, str], Sent] = {}
        self._dialogs: dict[str, Dialog] = {}
        self._draining = False
        self._udp: UdpPort | None = None
        self._tcp = TcpPort(self._from_caller)
        self._loopback: UdpPort | None = None

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Raises `OSError` when a port is taken."""
        self._loopback = await UdpPort.open("127.0.0.1", 0, self._from_line)
        self._udp = await UdpPort.open(self.config.host, self.config.port, self._from_caller)
        await self._tcp.open(self.config.host, self.config.port)

    async def stop(self) -> None:
        for served in list(self._served.values()):
            served.close()
        for sent in list(self._sent.values()):
            sent.close()
        for dialog in self._dialogs.values():
            dialog.patience.cancel()
        self._tcp.close()
        for port in [self._udp, self._loopback]:
            if port is not None:
                port.close()

    def drain(self) -> None:
        """No new calls; what runs goes on."""
        self._draining = True

    def line_up(self, info: LineInfo) -> None:
        self._lines[info.name] = _Line(info, set(info.calls))

    def line_down(self, name: str) -> None:
        """Its callers get a BYE, its unanswered INVITEs a 503."""
        self._lines.pop(name, None)
        for dialog in [d for d in self._dialogs.values() if d.token.line == name]:
            if dialog.answered:
                self._bye_caller(dialog)
            self._over(dialog, "failed: its line died")
        for sent in list(self._sent.values()):
            if (
                sent.request.method == "INVITE"
                and not sent.final
                and sent.request.headers.get("X-VG-Line") == name
            ):
                sent._timed_out()

    def slot_free(self, name: str, call_id: str) -> None:
        """A line says that a call of its is over."""
        if line := self._lines.get(name):
            line.calls.discard(call_id)

    def stats(self) -> dict[str, Any]:
        """Counts for the metrics."""
        return {
            "dialogs": len(self._dialogs),
            "transactions": len(self._served) + len(self._sent),
            "slots": sum(line.info.capacity for line in self._lines.values()),
            "slots_free": sum(max(0, line.free) for line in self._lines.values()),
            "unacknowledged": self._unacknowledged(),
            "refused": {str(status): count for status, count in self.refused.items()},
            "dropped": dict(self._limits.dropped),
            **self.counts,
        }

    # ── messages from callers ────────────────────────────────────────────────────────────────────────

    def _from_caller(self, data: bytes, flow: Flow) -> None:
        message = self._parse(data)
        if message is None:
            return
        try:
            if isinstance(message, Request):
                self._request_from_caller(message, flow)
            else:
                self._response(message, "caller")
        except (ValueError, KeyError, IndexError) as error:
            self._limits.dropped["malformed"] += 1
            log.debug("edge.malformed", source=flow.host, error=str(error))

    def _parse(self, data: bytes) -> Request | Response | None:
        if len(data) > MAX_MESSAGE or not data.strip(b"\r\n\0 "):
            self._limits.dropped["size"] += bool(data.strip(b"\r\n\0 "))
            return None
        try:
            message = Message.parse(data)
            assert message.via
            assert message.call_id
            assert message.cseq
            assert message.from_address
            assert message.to_address
        except Exception:  # whatever a parser does with garbage, it is garbage
            self._limits.dropped["malformed"] += 1
            return None
        return message

    def _request_from_caller(self, request: Request, flow: Flow) -> None:
        if not self._limits.admits(flow.host):
            self._limits.dropped["acl"] += 1
            return
        if is_scanner(request.user_agent):
            self._limits.dropped["scanner"] += 1
            return
        key = (_branch_of(request), f"{flow.host}:{flow.port}", request.cseq.method)
        if request.method == "ACK":
            self._ack(request, flow, key)
            return
        served = self._served.get(key)
        if served is not None and request.method != "CANCEL":
            served.repeated()
            return
        if request.method == "CANCEL":
            self._cancel(request, flow, key)
            return
        if not request.to_address.parameters.get("tag") and not self._limits.in_time(flow.host):
            self._limits.dropped["rate"] += 1
            return
        served = Served(request, flow, partial(_drop, self._served, key))
        self._served[key] = served
        refusal = self._unfit(request)
        if refusal is not None:
            self._refuse(served, refusal)
        elif request.to_address.parameters.get("tag"):
            self._in_dialog(served)
        elif request.method == "INVITE":
            self._answer(served, 100, "Trying")
            self._spawn(self._invite(served))
        elif request.method == "OPTIONS":
            self._options(served)
        else:
            self._refuse(
                served, 405 if request.method in ("REGISTER", "SUBSCRIBE", "PUBLISH", "MESSAGE") else 481
            )

    def _unfit(self, request: Request) -> int | None:
        """Why a request is not taken at all."""
        if request.uri.scheme not in ("sip", "sips", "tel"):
            return 416
        if request.max_forwards is not None and request.max_forwards <= 0:
            return 483
        if request.method == "REFER" or request.headers.get("Replaces") is not None:
            self.counts["transfers_refused"] += 1
            return 403
        if set(request.require) - SUPPORTED:
            return 420
        return None

    # ── answers of our own ───────────────────────────────────────────────────────────────────────────

    def _answer(self, served: Served, status: int, phrase: str | None = None, **headers: str) -> None:
        request = served.request
        response = Response(status, phrase or PHRASES.get(status, "Refused"))
        response.headers.setlist("Via", list(request.headers.getlist("Via")))
        _received(response, served.flow)
        for name in ("From", "To", "Call-ID", "CSeq"):
            response.headers.set(name, request.headers[name])
        if status > 100 and not request.to_address.parameters.get("tag"):
            tag = hashlib.sha256((request.call_id + _branch_of(request)).encode()).hexdigest()[:12]
            response.headers.set("To", f"{request.headers['To']};tag={tag}")
        for name, value in headers.items():
            response.headers.set(name.replace("_", "-"), value)
        if status == 405:
            response.headers.set("Allow", ALLOW)
        if status == 420:
            response.headers.set("Unsupported", ", ".join(sorted(set(request.require) - SUPPORTED)))
        response.headers.set("Content-Length", "0")
        served.answer(response)

    def _refuse(
        self, served: Served, status: int, reason: str = "", retry_after_s: int | None = None
    ) -> None:
        self.refused[status] += 1
        extra = {"Retry_After": str(retry_after_s)} if retry_after_s is not None else {}
        if reason:
            extra["Reason"] = f'SIP;cause={status};text="{reason[:100]}"'.replace("\r", " ").replace(
                "\n", " "
            )
        self._answer(served, status, None, **extra)

    def _options(self, served: Served) -> None:
        free = sum(line.free for line in self._lines.values())
        if self._draining or free <= 0:
            self._refuse(served, 503, "draining" if self._draining else "all lines are busy", 10)
        else:
            self._answer(served, 200, None, Allow=ALLOW, Accept="application/sdp")

    # ── a new call ───────────────────────────────────────────────────────────────────────────────────

    async def _invite(self, served: Served) -> None:
        try:
            await self._place(served)
        except Exception:
            log.exception("edge.invite_failed", source=served.flow.host)
            self._refuse(served, 500)

    async def _place(self, served: Served) -> None:
        request, flow = served.request, served.flow
        user = self._authenticate(served)
        if user is None:
            return
        if self._draining:
            self._refuse(served, 503, "going down", 30)
            return
        kind = sdp.wanted_kind(request.body)
        if kind is None:
            self._refuse(served, 488, "PCMU, PCMA or G722, please")
            return
        if self._pick(kind, request.body) is None:
            self._refuse(served, 503, "all lines are busy", 10)
            return
        slots = sum(line.info.capacity for line in self._lines.values())
        if self._unacknowledged() >= max(1, UNACKED_SHARE * slots):
            self._refuse(served, 503, "too many calls that nobody acknowledges", 10)
            return
        if len(request.body) > MAX_TO_LINE - 1000:
            self._refuse(served, 513)
            return
        caller = request.from_address
        verdict = await self._router.offered(
            IncomingCall(
                caller=str(caller.uri),
                called=str(request.uri),
                display=caller.name or "",
                source=self._source(request, flow),
                transport=flow.transport,
                user=user or None,
                kind=kind,
                user_agent=request.user_agent or "",
            )
        )
        if isinstance(verdict, Refuse):
            self._refuse(served, verdict.status, verdict.reason, verdict.retry_after_s)
            return
        line = self._lines.get(verdict.line) if verdict.line else self._pick(kind, request.body)
        if line is None or served.final:
            if not served.final:
                self._refuse(served, 503, "all lines are busy", 10)
            await self._router.ended(verdict.call_id, "cancelled" if served.final else "failed: no line")
            return
        line.calls.add(verdict.call_id)
        token = RouteToken(
            verdict.call_id, line.info.name, line.info.sip_port, flow.transport, flow.host, flow.port
        )
        dialog = Dialog(
            token=token,
            sip_call_id=request.call_id,
            caller_from=request.headers["From"],
            caller_contact=str(request.contact[0].uri) if request.contact else str(caller.uri),
            caller_routes=[str(route) for route in request.record_route],
            caller_cseq=request.cseq.sequence,
            flow=flow,
        )
        self._dialogs[request.call_id + "|" + (caller.parameters.get("tag") or "")] = dialog
        if not self._forward_to_line(served, token, dialog):
            self._refuse(served, 513)
            self._over(dialog, "failed: the INVITE is too large")

    def _authenticate(self, served: Served) -> str | None:
        """The user's name, "" where none is needed, None when the caller was challenged."""
        request, flow = served.request, served.flow
        if self._digest is None or flow.host in self.config.trusted_proxies:
            return ""
        credentials = request.authorization
        verdict, user = Verdict.STALE, ""
        if credentials is not None:
            verdict, user = self._digest.check(credentials, request.method, flow.host)
            if verdict is Verdict.OK:
                return user
            self.counts["digest_wrong"] += verdict is Verdict.WRONG
        stale = credentials is not None and verdict is Verdict.STALE
        self.refused[401] += 1
        response = Response(401, PHRASES[401])
        response.headers.setlist("Via", list(request.headers.getlist("Via")))
        _received(response, flow)
        for name in ("From", "Call-ID", "CSeq"):
            response.headers.set(name, request.headers[name])
        response.headers.set("To", f"{request.headers['To']};tag={secrets.token_hex(6)}")
        response.headers.setlist("WWW-Authenticate", self._digest.challenges(flow.host, stale=stale))
        response.headers.set("Content-Length", "0")
        served.answer(response)
        return None

    def _source(self, request: Request, flow: Flow) -> str:
        """The caller's address; behind a trusted proxy the one that it saw (`received` of the next Via)."""
        if flow.host not in self.config.trusted_proxies or len(request.via) < 2:
            return flow.host
        behind = request.via[1]
        seen = behind.parameters.get("received") or behind.host
        try:
            return str(ipaddress.ip_address(seen))
        except ValueError:
            return flow.host

    def _pick(self, kind: str, offer: bytes) -> _Line | None:
        """The fullest line of the kind that has a free slot; the other kind when it shares a codec too."""
        other = sdp.NARROW if kind == sdp.WIDE else sdp.WIDE
        for wanted in (kind, other):
            free = [line for line in self._lines.values() if line.info.kind == wanted and line.free > 0]
            if free and sdp.has_codec(offer, wanted):
                return min(free, key=lambda line: line.free)
        return None

    def _unacknowledged(self) -> int:
        return sum(1 for dialog in self._dialogs.values() if dialog.answered and not dialog.acknowledged)

    # ── forwarding ───────────────────────────────────────────────────────────────────────────────────

    def _branch(self) -> str:
        """An unguessable branch: a forged response matches nothing."""
        nonce = secrets.token_hex(8)
        mac = hmac.new(self._branch_key, nonce.encode(), hashlib.sha256).hexdigest()[:16]
        return f"z9hG4bK{nonce}{mac}"

    def _via(self, flow: Flow | None = None) -> Via:
        assert self._loopback is not None
        branch = self._branch()
        if flow is None:
            return _make_via("UDP", "127.0.0.1", self._loopback.port, branch)
        return _make_via(flow.transport.upper(), self._our_address(flow.host), self.config.port, branch)

    def _our_address(self, peer: str) -> str:
        """How a peer reaches us."""
        if self.config.public_address is not None and not ipaddress.ip_address(peer).is_private:
            return self.config.public_address
        if self.config.host not in ("0.0.0.0", "::"):  # noqa: S104 - compared only
            return self.config.host
        return local_address_toward(peer)

    def _forward_to_line(self, served: Served, token: RouteToken, dialog: Dialog | None) -> bool:
        """Sends a caller's request on, lean; False when it is too large for a line."""
        assert self._loopback is not None
        source = served.request
        uri = (dialog.line_contact if dialog else "") or f"sip:127.0.0.1:{token.line_port}"
        request = Request(source.method, URI.parse(uri), source.body)
        request.via = [self._via()]
        request.max_forwards = (source.max_forwards if source.max_forwards is not None else 70) - 1
        for name in source.headers.keys():  # noqa: SIM118 - not a dict
            if name.lower() in TO_LINE:
                request.headers.setlist(name, source.headers.getlist(name))
        request.headers.set("Content-Length", str(len(source.body)))
        if source.method == "INVITE":
            signed = token.sign(self.config.route_key)
            ours = f"<sip:127.0.0.1:{self._loopback.port};lr;{PARAM}={signed}>"
            request.headers.setlist("Record-Route", [ours])
            proof = f"{token.call_id}|{source.call_id}".encode()
            mac = hmac.new(self.config.boot_token.encode(), proof, hashlib.sha256).hexdigest()
            request.headers.set("X-VG-Call", token.call_id)
            request.headers.set("X-VG-Auth", mac)
        if len(bytes(request)) > MAX_TO_LINE:
            return False
        flow = self._loopback.flow("127.0.0.1", token.line_port)
        served.sent = self._send(request, flow, partial(self._line_answered, served, token, dialog))
        return True

    def _send(
        self,
        request: Request,
        flow: Flow,
        answered: Callable[[Response | None], None],
        within_s: float = 32.0,
    ) -> Sent:
        key = (_branch_of(request), request.method)
        sent = Sent(request, flow, answered, partial(_drop, self._sent, key), within_s=within_s)
        self._sent[key] = sent
        sent.start()
        return sent

    def _response(self, response: Response, whence: str) -> None:
        sent = self._sent.get((_branch_of(response), response.cseq.method))
        if sent is None:
            self._limits.dropped["stray_response"] += whence == "caller"
            return
        sent.take(response)

    def _line_answered(
        self, served: Served, token: RouteToken, dialog: Dialog | None, response: Response | None
    ) -> None:
        """A line's response (None: none came) goes back to the caller with what was taken off put on."""
        invite = served.request.method == "INVITE"
        if response is None:
            self._refuse(served, 503 if invite else 408, "the line does not answer")
            if invite and dialog is not None and not dialog.answered:
                self._over(dialog, "failed: the line does not answer")
            return
        if response.code == 100:
            return
        if invite and response.code >= 300 and served.sent is not None:
            self._ack_line(served.sent, response)
        back = Response(response.code, response.phrase, response.body)
        back.headers.setlist("Via", list(served.request.headers.getlist("Via")))
        _received(back, served.flow)
        for name in response.headers.keys():  # noqa: SIM118 - not a dict
            if name.lower() not in ("via", "record-route", "contact", "content-length"):
                back.headers.setlist(name, response.headers.getlist(name))
        self._ours_in(back, token, served.flow, served.request)
        if response.body:
            back.body = sdp.at_address(response.body, self._our_address(served.flow.host))
        back.headers.set("Content-Length", str(len(back.body)))
        if invite and dialog is not None:
            self._watch(dialog, response, served)
        served.answer(back)

    def _ours_in(self, message: Request | Response, token: RouteToken, flow: Flow, invite: Request) -> None:
        """Our Contact and Record-Route, as this peer reaches us."""
        word = token.sign(self.config.route_key)
        address = self._our_address(flow.host)
        host = f"[{address}]" if ":" in address else address
        transport = "" if flow.transport == "udp" else f";transport={flow.transport}"
        uri = f"sip:{host}:{self.config.port}{transport}"
        if invite.method in ("INVITE", "UPDATE"):
            message.headers.set("Contact", f"<{uri};{PARAM}={word}>")
        if invite.method == "INVITE" and not invite.to_address.parameters.get("tag"):
            mine = f"<{uri};lr;{PARAM}={word}>"
            message.headers.setlist("Record-Route", [mine, *(str(r) for r in invite.record_route)])

    def _watch(self, dialog: Dialog, response: Response, served: Served) -> None:
        if 200 <= response.code < 300:
            first = not dialog.answered
            dialog.note_answer(response)
            if first:
                dialog.patience.start(ACK_WITHIN_S, partial(self._never_acknowledged, dialog))
        elif response.code >= 300 and not dialog.answered:
            self._over(dialog, f"failed: the line answered {response.code}")

    def _ack_line(self, sent: Sent, response: Response) -> None:
        """The ACK of a non-2xx is this hop's (RFC 3261 §17.1.1.3)."""
        ack = Request("ACK", sent.request.uri)
        ack.headers.set("Via", sent.request.headers["Via"])
        for name in ("From", "Call-ID"):
            ack.headers.set(name, sent.request.headers[name])
        ack.headers.set("To", response.headers["To"])
        ack.cseq = CSeq(sent.request.cseq.sequence, "ACK")
        ack.max_forwards = 70
        ack.headers.set("Content-Length", "0")
        sent.flow.send(bytes(ack))

    # ── within a dialog ──────────────────────────────────────────────────────────────────────────────

    def _token_of(self, request: Request) -> RouteToken | None:
        """Our signed word in the topmost Route, else in the Request-URI."""
        routes = request.route
        for uri in ([routes[0].uri] if routes else []) + [request.uri]:
            token = RouteToken.read(uri.parameters.get(PARAM), self.config.route_key)
            if token is not None:
                return token
        return None

    def _in_dialog(self, served: Served) -> None:
        request = served.request
        token = self._token_of(request)
        dialog = self._find(request)
        if token is None or (dialog is not None and dialog.token.call_id != token.call_id):
            self.counts["forged_in_dialog"] += 1
            self._refuse(served, 481)
            return
        if dialog is not None:
            dialog.caller_cseq = max(dialog.caller_cseq, request.cseq.sequence)
            if request.contact and request.method in ("INVITE", "UPDATE"):
                dialog.caller_contact = str(request.contact[0].uri)
        if not self._forward_to_line(served, token, dialog):
            self._refuse(served, 513)
            return
        if request.method == "BYE":
            if dialog is not None:
                self._over(dialog, "caller hung up")
            elif line := self._lines.get(token.line):
                line.calls.discard(token.call_id)

    def _find(self, request: Request) -> Dialog | None:
        tag = request.from_address.parameters.get("tag") or ""
        return self._dialogs.get(f"{request.call_id}|{tag}")

    def _ack(self, request: Request, flow: Flow, key: tuple[str, str, str]) -> None:
        served = self._served.get((key[0], key[1], "INVITE"))
        if served is not None and served.final >= 300:
            served.acknowledged()
            return
        token, dialog = self._token_of(request), self._find(request)
        if token is None or self._loopback is None:
            self.counts["forged_in_dialog"] += 1
            return
        if dialog is not None:
            dialog.acknowledged = True
            dialog.patience.cancel()
        contact = (dialog.line_contact if dialog else "") or f"sip:127.0.0.1:{token.line_port}"
        ack = Request("ACK", URI.parse(contact), request.body)
        ack.via = [self._via()]
        ack.max_forwards = 70
        for name in ("From", "To", "Call-ID", "CSeq", "Content-Type"):
            if request.headers.get(name) is not None:
                ack.headers.set(name, request.headers[name])
        ack.headers.set("Content-Length", str(len(request.body)))
        self._loopback.flow("127.0.0.1", token.line_port).send(bytes(ack))

    def _cancel(self, request: Request, flow: Flow, key: tuple[str, str, str]) -> None:
        served = self._served.get((key[0], key[1], "INVITE"))
        mine = Served(request, flow, partial(_drop, self._served, key))
        self._served[key] = mine
        if served is None:
            self._refuse(mine, 481)
            return
        self._answer(mine, 200)
        if served.final:
            return
        if served.sent is None:  # still with the router
            self._refuse(served, 487)
            return
        invite = served.sent.request
        cancel = Request("CANCEL", invite.uri)
        cancel.headers.set("Via", invite.headers["Via"])
        for name in ("From", "To", "Call-ID"):
            cancel.headers.set(name, invite.headers[name])
        cancel.cseq = CSeq(invite.cseq.sequence, "CANCEL")
        cancel.max_forwards = 70
        cancel.headers.set("Content-Length", "0")
        self._send(cancel, served.sent.flow, lambda _: None, 5.0)

    # ── messages from lines ──────────────────────────────────────────────────────────────────────────

    def _from_line(self, data: bytes, flow: Flow) -> None:
        message = self._parse(data)
        if message is None:
            return
        if flow.host != "127.0.0.1" or flow.port not in {line.info.sip_port for line in self._lines.values()}:
            self._limits.dropped["not_a_line"] += 1
            return
        try:
            if isinstance(message, Response):
                self._response(message, "line")
            else:
                self._request_from_line(message, flow)
        except (ValueError, KeyError, IndexError) as error:
            log.warning("edge.line_malformed", error=str(error))

    def _request_from_line(self, request: Request, flow: Flow) -> None:
        """A line's BYE, re-INVITE or REFER goes to where the signed word says its caller is."""
        key = (_branch_of(request), f"{flow.host}:{flow.port}", request.cseq.method)
        if request.method == "ACK":
            self._pass_to_caller(request, None)
            return
        served = self._served.get(key)
        if served is not None:
            served.repeated()
            return
        served = Served(request, flow, partial(_drop, self._served, key))
        self._served[key] = served
        if not self._pass_to_caller(request, served):
            self._refuse(served, 481)

    def _pass_to_caller(self, request: Request, served: Served | None) -> bool:
        token = self._token_of(request)
        if token is None:
            return False
        dialog = self._dialogs.get(f"{request.call_id}|{request.to_address.parameters.get('tag') or ''}")
        peer = self._flow_to(token, dialog)
        if peer is None:
            return False
        on = Request(request.method, request.uri, request.body)
        on.via = [self._via(peer)]
        on.max_forwards = 70
        for name in request.headers.keys():  # noqa: SIM118 - not a dict
            if name.lower() not in ("via", "route", "max-forwards", "contact", "content-length"):
                on.headers.setlist(name, request.headers.getlist(name))
        for route in dialog.caller_routes if dialog else []:
            on.headers.add("Route", route)
        self._ours_in(on, token, peer, request)
        if request.body:
            on.body = sdp.at_address(request.body, self._our_address(peer.host))
        on.headers.set("Content-Length", str(len(on.body)))
        if served is None:
            peer.send(bytes(on))
            return True
        if dialog is not None:
            dialog.line_cseq = max(dialog.line_cseq, request.cseq.sequence)
        served.sent = self._send(on, peer, partial(self._caller_answered, served))
        if request.method == "BYE":
            if dialog is not None:
                self._over(dialog, "hung up")
            elif line := self._lines.get(token.line):
                line.calls.discard(token.call_id)
        return True

    def _flow_to(self, token: RouteToken, dialog: Dialog | None) -> Flow | None:
        if token.transport == "tcp":
            return self._tcp.flow(token.host, token.port)
        assert self._udp is not None
        return self._udp.flow(token.host, token.port)

    def _caller_answered(self, served: Served, response: Response | None) -> None:
        if response is None:
            self._refuse(served, 408)
            return
        if response.code == 100:
            return
        back = Response(response.code, response.phrase, response.body)
        back.headers.setlist("Via", list(served.request.headers.getlist("Via")))
        for name in response.headers.keys():  # noqa: SIM118 - not a dict
            if name.lower() not in ("via", "record-route", "content-length"):
                back.headers.setlist(name, response.headers.getlist(name))
        back.headers.set("Content-Length", str(len(response.body)))
        served.answer(back)

    # ── ends ─────────────────────────────────────────────────────────────────────────────────────────

    def _never_acknowledged(self, dialog: Dialog) -> None:
        """ACK and BYE in the caller's name: the line's slot is free at once."""
        self.counts["never_acknowledged"] += 1
        assert self._loopback is not None
        flow = self._loopback.flow("127.0.0.1", dialog.token.line_port)
        flow.send(bytes(dialog.toward_line("ACK", self._via())))
        self._send(dialog.toward_line("BYE", self._via()), flow, lambda _: None, 5.0)
        self._over(dialog, "failed: the answer was never acknowledged")

    def _bye_caller(self, dialog: Dialog) -> None:
        peer = self._flow_to(dialog.token, dialog)
        if peer is not None:
            self._send(dialog.toward_caller("BYE", self._via(peer)), peer, lambda _: None)

    def _over(self, dialog: Dialog, how: str) -> None:
        dialog.patience.cancel()
        for key in [key for key, known in self._dialogs.items() if known is dialog]:
            del self._dialogs[key]
        if line := self._lines.get(dialog.token.line):
            line.calls.discard(dialog.token.call_id)
        self._spawn(self._router.ended(dialog.token.call_id, how))


def _drop(table: dict[Any, Any], key: tuple[str, ...]) -> None:
    table.pop(key, None)


def _branch_of(message: Message) -> str:
    return message.via[0].parameters.get("branch") or ""


def _make_via(transport: str, host: str, port: int, branch: str) -> Via:
    return Via(transport=transport, host=host, port=port, parameters=Parameters(branch=branch))


def _received(response: Response, flow: Flow) -> None:
    """`received` and `rport` on the topmost Via (RFC 3581)."""
    vias = response.via
    parameters = dict(vias[0].parameters)
    if "rport" in parameters:
        parameters["rport"] = str(flow.port)
        parameters["received"] = flow.host
    elif vias[0].host != flow.host:
        parameters["received"] = flow.host
    else:
        return
    vias[0] = Via(
        transport=vias[0].transport, host=vias[0].host, port=vias[0].port, parameters=Parameters(**parameters)
    )
    response.via = vias
