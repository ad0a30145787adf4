"""Where a trunk's servers are now: names looked up, in the operator's order, and which of them answer.

Names are looked up by `look_up` alone, at the start and each minute: no call waits for DNS. What was found
last holds until something else is found.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from gateway.edge.trunks.trunk import Transport, Trunk, TrunkHost

LOOK_UP_S: Final = 5.0
"""What one name may take."""
MOST_WAYS: Final = 16


@dataclass(frozen=True, slots=True)
class TrunkWay:
    """One address of a trunk. `name` is what its certificate must say, `trunk` the trunk's."""

    transport: Transport
    host: str
    port: int
    name: str = ""
    trunk: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.transport}:{host}:{self.port}"


Records = Callable[[str], Awaitable[list[tuple[int, int, str, int]]]]
"""A name's SRV records (RFC 2782): priority, weight, target, port. Raises `OSError`."""
Addresses = Callable[[str], Awaitable[list[str]]]
"""A name's IP addresses. Raises `OSError`."""


async def srv_records(name: str) -> list[tuple[int, int, str, int]]:
    """From DNS; none where there are none. Raises `OSError` when nobody answers."""
    import dns.asyncresolver
    import dns.exception
    import dns.resolver

    try:
        found = await dns.asyncresolver.resolve(name, "SRV", lifetime=LOOK_UP_S)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return []
    except dns.exception.DNSException as error:
        raise OSError(f"{name}: {type(error).__name__}") from None
    return [(one.priority, one.weight, str(one.target).rstrip("."), one.port) for one in found]


async def addresses(name: str) -> list[str]:
    """From the system: its file of hosts, then DNS. Raises `OSError`."""
    async with asyncio.timeout(LOOK_UP_S):
        found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_DGRAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


class TrunkWays:
    """One trunk's."""

    def __init__(self, trunk: Trunk, records: Records = srv_records, resolve: Addresses = addresses) -> None:
        self.trunk = trunk
        self.unknown: dict[str, str] = {}
        """names that could not be looked up the last time, and why"""
        self.down: dict[TrunkWay, str] = {}
        """ways that did not answer the last time, and why"""
        self._records = records
        self._resolve = resolve
        self._networks = tuple(ipaddress.ip_network(one, strict=False) for one in trunk.networks)
        self._found: dict[TrunkHost, tuple[TrunkWay, ...]] = {}
        for host in trunk.hosts:
            if host.address is not None:
                self._found[host] = (self._way(host.address, host.port or trunk.default_port, host.name),)

    def _way(self, address: str, port: int, name: str) -> TrunkWay:
        return TrunkWay(self.trunk.transport, address, port, name, self.trunk.name)

    async def look_up(self) -> None:
        """Finds where the names are now. Never raises: what cannot be found is kept, and noted."""
        for host in self.trunk.hosts:
            if host.address is not None:
                continue
            try:
                ways = await self._ways_of(host)
            except (OSError, TimeoutError) as error:
                self.unknown[host.name] = str(error) or "DNS does not answer"
            else:
                self.unknown.pop(host.name, None)
                self._found[host] = tuple(ways[:MOST_WAYS])
        known = set(self.all)
        self.down = {way: why for way, why in self.down.items() if way in known}

    async def _ways_of(self, host: TrunkHost) -> list[TrunkWay]:
        """RFC 3263 §4.2, without NAPTR: a trunk's transport is the operator's to say."""
        trunk = self.trunk
        places = [(host.name, host.port or trunk.default_port)]
        if host.port is None:
            service = "_sips._tcp" if trunk.transport == "tls" else f"_sip._{trunk.transport}"
            records = await self._records(f"{service}.{host.name}")
            places = [(target, port) for _, _, target, port in sorted(records, key=_order)] or places
        ways: list[TrunkWay] = []
        for name, port in places[:MOST_WAYS]:
            ways += [self._way(address, port, host.name) for address in await self._resolve(name)]
        return ways

    @property
    def all(self) -> tuple[TrunkWay, ...]:
        """In the operator's order."""
        return tuple(dict.fromkeys(way for host in self.trunk.hosts for way in self._found.get(host, ())))

    @property
    def in_order(self) -> tuple[TrunkWay, ...]:
        """Those that answer first; one that does not is still tried when no other is left."""
        return tuple(sorted(self.all, key=lambda way: way in self.down))

    def note(self, way: TrunkWay, why: str | None) -> None:
        """What became of the last request there; None: it answered."""
        if why is None:
            self.down.pop(way, None)
        elif way in self.all:
            self.down[way] = why

    def owns(self, host: str) -> bool:
        """Whether an address is one of the trunk's."""
        return any(way.host == host for way in self.all) or self._in_networks(host.partition("%")[0])

    def way_to(self, host: str, port: int | None) -> TrunkWay | None:
        """The trunk's way to a place that it names itself (a 302, a Contact); None: that is not its own."""
        address = host.strip("[]")
        for way in self.all:
            if address in (way.host, way.name) and port in (None, way.port):
                return way
        if any(way.host == address for way in self.all) or self._in_networks(address):
            return self._way(address, port or self.trunk.default_port, address)
        return None

    def _in_networks(self, address: str) -> bool:
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._networks)


def _order(record: tuple[int, int, str, int]) -> tuple[int, float]:
    """Lower priority first; among equals by chance, the weightier more often (RFC 2782)."""
    priority, weight, _, _ = record
    return priority, -(random.random() ** (1 / (weight or 0.01)))  # noqa: S311  # a share of load, no secret
