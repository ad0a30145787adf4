"""SIP over TLS: calls, certificates that are replaced, and peers that are not whom they should be."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.config.certificate import Certificate, trusting
from gateway.edge.flows.connections import MAX_PER_SOURCE
from gateway.edge.flows.peer_ports import PeerPorts
from gateway.edge.flows.tls_door import TlsDoor
from gateway.edge.flows.transport import Flow
from gateway.errors import NoFlow, SettingsError
from tests.gateway.edge.authority import Authority
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import TlsCaller
from tests.needs import HANGS_S


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def certificate(authority: Authority) -> Certificate:
    return Certificate(*authority.sign("gate.example"))


async def _until(happened: Callable[[], object]) -> None:
    async with asyncio.timeout(HANGS_S):
        while not happened():  # noqa: ASYNC110  # what happens has no event
            await asyncio.sleep(0.001)


async def _caller(exchange: Exchange, authority: Authority) -> TlsCaller:
    caller = TlsCaller(exchange.edges[-1].tls_port, authority.trusted())
    exchange.peers.append(await caller.open())
    return caller


async def test_a_call_over_tls(bare: Exchange, authority: Authority, certificate: Certificate) -> None:
    edge = await bare.edge(tls=certificate.serving())
    assert edge.tls_port != edge.port
    line, caller = await bare.line(), await _caller(bare, authority)
    answer = await bare.call(caller, line)
    ours = f"sip:127.0.0.1:{edge.tls_port};transport=tls"
    assert ours in answer["contact"]
    assert ours in answer["record-route"]
    assert bare.desk.calls[0].facts.transport == "tls"
    line.send("INFO")  # what the line asks goes by the caller's connection
    asked = await caller.next(method="INFO")
    assert asked["via"].startswith(f"SIP/2.0/TLS 127.0.0.1:{edge.tls_port};")
    caller.reply(asked, 200)
    await line.next(200, "INFO")
    caller.send("BYE")
    line.reply(await line.next(method="BYE"), 200)
    await caller.next(200, "BYE")


async def test_a_client_that_speaks_at_once_is_heard(
    bare: Exchange, authority: Authority, certificate: Certificate
) -> None:
    """Its first flight waits in the kernel before we know of the connection."""
    edge = await bare.edge(tls=certificate.serving())
    trust = authority.trusted()
    for _ in range(20):
        sent, told = ssl.MemoryBIO(), ssl.MemoryBIO()
        with contextlib.suppress(ssl.SSLWantReadError):
            trust.wrap_bio(told, sent, server_hostname="gate.example").do_handshake()
        with socket.create_connection(("127.0.0.1", edge.tls_port)) as client:
            client.sendall(sent.read())
            client.setblocking(False)
            async with asyncio.timeout(HANGS_S):
                answer = await asyncio.get_running_loop().sock_recv(client, 5)
            assert answer[0] == 0x16  # a handshake's record


async def test_old_tls_is_refused(bare: Exchange, certificate: Certificate) -> None:
    edge = await bare.edge(tls=certificate.serving())
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", edge.tls_port, ssl=old)


async def test_who_never_shakes_hands_takes_no_more_than_its_share(
    bare: Exchange, certificate: Certificate
) -> None:
    edge = await bare.edge(tls=certificate.serving())
    writers = []
    for _ in range(MAX_PER_SOURCE + 3):
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.tls_port)
        writers.append(writer)
    async with asyncio.timeout(HANGS_S):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    for writer in writers:
        writer.close()


async def test_a_new_certificate_is_shown_without_a_restart(
    bare: Exchange, authority: Authority, certificate: Certificate
) -> None:
    edge = await bare.edge(tls=certificate.serving())
    line, caller = await bare.line(), await _caller(bare, authority)
    await bare.call(caller, line)
    assert not certificate.changed()
    before = certificate.fingerprint
    authority.sign("gate.example", "other.example")
    assert certificate.changed()
    assert certificate.fingerprint != before
    other = TlsCaller(edge.tls_port, authority.trusted(), "other.example")
    bare.peers.append(await other.open())
    caller.send("BYE")  # who was there stays there
    line.reply(await line.next(method="BYE"), 200)
    await caller.next(200, "BYE")


async def test_files_that_do_not_fit_change_nothing(
    bare: Exchange, authority: Authority, certificate: Certificate
) -> None:
    edge = await bare.edge(tls=certificate.serving())
    chain, _ = authority.sign("gate.example", to="other")
    (chain.parent / "cert.pem").write_bytes(chain.read_bytes())
    with pytest.raises(SettingsError, match="cannot be used together"):
        certificate.changed()
    assert not certificate.changed()  # it is said once
    await _caller(bare, authority)
    assert edge.stats()["failed_handshakes"] == 0


def test_a_key_that_others_may_read_is_refused(authority: Authority) -> None:
    chain, key = authority.sign("gate.example")
    key.chmod(0o644)
    with pytest.raises(SettingsError, match=r"every user of this machine may read .*chmod 600"):
        Certificate(chain, key)
    key.chmod(0o640)  # Debian's group ssl-cert
    Certificate(chain, key)


# ── clients' certificates ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("clients", ["asked", "required"])
async def test_a_client_shows_whom_it_is(
    bare: Exchange, authority: Authority, certificate: Certificate, clients: Any
) -> None:
    context = certificate.serving(clients=clients, authorities=authority.ca)
    edge = await bare.edge(tls=context)
    seen: list[Flow] = []
    take = edge._callers.take
    edge._callers.take = lambda message, flow, data: (seen.append(flow), take(message, flow, data))[1]  # type: ignore[method-assign]
    trust = authority.trusted()
    trust.load_cert_chain(*authority.sign("trunk.example", to="trunk"))
    caller = TlsCaller(edge.tls_port, trust)
    bare.peers.append(await caller.open())
    caller.send("OPTIONS")
    await caller.next(503)
    assert seen[0].names == {"trunk.example"}


async def test_without_a_certificate_or_with_a_strangers_nobody_comes_in(
    bare: Exchange, tmp_path: Path, authority: Authority, certificate: Certificate
) -> None:
    edge = await bare.edge(tls=certificate.serving(clients="required", authorities=authority.ca))
    stranger = authority.trusted()
    stranger.load_cert_chain(*Authority(tmp_path / "other", "other").sign("trunk.example"))
    for trust in (authority.trusted(), stranger):
        caller = TlsCaller(edge.tls_port, trust)
        with contextlib.suppress(ssl.SSLError, ConnectionError):  # TLS 1.3 tells it later
            await caller.open()
            bare.peers.append(caller)
            caller.send("OPTIONS")
            await caller.gone()
        assert not caller.kept
    assert edge.stats()["failed_handshakes"] == 2


# ── connections of ours ──────────────────────────────────────────────────────────────────────────────


class _Server:
    """A trunk's TLS port, which says what it got."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.got = asyncio.Event()
        self.port = 0

    async def open(self, certificate: Certificate | None, **more: Any) -> None:
        context = None if certificate is None else certificate.serving(**more)
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            self.head = await reader.readuntil(b"\r\n\r\n")
            self.got.set()

    def close(self) -> None:
        self._server.close()
        for writer in self.writers:
            writer.transport.abort()


@pytest.fixture
async def server() -> AsyncIterator[_Server]:
    made = _Server()
    yield made
    made.close()


async def _opened(*given: Any) -> PeerPorts:
    for _ in range(20):
        made = PeerPorts(*given)
        try:
            await made.open("127.0.0.1", 0)
        except OSError:  # the number that UDP got is somebody's in TCP
            await made.close()
        else:
            return made
    raise AssertionError("no port is free")


@pytest.fixture
async def ports(authority: Authority) -> AsyncIterator[PeerPorts]:
    heard: list[bytes] = []
    lost: list[Flow] = []
    made = await _opened(
        lambda data, flow: heard.append(data) is None, lost.append, lambda: trusting(authority.ca)
    )
    made.heard, made.lost = heard, lost  # type: ignore[attr-defined]
    yield made
    await made.close()


async def test_we_connect_to_whom_we_mean(
    ports: PeerPorts, server: _Server, certificate: Certificate
) -> None:
    await server.open(certificate)
    flow = await ports.connect("tls", "127.0.0.1", server.port, "gate.example")
    assert (flow.transport, flow.host, flow.port) == ("tls", "127.0.0.1", server.port)
    assert flow.names == {"gate.example"}
    assert await ports.connect("tls", "127.0.0.1", server.port, "Gate.example") is flow
    flow.send(b"OPTIONS\r\n\r\n")
    async with asyncio.timeout(HANGS_S):
        await server.got.wait()
    server.writers[0].write(b"SIP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok")
    await _until(lambda: ports.heard)  # type: ignore[attr-defined]
    server.writers[0].transport.abort()
    await _until(lambda: ports.lost)  # type: ignore[attr-defined]
    again = await ports.connect("tls", "127.0.0.1", server.port, "gate.example")
    assert again is not flow


@pytest.mark.parametrize(
    ("name", "why"), [("evil.example", "Hostname mismatch"), ("", "IP address mismatch")]
)
async def test_a_wrong_name_fails(
    ports: PeerPorts, server: _Server, certificate: Certificate, name: str, why: str
) -> None:
    await server.open(certificate)
    await ports.connect("tls", "127.0.0.1", server.port, "gate.example")  # an open one is another name's
    with pytest.raises(NoFlow, match=why):
        await ports.connect("tls", "127.0.0.1", server.port, name)


async def test_a_chain_that_nobody_knows_fails(ports: PeerPorts, server: _Server, tmp_path: Path) -> None:
    await server.open(Certificate(*Authority(tmp_path / "other").sign("gate.example")))
    with pytest.raises(NoFlow, match="certificate does not hold"):
        await ports.connect("tls", "127.0.0.1", server.port, "gate.example")


async def test_a_server_that_does_not_speak_tls_or_is_not_there(ports: PeerPorts, server: _Server) -> None:
    await server.open(None)
    flow = await ports.connect("tcp", "127.0.0.1", server.port)
    assert flow.names == frozenset()
    waiting = asyncio.ensure_future(ports.connect("tls", "127.0.0.1", server.port, "gate.example"))
    await _until(lambda: len(server.writers) == 2)
    server.writers[1].write(b"SIP/2.0 400 Bad Request\r\n\r\n")
    with pytest.raises(NoFlow, match="no TLS with it"):
        await waiting
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(NoFlow):
            await ports.connect("tcp", "127.0.0.1", silent.getsockname()[1])


async def test_who_comes_from_a_servers_port_is_not_that_server(
    ports: PeerPorts, authority: Authority, certificate: Certificate, server: _Server
) -> None:
    """A peer that is taken for the trunk would get its calls."""
    await ports.open_tls("127.0.0.1", 0, TlsDoor(certificate.serving()))
    await server.open(certificate)
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    own.bind(("127.0.0.1", 0))
    port = own.getsockname()[1]
    own.setblocking(False)
    await asyncio.get_running_loop().sock_connect(own, ("127.0.0.1", ports.port("tls")))
    _, writer = await asyncio.open_connection(
        sock=own, ssl=authority.trusted(), server_hostname="gate.example"
    )
    await _until(lambda: ports.flow("tls", "127.0.0.1", port))
    with pytest.raises(NoFlow):  # nobody listens there
        await ports.connect("tls", "127.0.0.1", port, "gate.example")
    writer.transport.abort()


async def test_a_client_certificate_is_shown_to_a_trunk_that_asks(
    server: _Server, authority: Authority, certificate: Certificate
) -> None:
    await server.open(certificate, clients="required", authorities=authority.ca)
    mine = Certificate(*authority.sign("me.example", to="me"))
    ports = await _opened(lambda data, flow: True, lambda flow: None, lambda: mine.asking(authority.ca))
    flow = await ports.connect("tls", "127.0.0.1", server.port, "gate.example")
    flow.send(b"OPTIONS\r\n\r\n")
    async with asyncio.timeout(HANGS_S):
        await server.got.wait()
    shown = server.writers[0].get_extra_info("peercert")
    assert ("DNS", "me.example") in shown["subjectAltName"]
    await ports.close()
