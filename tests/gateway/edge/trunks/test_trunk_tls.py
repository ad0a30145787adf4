"""Trunks with certificates: whom we show what, and who is a trunk that connects to us over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config.certificate import Certificate
from gateway.edge.sip_proxy import Edge
from gateway.edge.trunks.trunk import FINGERPRINT, Trunk, TrunkHost
from gateway.edge.trunks.trunk_booth import TrunkBooth
from gateway.edge.trunks.trunk_tls import TrunkTls
from gateway.edge.trunks.trunk_trial import TrunkTrial
from gateway.errors import NoFlow, SettingsError
from tests.gateway.edge.authority import Authority
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import ANSWER, OFFER, TlsCaller
from tests.needs import HANGS_S

PAI = "P-Asserted-Identity: <sip:+4930123@carrier.example>"
HERE = TrunkHost("127.0.0.1", None)
ELSEWHERE = TrunkHost("192.0.2.1", None)


def nobody(user: str, algorithm: str) -> str | None:
    return None


class Carriers:
    """Two trunks with authorities of their own, and the house with a third."""

    def __init__(self, folder: Path) -> None:
        self.house = Authority(folder / "house", "house")
        self.first = Authority(folder / "first", "first")
        self.second = Authority(folder / "second", "second")
        self.certificate = Certificate(*self.house.sign("gate.example"))

    def trunk(self, name: str = "first", **more: Any) -> Trunk:
        given: dict[str, Any] = {
            "name": name,
            "hosts": (ELSEWHERE,),
            "transport": "tls",
            "authority": getattr(self, name).ca,
            "shows": (f"{name}.example",),
            "known_by": "certificate",
            "trusted": True,
        }
        return Trunk(**{**given, **more})

    async def edge(self, exchange: Exchange, *trunks: Trunk, **rules: Any) -> Edge:
        exchange.trunks = trunks
        clients = {name: rules.pop(name) for name in ("clients", "authorities") if name in rules}

        def asking(pem: str) -> ssl.SSLContext:
            return self.certificate.serving(**clients, trunks=pem)

        usual = self.certificate.serving(**clients)
        edge = await exchange.edge(tls=usual, tls_asking=asking, ha1=nobody, **rules)
        await exchange.line()
        return edge

    def client(self, files: tuple[Path, Path] | None) -> ssl.SSLContext:
        """Of somebody who shows that certificate."""
        trust = self.house.trusted()
        if files is not None:
            trust.load_cert_chain(*files)
        return trust


@pytest.fixture
def carriers(tmp_path: Path) -> Carriers:
    return Carriers(tmp_path)


async def caller(exchange: Exchange, trust: ssl.SSLContext) -> TlsCaller:
    made = await TlsCaller(exchange.edges[-1].tls_port, trust).open()
    exchange.peers.append(made)
    return made


async def comes_as(exchange: Exchange, trust: ssl.SSLContext) -> str | None:
    """The trunk as which somebody's call is taken; None: it is asked for a password."""
    who = await caller(exchange, trust)
    who.send("INVITE", OFFER, PAI)
    async with asyncio.timeout(HANGS_S):
        while not (who.kept and who.kept[-1].status in (401, 100)):  # noqa: ASYNC110  # the first of two
            await asyncio.sleep(0.001)
    if who.kept[-1].status == 401:
        assert not exchange.desk.calls
        return None
    line = exchange.peers[0]
    line.reply(await line.invited(), 200, body=ANSWER)  # type: ignore[union-attr]
    await who.next(200)
    facts = exchange.desk.calls[-1].facts
    assert ("+4930123" in str(facts.headers)) is (facts.trunk is not None)
    return facts.trunk


async def test_a_trunk_is_known_by_its_certificate(bare: Exchange, carriers: Carriers) -> None:
    """Without a password, from any address, past the list of addresses."""
    edge = await carriers.edge(bare, carriers.trunk("second"), carriers.trunk(), allow=("198.51.100.0/24",))
    trust = carriers.client(carriers.first.sign("first.example", to="trunk"))
    assert await comes_as(bare, trust) == "first"
    assert edge.stats()["failed_handshakes"] == 0


@pytest.mark.parametrize("shown", ["nothing", "other name", "wrong authority", "wildcard", "user"])
async def test_who_shows_anything_else_is_a_stranger(bare: Exchange, carriers: Carriers, shown: str) -> None:
    await carriers.edge(bare, carriers.trunk(), carriers.trunk("second"))
    files = {
        "nothing": None,
        "other name": carriers.first.sign("other.example", to="a"),
        "wrong authority": carriers.second.sign("first.example", to="b"),
        "wildcard": carriers.first.sign("*.example", to="c"),
        "user": carriers.first.sign("sip:alice@first.example", "first.example", to="d"),
    }[shown]
    assert await comes_as(bare, carriers.client(files)) is None


@pytest.mark.parametrize("shown", ["ended", "by itself", "nobody's"])
async def test_a_certificate_that_does_not_hold_gets_nothing(
    bare: Exchange, carriers: Carriers, tmp_path: Path, shown: str
) -> None:
    edge = await carriers.edge(bare, carriers.trunk())
    files = {
        "ended": carriers.first.sign("first.example", to="a", days=-1.0),
        "by itself": carriers.first.sign("first.example", to="b", itself=True),
        "nobody's": Authority(tmp_path / "x", "first").sign("first.example", to="c"),
    }[shown]
    made = TlsCaller(edge.tls_port, carriers.client(files))
    with contextlib.suppress(ssl.SSLError, ConnectionError):  # TLS 1.3 tells it later
        await made.open()
        bare.peers.append(made)
        made.send("INVITE", OFFER)
        await made.gone()
    assert not made.kept
    assert edge.stats()["failed_handshakes"] == 1


async def test_a_sip_uri_and_a_fingerprint_name_a_trunk_too(bare: Exchange, carriers: Carriers) -> None:
    by_uri = carriers.second.sign("sip:second.example", "mail.example", to="uri")
    pinned = carriers.first.sign("whatever.example", to="pinned", itself=True)
    der = ssl.PEM_cert_to_DER_cert(pinned[0].read_text())
    first = carriers.trunk(authority=pinned[0], shows=(FINGERPRINT + hashlib.sha256(der).hexdigest(),))
    await carriers.edge(bare, first, carriers.trunk("second"))
    assert await comes_as(bare, carriers.client(pinned)) == "first"
    assert await comes_as(bare, carriers.client(by_uri)) == "second"


@pytest.mark.parametrize(
    ("known_by", "host", "shows", "is_trunk"),
    [
        ("certificate", HERE, False, False),
        ("both", HERE, False, False),
        ("both", ELSEWHERE, True, False),
        ("both", HERE, True, True),
        ("either", HERE, False, True),
        ("either", ELSEWHERE, True, True),
        ("address", ELSEWHERE, True, False),
    ],
)
async def test_an_address_counts_where_the_file_says_so(
    bare: Exchange, carriers: Carriers, known_by: Any, host: TrunkHost, shows: bool, is_trunk: bool
) -> None:
    await carriers.edge(bare, carriers.trunk(hosts=(host,), known_by=known_by))
    files = carriers.first.sign("first.example", to="trunk") if shows else None
    assert (await comes_as(bare, carriers.client(files)) == "first") is is_trunk


async def test_nobody_is_asked_for_a_certificate_that_no_trunk_needs(
    bare: Exchange, carriers: Carriers
) -> None:
    """A telephone with a certificate of its maker's would not get in otherwise."""
    await carriers.edge(bare, carriers.trunk(shows=(), known_by="address", hosts=(HERE,)))
    trust = carriers.client(carriers.second.sign("phone.example", to="phone"))
    assert await comes_as(bare, trust) == "first"


async def test_a_trunks_authority_opens_the_door_for_that_trunk_alone(
    bare: Exchange, carriers: Carriers
) -> None:
    """Where the house wants a certificate of its own authority from everybody."""
    needed = frozenset(TrunkTls(carriers.trunk(authority=carriers.house.ca), _trust)._authorities)
    edge = await carriers.edge(
        bare, carriers.trunk(), clients="required", authorities=carriers.house.ca,
        client_authorities=needed,
    )  # fmt: skip
    mine = carriers.client(carriers.house.sign("phone.example", to="phone"))
    theirs = carriers.client(carriers.first.sign("first.example", to="trunk"))
    assert await comes_as(bare, mine) is None  # it is let in, and asked for a password
    assert await comes_as(bare, theirs) == "first"
    stranger = await caller(bare, carriers.client(carriers.first.sign("x.example", to="x")))
    with contextlib.suppress(ConnectionError):
        stranger.send("OPTIONS")
    await stranger.gone()
    assert edge.stats()["failed_handshakes"] == 1


def _trust(authorities: Path | None, certificate: Certificate | None) -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_is_not_carried_to_another_connection(
    bare: Exchange, carriers: Carriers, version: ssl.TLSVersion
) -> None:
    """Who resumes one shows nothing, and would be whom somebody else was."""
    edge = await carriers.edge(bare, carriers.trunk())
    trust = carriers.client(carriers.first.sign("first.example", to="trunk"))
    trust.maximum_version = version

    def twice() -> list[bool]:
        reused, session = [], None
        for _ in range(2):
            plain = socket.create_connection(("127.0.0.1", edge.tls_port), timeout=HANGS_S)
            secured = trust.wrap_socket(plain, server_hostname="gate.example", session=session)
            secured.sendall(b"\r\n\r\n")  # a keep-alive, whose answer brings a ticket along
            assert secured.recv(16) == b"\r\n"
            session = secured.session
            reused.append(bool(secured.session_reused))
            secured.close()
        return reused

    assert await asyncio.to_thread(twice) == [False, False]
    assert await comes_as(bare, trust) == "first"


async def test_an_identity_stays_with_its_connection(bare: Exchange, carriers: Carriers) -> None:
    """Another connection from the same address, even at once, is a stranger's."""
    edge = await carriers.edge(bare, carriers.trunk())
    await caller(bare, carriers.client(carriers.first.sign("first.example", to="trunk")))
    assert await comes_as(bare, carriers.client(None)) is None
    udp = await bare.caller()
    udp.send("INVITE", OFFER)
    await udp.next(401)
    assert edge.trunks.authorities()


async def test_an_authority_that_was_replaced_is_believed_no_more(bare: Exchange, carriers: Carriers) -> None:
    """On open connections neither; the new one is asked for at the next handshake."""
    edge = await carriers.edge(bare, carriers.trunk())
    old = carriers.client(carriers.first.sign("first.example", to="trunk"))
    open_one = await caller(bare, old)
    tls = edge.trunks.known["first"].tls
    tls.look()
    carriers.first.ca.write_text("half written")
    with pytest.raises(SettingsError, match=r"trunk first, authority: .*cannot be read"):
        tls.look()
    tls.look()  # it is said once
    carriers.first.ca.unlink()
    with pytest.raises(SettingsError, match=r"trunk first, authority: .*No such file"):
        tls.look()
    tls.look()
    assert await comes_as(bare, old) == "first"
    carriers.first.ca.write_bytes(carriers.second.ca.read_bytes())
    tls.look()
    open_one.send("INVITE", OFFER)
    await open_one.next(401)
    new = carriers.client(carriers.second.sign("first.example", to="new"))
    assert await comes_as(bare, new) == "first"
    refused = TlsCaller(edge.tls_port, old)
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        await refused.open()
        bare.peers.append(refused)
        refused.send("OPTIONS")
        await refused.gone()
    assert not refused.kept


async def test_a_certificate_that_ends_meanwhile_is_believed_no_more(
    bare: Exchange, carriers: Carriers
) -> None:
    edge = await carriers.edge(bare, carriers.trunk())
    who = await caller(bare, carriers.client(carriers.first.sign("first.example", to="trunk")))
    who.send("OPTIONS")
    await who.next(200)
    flow = edge._board.ports.flow("tls", "127.0.0.1", who.port)
    assert flow is not None
    assert flow.certificate is not None
    assert edge.trunks.of(flow) == "first"
    flow.certificate = dataclasses.replace(flow.certificate, until=time.time())
    who.send("INVITE", OFFER)
    await who.next(401)


# ── connections of ours ──────────────────────────────────────────────────────────────────────────────


class Far:
    """A trunk's TLS server, which wants a certificate of its own authority."""

    def __init__(self) -> None:
        self.shown: list[Any] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def open(self, certificate: Certificate, authority: Authority) -> int:
        context = certificate.serving(clients="required", authorities=authority.ca)
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=context)
        return int(self._server.sockets[0].getsockname()[1])

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            self.shown.append(writer.get_extra_info("peercert"))

    async def sees(self, count: int) -> Any:
        async with asyncio.timeout(HANGS_S):
            while len(self.shown) < count:  # noqa: ASYNC110  # what happens has no event
                await asyncio.sleep(0.001)
        return [value for _, value in self.shown[-1]["subjectAltName"]]

    def close(self) -> None:
        self._server.close()
        for writer in self.writers:
            writer.transport.abort()


@pytest.fixture
def far() -> Iterator[Far]:
    made = Far()
    yield made
    made.close()


async def test_a_trunk_sees_its_own_certificate_and_is_checked_by_its_own_authority(
    bare: Exchange, carriers: Carriers, far: Far
) -> None:
    port = await far.open(Certificate(*carriers.first.sign("127.0.0.1", to="server")), carriers.first)
    chain, key = carriers.first.sign("us.example", to="us")
    trunk = carriers.trunk(hosts=(TrunkHost("127.0.0.1", port),), certificate=chain, key=key)
    other = dataclasses.replace(trunk, name="second", authority=carriers.second.ca)
    edge = await carriers.edge(bare, trunk, other)
    desk = edge.trunks
    (way,), (wrong,) = desk.known["first"].ways.all, desk.known["second"].ways.all
    flow = await desk.connect(way)
    flow.send(b"OPTIONS\r\n\r\n")
    assert await far.sees(1) == ["us.example"]
    assert desk.of(flow) == "first"  # what it asks by this connection is the trunk's
    with pytest.raises(NoFlow, match="certificate does not hold"):
        await desk.connect(wrong)
    carriers.first.sign("new.example", to="us")
    desk.known["first"].tls.look()
    assert await desk.connect(way) is flow  # who is there stays
    far.writers[0].transport.abort()
    async with asyncio.timeout(HANGS_S):
        while flow.open:  # noqa: ASYNC110  # nobody tells of it
            await asyncio.sleep(0.001)
    (await desk.connect(way)).send(b"OPTIONS\r\n\r\n")
    assert await far.sees(2) == ["new.example"]


async def test_the_test_phone_and_the_trial_show_it_too(carriers: Carriers, far: Far) -> None:
    """`voicegate call --trunk` and `voicegate trunk test` have ports of their own."""
    port = await far.open(Certificate(*carriers.first.sign("127.0.0.1", to="server")), carriers.first)
    chain, key = carriers.first.sign("us.example", to="us")
    trunk = carriers.trunk(hosts=(TrunkHost("127.0.0.1", port),), certificate=chain, key=key)
    booth = TrunkBooth(trunk)
    await booth.open()
    try:
        (await booth.connect(booth.ways.all[0])).send(b"OPTIONS\r\n\r\n")
        assert await far.sees(1) == ["us.example"]
    finally:
        await booth.close()
    steps = TrunkTrial(trunk).steps(None)
    assert (await anext(steps)).well
    tried = asyncio.ensure_future(anext(steps))
    assert await far.sees(2) == ["us.example"]
    tried.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await tried
