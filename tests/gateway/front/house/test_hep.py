"""A collector of captures is told calls' messages by HEP3, as a reader of that format takes them."""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from gateway.config.settings import Settings
from gateway.edge.grammar.blanking import blanked
from gateway.edge.grammar.message import read
from gateway.front.house.hep import HepSender, hep_sender
from gateway.ipc.wire_message import WireMessage
from tests.gateway.edge.grammar.test_blanking import SECRET, message

SDP = f"v=0\r\no=- 1 1 IN IP4 192.0.2.7\r\ns=-\r\nt=0 0\r\na=ice-pwd:{SECRET}\r\n"
SHOWN = blanked(message(f"Authorization: Digest response={SECRET}\r\n", SDP))


class Collector:
    """What Homer does: a UDP port, and a reader of packets."""

    def __init__(self, family: socket.AddressFamily = socket.AF_INET) -> None:
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        self.socket.settimeout(10.0)
        self.port = self.socket.getsockname()[1]

    def packet(self) -> dict[int, bytes]:
        data = self.socket.recv(65_535)
        magic, length = struct.unpack("!4sH", data[:6])
        assert (magic, length) == (b"HEP3", len(data))
        found, at = {}, 6
        while at < length:
            vendor, kind, size = struct.unpack("!HHH", data[at : at + 6])
            assert vendor == 0
            found[kind] = data[at + 6 : at + size]
            at += size
        assert at == length
        return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.socket.close()


async def sender(port: int, counts: Counter[str], host: str = "127.0.0.1") -> HepSender:
    ours = ("198.51.100.1", 5060)
    made = hep_sender(f"{host}:{port}", lambda transport, peer: ours, lambda one: _add(counts, one))
    assert made is not None
    await made._find()
    return made


def _add(counts: Counter[str], outcome: str) -> None:
    counts[outcome] += 1


def seen(**more: Any) -> WireMessage:
    given = {"host": "192.0.2.7", "port": 40_000, "protocol": "udp", **more}
    given = {"sender": "caller", "receiver": "us", **given}
    return WireMessage(at=1_796_061_422.5, first=SHOWN.first, text=SHOWN.text, **given)


async def test_a_collector_reads_what_happened(collector: Collector) -> None:
    counts: Counter[str] = Counter()
    hep = await sender(collector.port, counts)
    hep.tell("0123456789abcdef", seen())
    packet = collector.packet()
    assert (packet[1], packet[2], packet[11]) == (b"\x02", b"\x11", b"\x01")
    assert [str(ip_address(packet[n])) for n in (3, 4)] == ["192.0.2.7", "198.51.100.1"]
    assert [struct.unpack("!H", packet[n])[0] for n in (7, 8)] == [40_000, 5060]
    assert [struct.unpack("!I", packet[n])[0] for n in (9, 10)] == [1_796_061_422, 500_000]
    assert packet[17] == b"0123456789abcdef"
    payload = read(packet[15])
    assert (payload.call_id, payload.content_length) == ("one@192.0.2.7", len(payload.body))
    assert b"a=ice-pwd:(24 characters)" in payload.body
    assert SECRET.encode() not in packet[15]
    assert counts == {"sent": 1}
    hep.close()


async def test_what_we_send_goes_the_other_way(collector: Collector) -> None:
    hep = await sender(collector.port, Counter())
    hep.tell("c1", seen(sender="us", receiver="carrier", protocol="tls"))
    packet = collector.packet()
    assert [str(ip_address(packet[n])) for n in (3, 4)] == ["198.51.100.1", "192.0.2.7"]
    assert packet[2] == b"\x06"
    hep.tell("c1", seen(host="2001:db8::7"))
    packet = collector.packet()
    assert (packet[1], str(ip_address(packet[5]))) == (b"\x0a", "2001:db8::7")
    hep.close()


async def test_a_browsers_http_and_what_cannot_be_read_are_not_told(collector: Collector) -> None:
    counts: Counter[str] = Counter()
    hep = await sender(collector.port, counts)
    hep.tell("c1", seen(protocol="http"))
    hep.tell("c1", WireMessage(1.0, "caller", "us", "udp", "12 bytes", "12 bytes", "192.0.2.7", 1))
    assert counts == {}
    hep.close()


async def test_what_cannot_be_told_is_counted_and_nobody_waits() -> None:
    counts: Counter[str] = Counter()
    hep = await sender(9, counts, "nowhere.invalid")
    hep.tell("c1", seen())
    assert counts == {"lost": 1}
    full = await sender(9, counts)
    for _ in range(2_000):  # nobody listens there, which the kernel says of every other packet
        full.tell("c1", seen())
    assert counts["lost"] > 1
    assert sum(counts.values()) == 2_001
    full.tell("c1", seen(host="not an address"))
    assert sum(counts.values()) == 2_002
    hep.close()
    full.close()


def test_the_setting_names_a_host_and_a_port() -> None:
    for written in ("homer.example:9060", "[::1]:9060", "192.0.2.1:1"):
        assert Settings(hep=written).hep == written
    for wrong in ("homer.example", "udp://x:9060", "x:0", "x:70000", "a b:1", ":9060", "x:९"):
        with pytest.raises(ValueError, match="HOST:PORT"):
            Settings(hep=wrong)
