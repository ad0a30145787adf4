"""Which addresses a web line answers at, and whose packets it takes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import aioice.ice
import ifaddr
import pytest
from aioice import Connection, stun

from gateway.line import ice
from gateway.line.ice import OwnAddresses

FOREIGN = "198.51.100.7"
"""RFC 5737: nobody's."""
DTLS = bytes([22, 254, 253]) + bytes(40)
RTP = bytes([0x80, 96]) + bytes(40)


class Interfaces:
    """This machine's interfaces, as a test has them."""

    def __init__(self) -> None:
        self.addresses: list[Any] = ["127.0.0.1", ("::1", 0, 0)]
        self.read = 0

    def get_adapters(self) -> list[Any]:
        self.read += 1
        return [SimpleNamespace(ips=[SimpleNamespace(ip=address)]) for address in self.addresses]


@pytest.fixture
def interfaces(monkeypatch: pytest.MonkeyPatch) -> Interfaces:
    """One interface, loopback's, until a test adds others."""
    fake = Interfaces()
    monkeypatch.setattr(ifaddr, "get_adapters", fake.get_adapters)
    return fake


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    kept = aioice.ice.get_host_addresses, aioice.ice.StunProtocol
    yield
    aioice.ice.get_host_addresses = kept[0]
    aioice.ice.StunProtocol = kept[1]  # type: ignore[misc]  # as `ice.bind` does


def test_bound_to_loopback_it_answers_at_every_address_of_this_machine(interfaces: Interfaces) -> None:
    interfaces.addresses += ["192.0.2.7", "127.0.0.2", ("2001:db8::7", 0, 0), ("fe80::1", 0, 3), "10.1.2.3"]
    assert ice.bind("127.0.0.1") == ["127.0.0.1", "10.1.2.3", "192.0.2.7"]
    assert ice.bind("localhost") == ["127.0.0.1", "10.1.2.3", "192.0.2.7"]
    assert ice.bind("::1") == ["::1", "127.0.0.1", "10.1.2.3", "192.0.2.7"]


def test_on_a_machine_with_ipv6_alone_at_those(interfaces: Interfaces) -> None:
    interfaces.addresses += [("2001:db8::7", 0, 0), ("fe80::1", 0, 3)]
    assert ice.bind("127.0.0.1") == ["127.0.0.1", "2001:db8::7"]


def test_bound_to_everything_it_answers_over_both_families(interfaces: Interfaces) -> None:
    interfaces.addresses += ["192.0.2.7", ("2001:db8::7", 0, 0), ("fe80::1", 0, 3)]
    assert ice.bind("::") == ["127.0.0.1", "192.0.2.7", "2001:db8::7"]
    assert ice.bind("0.0.0.0") == ["127.0.0.1", "192.0.2.7"]
    interfaces.addresses += [f"10.0.{k}.1" for k in range(100)]
    both = ice.bind("::")
    assert len(both) <= ice.MOST_CANDIDATES
    assert "2001:db8::7" in both


def test_a_public_address_stands_beside_those_of_its_family() -> None:
    host = "a=candidate:1 1 udp 1 {} 5000 typ host"
    sdp = "\r\n".join([host.format("10.0.0.7"), host.format("2001:db8::7")])
    assert [line.split()[4] for line in ice.answered(sdp, "198.51.100.7").split("\r\n")] == [
        "10.0.0.7",
        "198.51.100.7",
        "2001:db8::7",
    ]


def test_on_a_machine_with_no_network_at_loopback_alone(interfaces: Interfaces) -> None:
    addresses = ice.bind("127.0.0.1")
    assert addresses == ["127.0.0.1"]
    assert not any(map(ice.reaches_beyond, addresses))


def test_of_many_addresses_it_offers_some(interfaces: Interfaces) -> None:
    interfaces.addresses += [f"10.0.{k}.1" for k in range(100)]
    assert len(ice.bind("127.0.0.1")) == ice.MOST_CANDIDATES


def test_bound_to_one_address_it_answers_there_alone(interfaces: Interfaces) -> None:
    interfaces.addresses += ["192.0.2.7"]
    assert ice.bind("192.0.2.7") == ["192.0.2.7"]


def test_an_address_that_came_later_is_offered_and_known(interfaces: Interfaces) -> None:
    ice.bind("127.0.0.1")
    interfaces.addresses.append("192.0.2.9")
    assert "192.0.2.9" in aioice.ice.get_host_addresses(True, True)
    assert ice.own.hold("192.0.2.9")


def test_an_unknown_address_has_the_interfaces_read_again_but_not_for_every_packet(
    interfaces: Interfaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("gateway.line.ice.time.monotonic", lambda: now)
    own = OwnAddresses()
    own.read()
    interfaces.read = 0
    assert not any(own.hold(FOREIGN) for _ in range(100))
    assert own.hold("127.0.0.1")
    assert own.hold("127.8.8.8")
    assert interfaces.read == 0
    interfaces.addresses.append("192.0.2.9")
    now += ice.ADDRESSES_FOR_S + 0.1
    assert own.hold("192.0.2.9")
    assert not any(own.hold(FOREIGN) for _ in range(100))
    assert interfaces.read == 1


# ── whose packets ────────────────────────────────────────────────────────────────────────────────────────


class Candidate:
    """An ICE agent with one candidate's socket, and what it sends."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        (self.protocol,) = connection._protocols
        self.sent: list[tuple[bytes, Any]] = []
        self.transport = self.protocol.transport
        self.protocol.transport = SimpleNamespace(  # type: ignore[assignment]  # the one thing that it is asked for
            sendto=lambda data, addr: self.sent.append((data, addr)), close=self.transport.close
        )

    def check(self) -> bytes:
        """A check of a browser that knows the answer's password."""
        request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
        request.attributes["USERNAME"] = f"{self.connection.local_username}:them"
        request.attributes["PRIORITY"] = 1
        request.attributes["ICE-CONTROLLING"] = 1
        request.add_message_integrity(self.connection.local_password.encode())
        return bytes(request)

    @property
    def taken(self) -> list[bytes]:
        """DTLS and RTP that went on into the connection."""
        queue = self.connection._queue
        return [queue.get_nowait()[0] for _ in range(queue.qsize())]  # type: ignore[index]  # no end is in it


async def candidate(host: str) -> AsyncIterator[Candidate]:
    ice.bind(host)
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
    connection = Connection(ice_controlling=False)
    await connection.gather_candidates()
    yield Candidate(connection)
    await connection.close()


@pytest.fixture
async def bound_to_loopback() -> AsyncIterator[Candidate]:
    async for one in candidate("127.0.0.1"):
        yield one


@pytest.fixture
async def bound_to_all() -> AsyncIterator[Candidate]:
    async for one in candidate("0.0.0.0"):
        yield one


@pytest.mark.parametrize("source", [FOREIGN, "10.0.0.1", "172.17.0.2", "2001:db8::1", ""])
async def test_bound_to_loopback_nobody_elses_packet_is_taken_or_answered(
    bound_to_loopback: Candidate, source: str
) -> None:
    for packet in (bound_to_loopback.check(), DTLS, RTP, b"", b"\x00" * 20):
        bound_to_loopback.protocol.datagram_received(packet, (source, 5000))
    assert bound_to_loopback.sent == []
    assert bound_to_loopback.taken == []


async def test_nor_is_anything_sent_to_them(bound_to_loopback: Candidate) -> None:
    message = stun.parse_message(bound_to_loopback.check())
    bound_to_loopback.protocol.send_stun(message, (FOREIGN, 5000))
    assert bound_to_loopback.sent == []
    bound_to_loopback.protocol.send_stun(message, ("127.0.0.1", 5000))
    assert [addr for _, addr in bound_to_loopback.sent] == [("127.0.0.1", 5000)]


async def test_this_machines_packets_are(bound_to_loopback: Candidate) -> None:
    for source in ice.own.read():
        for packet in (bound_to_loopback.check(), DTLS, RTP):
            bound_to_loopback.protocol.datagram_received(packet, (source, 5000))
        assert bound_to_loopback.taken == [DTLS, RTP]
        assert bound_to_loopback.sent.pop()[1] == (source, 5000)


async def test_a_gateway_that_is_open_takes_everybodys(bound_to_all: Candidate) -> None:
    for packet in (bound_to_all.check(), DTLS, RTP):
        bound_to_all.protocol.datagram_received(packet, (FOREIGN, 5000))
    assert bound_to_all.taken == [DTLS, RTP]
    assert [addr for _, addr in bound_to_all.sent] == [(FOREIGN, 5000)]
