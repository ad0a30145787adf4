"""`sips:` (RFC 5630): over TLS on each hop, or refused; nothing that it names is sent in the clear."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from gateway.config.certificate import Certificate, trusting
from gateway.edge.dialogs.identity import Identity
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.uri import URI
from gateway.edge.registrar.registrar import Reached
from gateway.edge.sip_proxy import Edge
from gateway.edge.trunks.trunk import Trunk, TrunkHost
from gateway.ipc.binding import Binding
from gateway.ipc.line_signature import target_signature
from tests.gateway.edge.authority import Authority
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import ANSWER, BOOT, OFFER, Caller, Line, Said, TcpCaller, TlsCaller
from tests.gateway.edge.registrar.phones import USERS, Shelf, answer, credentials, ha1
from tests.needs import HANGS_S

TO_SIPS = "sips:demo@gate.example"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
async def secured(bare: Exchange, authority: Authority) -> Exchange:
    """An edge with TLS, that connects to whom the same authority signs for."""
    bare.certificate = Certificate(*authority.sign("gate.example", "127.0.0.1"))  # type: ignore[attr-defined]
    await _edge(bare, authority)
    return bare


async def _edge(exchange: Exchange, authority: Authority, **rules: Any) -> Edge:
    tls = exchange.certificate.serving()  # type: ignore[attr-defined]
    return await exchange.edge(tls=tls, trust=lambda *_: trusting(authority.ca), **rules)


async def _over_tls(exchange: Exchange, authority: Authority) -> TlsCaller:
    caller = TlsCaller(exchange.edges[-1].tls_port, authority.trusted())
    exchange.peers.append(await caller.open())
    return caller


async def _called(exchange: Exchange, authority: Authority) -> tuple[TlsCaller, Line, Said]:
    """A call to `sips:`, and its 200."""
    line, caller = await exchange.line(), await _over_tls(exchange, authority)
    caller.target = TO_SIPS
    caller.send("INVITE", OFFER, contact=f"<sips:alice@{caller.host}:{caller.port}>")
    line.reply(await line.invited(), 200, body=ANSWER)
    answer = await caller.next(200)
    caller.learn(answer)
    caller.send("ACK")
    await line.next(method="ACK")
    return caller, line, answer


async def test_what_opens_with_sips_stays_so(secured: Exchange, authority: Authority) -> None:
    caller, line, answer = await _called(secured, authority)
    ours = f"<sips:127.0.0.1:{secured.edges[-1].tls_port};"
    assert answer["contact"].startswith(ours)
    assert answer["record-route"].startswith(ours)
    assert "transport" not in answer["contact"] + answer["record-route"]  # RFC 5630 §5.1.2
    line.send("INVITE", OFFER)
    asked = await caller.next(method="INVITE")
    assert asked["contact"].startswith(ours)
    assert asked.uri.startswith("sips:alice@")
    caller.reply(asked, 200, f"Contact: <sips:alice@{caller.host}:{caller.port}>", body=OFFER)
    await line.next(200, "INVITE")
    caller.send("INVITE", OFFER, contact=f"<sips:alice@{caller.host}:{caller.port}>")
    line.reply(await line.invited(), 200, body=ANSWER)
    assert (await caller.next(200))["contact"].startswith(ours)


async def test_who_says_sip_over_tls_hears_sip(secured: Exchange, authority: Authority) -> None:
    line, caller = await secured.line(), await _over_tls(secured, authority)
    assert (await secured.call(caller, line))["contact"].startswith("<sip:")


@pytest.mark.parametrize(
    ("transport", "sips", "written"),
    [
        ("tls", True, "sips:alice@192.0.2.1:5061"),
        ("wss", True, "sips:alice@192.0.2.1:5061;transport=ws"),
        ("tls", False, "sip:alice@192.0.2.1:5061;transport=tls"),
        ("udp", False, "sip:alice@192.0.2.1:5061"),
    ],
)
def test_what_we_call_ourselves(transport: str, sips: bool, written: str) -> None:
    """`transport=tls` is not said beside `sips:` (RFC 5630 §5.1.1), a WebSocket is (RFC 7118 §5.2)."""

    class Port:
        address = ("192.0.2.1", 5060)

    ours = Identity(Port(), None, lambda transport: 5061)
    assert ours.uri(Flow(transport, "198.51.100.1", 4000, None), "alice", sips=sips) == written


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("method", ["INVITE", "OPTIONS"])
async def test_sips_in_the_clear_is_refused(secured: Exchange, transport: str, method: str) -> None:
    await secured.line()
    caller = await secured.caller(transport)
    caller.target = TO_SIPS
    caller.send(method, OFFER if method == "INVITE" else "")
    assert (await caller.next(480))["warning"] == '380 voicegate "SIPS Not Allowed"'
    assert not secured.desk.calls


async def test_a_house_without_tls_does_not_know_sips(exchange: Exchange) -> None:
    await exchange.line()
    caller = await exchange.caller()
    caller.send("INVITE", OFFER, uri=TO_SIPS)
    await caller.next(416)


@pytest.mark.parametrize(
    ("route", "status"),
    [("", 480), ("Record-Route: <sips:proxy.example;lr>", 480), ("Record-Route: <sip:127.0.0.1;lr>", 200)],
    ids=["no proxy", "a proxy with sips", "a proxy without"],
)
async def test_a_contact_counts_where_no_proxy_stands_before_it(
    secured: Exchange, route: str, status: int
) -> None:
    line, caller = await secured.line(), await secured.caller()
    caller.send("INVITE", OFFER, *filter(None, [route]), contact="<sips:alice@127.0.0.1>")
    if status == 200:
        line.reply(await line.invited(), 200, body=ANSWER)
    await caller.next(status)


@pytest.mark.parametrize("scheme", ["sips", "sip"])
async def test_a_call_by_sips_is_not_taken_out_of_tls(
    secured: Exchange, authority: Authority, scheme: str
) -> None:
    """Neither by who has seen our signed word, nor by a caller who forgot."""
    caller, line, _ = await _called(secured, authority)
    plain = await secured.caller()
    for name in ("call_id", "own_tag", "to", "target", "routes", "cseq"):
        setattr(plain, name, getattr(caller, name))
    plain.target = re.sub("^sips", scheme, plain.target)
    for method in ("INVITE", "INFO", "BYE"):
        plain.send(method, OFFER if method == "INVITE" else "")
        await plain.next(480, method)
    line.send("BYE")
    bye = await caller.next(method="BYE")
    assert bye.uri.startswith("sips:")
    await plain.nothing()


@pytest.mark.parametrize("over_tls", [True, False])
async def test_nobody_is_referred_to_sips_in_the_clear(
    secured: Exchange, authority: Authority, over_tls: bool
) -> None:
    line = await secured.line()
    caller: Caller = await _over_tls(secured, authority) if over_tls else await secured.caller()
    await secured.call(caller, line)
    line.send("REFER", "", "Refer-To: <sips:boss@example.com>")
    if over_tls:
        caller.reply(await caller.next(method="REFER"), 202)
        await line.next(202, "REFER")
    else:
        await line.next(480, "REFER")
        await caller.nothing()
    line.send("REFER", "", "Refer-To: <sip:boss@example.com>")
    await caller.next(method="REFER")


# ── registered telephones and trunks ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("uri", "path", "status"),
    [
        (TO_SIPS, "", 200),
        ("sip:gate.example", "", 400),
        (TO_SIPS, "Path: <sip:proxy.example;lr>", 400),
        (TO_SIPS, "Path: <sips:proxy.example;lr>", 200),
    ],
    ids=["all sips", "to sip", "by a sip path", "by a sips path"],
)
async def test_who_registers_sips_is_reached_so(
    bare: Exchange, authority: Authority, uri: str, path: str, status: int
) -> None:
    bare.shelf = Shelf()
    bare.certificate = Certificate(*authority.sign("gate.example"))  # type: ignore[attr-defined]
    await _edge(bare, authority, phones=ha1)
    phone = await _over_tls(bare, authority)
    phone.to = "<sips:alice@gate.example>"
    more = ["Supported: path", path] if path else []
    contact = f"<sips:alice@{phone.host}:{phone.port}>"
    phone.send("REGISTER", "", *more, uri=uri, contact=contact)
    login = credentials(await answer(phone), "alice", USERS["alice"], "REGISTER", uri)
    phone.send("REGISTER", "", *more, login, uri=uri, contact=contact)
    assert (await answer(phone)).status == status


async def _leaves(exchange: Exchange, target: str, srtp: str = "off") -> Line:
    """A caller is up, and its line calls the target."""
    line, caller = await exchange.line(), await exchange.caller()
    await exchange.call(caller, line)
    assert line.invite is not None
    call_id, own = line.invite["x-vg-call"], f"{target}-out"
    text = "\r\n".join(
        [
            f"INVITE sip:{target}@127.0.0.1 SIP/2.0",
            f"Via: SIP/2.0/UDP 127.0.0.1:{line.port};rport;branch=z9hG4bK{target}",
            "Max-Forwards: 70",
            "From: <sip:line@127.0.0.1>;tag=out",
            f"To: <sip:{target}@127.0.0.1>",
            f"Call-ID: {own}",
            "CSeq: 1 INVITE",
            f"Contact: <sip:127.0.0.1:{line.port}>",
            f"X-VG-Call: {call_id}",
            f"X-VG-Target: {target}",
            f"X-VG-SRTP: {srtp}",
            f"X-VG-Auth: {target_signature(BOOT, call_id, target, own)}",
            "Content-Type: application/sdp",
            f"Content-Length: {len(OFFER)}",
            "",
            OFFER,
        ]
    )
    line.transport.sendto(text.encode(), line.edge)
    return line


async def test_a_trunk_is_called_by_sips_over_tls(
    bare: Exchange, authority: Authority, tmp_path: Path
) -> None:
    far = _Far()
    port = await far.open(Certificate(*authority.sign("127.0.0.1", to="far")))
    trunk = Trunk(
        name="carrier", hosts=(TrunkHost("127.0.0.1", port),), transport="tls", sips=True, prefixes=("+49",)
    )
    bare.trunks, bare.desk.targets = (trunk,), {"office": "trunk:carrier/+4930"}
    bare.certificate = Certificate(*authority.sign("gate.example"))  # type: ignore[attr-defined]
    edge = await _edge(bare, authority)
    try:
        await _leaves(bare, "office")
        invite = await far.hears()
        assert invite.uri == "sips:+4930@127.0.0.1"
        assert re.match(rf"<sips:\S+@127.0.0.1:{edge.tls_port};vg=", invite["contact"])
        assert invite["from"].startswith("<sips:")
        far.says(invite, 302, "Contact: <sip:+4931@127.0.0.1>")  # from sips: to sip: nobody is led
        line = bare.peers[0]
        assert isinstance(line, Line)
        await line.next(302)
    finally:
        far.close()


class _Far:
    """A trunk over TLS."""

    async def open(self, certificate: Certificate) -> int:
        self.kept: asyncio.Queue[Said] = asyncio.Queue()
        self._server = await asyncio.start_server(self._read, "127.0.0.1", 0, ssl=certificate.serving())
        return int(self._server.sockets[0].getsockname()[1])

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(length[1]) if length else 0)
            self.kept.put_nowait(Said.parse(head + body))

    async def hears(self) -> Said:
        async with asyncio.timeout(HANGS_S):
            while (said := await self.kept.get()).method != "INVITE":
                pass
            return said

    def says(self, request: Said, status: int, *extra: str) -> None:
        kept = [
            f"{name}: {value}" for name in ("via", "from", "call-id", "cseq") for value in request.all(name)
        ]
        lines = [f"SIP/2.0 {status} Said", *kept, f"To: {request['to']};tag=far", *extra]
        self.writer.write("\r\n".join([*lines, "Content-Length: 0", "", ""]).encode())

    def close(self) -> None:
        self._server.close()
        self.writer.transport.abort()


@pytest.mark.parametrize("over_tls", [True, False])
async def test_a_telephone_that_wants_tls_is_rung_over_tls_or_not_at_all(
    secured: Exchange, authority: Authority, over_tls: bool
) -> None:
    edge = secured.edges[-1]
    phone: TcpCaller = await _over_tls(secured, authority) if over_tls else await secured.caller("tcp")  # type: ignore[assignment]
    phone.send("OPTIONS")
    await phone.next(503)
    flow = edge._board.ports.flow("tls" if over_tls else "tcp", "127.0.0.1", phone.port)
    assert isinstance(flow, Flow)
    contact = "sips:bob@phone.invalid"
    binding = Binding(
        user="bob", key="k", contact=contact, call_id_hash="c", cseq=1, transport=flow.transport,
        host=flow.host, port=flow.port, source=flow.host, registered_at=0.0, expires_at=0.0,
    )  # fmt: skip
    reached = Reached(flow, URI.read(contact), (), binding)
    edge.trunks.calls._phones = lambda user: [reached]
    secured.desk.targets = {"bob": "user:bob"}
    line = await _leaves(secured, "bob", "optional" if over_tls else "off")
    if over_tls:
        invite = await phone.next(method="INVITE")
        assert invite.uri == "sips:bob@phone.invalid"
        assert invite["contact"].startswith(f"<sips:voicegate@127.0.0.1:{edge.tls_port};vg=")
    else:
        await line.next(480, "INVITE")
        await phone.nothing()
