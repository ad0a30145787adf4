"""Where a trunk's names lead: SRV records in their order, addresses kept while DNS is away."""

from __future__ import annotations

from gateway.edge.trunks.trunk import Trunk, TrunkHost
from gateway.edge.trunks.trunk_ways import TrunkWays


class Dns:
    """Answers from two tables; `away` nobody answers."""

    def __init__(self) -> None:
        self.records: dict[str, list[tuple[int, int, str, int]]] = {}
        self.hosts: dict[str, list[str]] = {}
        self.away = False

    async def srv(self, name: str) -> list[tuple[int, int, str, int]]:
        if self.away:
            raise OSError("nobody answers")
        return self.records.get(name, [])

    async def addresses(self, name: str) -> list[str]:
        if self.away or name not in self.hosts:
            raise OSError(f"no address of {name}")
        return self.hosts[name]


def ways(dns: Dns, *hosts: str, transport: str = "udp", networks: tuple[str, ...] = ()) -> TrunkWays:
    read = tuple(TrunkHost.read(host) for host in hosts)
    trunk = Trunk(name="t", hosts=read, transport=transport, networks=networks)  # type: ignore[arg-type]
    return TrunkWays(trunk, dns.srv, dns.addresses)


async def test_records_are_followed_in_their_order() -> None:
    dns = Dns()
    dns.records["_sips._tcp.example.com"] = [(20, 0, "b.example.com", 5071), (10, 0, "a.example.com", 5061)]
    dns.hosts = {"a.example.com": ["192.0.2.1", "192.0.2.2"], "b.example.com": ["192.0.2.3"]}
    found = ways(dns, "example.com", transport="tls")
    await found.look_up()
    assert [str(way) for way in found.all] == [
        "tls:192.0.2.1:5061",
        "tls:192.0.2.2:5061",
        "tls:192.0.2.3:5071",
    ]
    assert {way.name for way in found.all} == {"example.com"}, (
        "the certificate is for whom the operator named"
    )


async def test_without_records_the_name_itself_is_looked_up_and_a_port_asks_for_no_records() -> None:
    dns = Dns()
    dns.hosts["example.com"] = ["192.0.2.1"]
    found = ways(dns, "example.com", "example.com:5070", "192.0.2.9")
    await found.look_up()
    assert [way.port for way in found.all] == [5060, 5070, 5060]


async def test_what_was_found_holds_while_dns_is_away() -> None:
    dns = Dns()
    dns.hosts["example.com"] = ["192.0.2.1"]
    found = ways(dns, "example.com")
    await found.look_up()
    dns.away = True
    await found.look_up()
    assert [way.host for way in found.all] == ["192.0.2.1"]
    assert "example.com" in found.unknown


async def test_who_does_not_answer_is_tried_last() -> None:
    found = ways(Dns(), "192.0.2.1", "192.0.2.2")
    first, second = found.all
    found.note(first, "it does not answer")
    assert found.in_order == (second, first)
    found.note(first, None)
    assert found.in_order == (first, second)


def test_what_belongs_to_a_trunk() -> None:
    found = ways(Dns(), "192.0.2.1", networks=("198.51.100.0/24",))
    assert found.owns("192.0.2.1")
    assert found.owns("198.51.100.200")
    assert not found.owns("203.0.113.1")
    assert found.way_to("192.0.2.1", None) == found.all[0]
    assert found.way_to("evil.example.com", None) is None
    assert found.way_to("203.0.113.1", 5060) is None
