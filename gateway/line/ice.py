"""Which addresses a web line answers at, and whose packets it takes.

The line is the reachable side: a browser's checks come to the candidates in our answer, and where they come
from is learnt from them (peer-reflexive, RFC 8445 §7.3.1.3). So nothing here needs STUN, nor multicast DNS to
resolve the `.local` names behind which browsers hide their addresses, nor a network beyond loopback.
"""

from __future__ import annotations

import ipaddress
import re
import time
from typing import Any, Final

import aioice.ice
import aioice.stun
import ifaddr

_DEFAULT = re.compile(r"(?P<head>c=|a=rtcp:\d+ )IN IP[46] (?P<host>\S+).*")
MOST_CANDIDATES: Final = 16
"""Addresses of an offer that we send checks to; more is not a browser."""
ADDRESSES_FOR_S: Final = 1.0
"""How long an address that is not this machine's stays so, whoever sends."""
CONSENT_FAILURES: Final = 3
"""Unanswered consent checks (every 5 s) before a browser counts as gone; aioice waits for 6."""

_CANDIDATE = re.compile(
    r"a=candidate:\S+ \d+ (?P<transport>\S+) \d+ (?P<host>\S+) (?P<port>\d+) typ (?P<type>\S+)"
)


class OwnAddresses:
    """This machine's addresses. They change while it runs: a laptop goes to another network."""

    def __init__(self) -> None:
        self._known: frozenset[str] = frozenset()
        self._read_at = 0.0

    def read(self, *, both: bool = False) -> list[str]:
        """The IPv4 addresses of every interface, loopback's among them; where there are no others, or `both`
        families are wanted, what IPv6 addresses can be reached beyond one link."""
        ips = [ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips]
        self._known = frozenset(ip if isinstance(ip, str) else ip[0] for ip in ips)
        self._read_at = time.monotonic()
        fourth = sorted(ip for ip in self._known if ":" not in ip and not ip.startswith("127."))
        sixth = sorted(ip for ip in self._known if ":" in ip and ip != "::1" and not ip.startswith("fe80:"))
        if both and fourth and sixth:
            half = (MOST_CANDIDATES - 1) // 2
            return ["127.0.0.1", *fourth[:half], *sixth[:half]]
        return ["127.0.0.1", *(fourth or sixth)[: MOST_CANDIDATES - 1]]

    def hold(self, address: str) -> bool:
        """Whether a packet from this address was sent on this machine: a kernel lets nobody else use one of
        its own. Asked for each packet; the interfaces are asked only for an unknown one, now and then."""
        if address in self._known or address.startswith("127."):
            return True
        if time.monotonic() - self._read_at < ADDRESSES_FOR_S:
            return False
        self.read()
        return address in self._known


class OwnMachineOnly(aioice.ice.StunProtocol):
    """A candidate's socket that knows this machine alone. STUN, DTLS and RTP all come by it; DTLS and RTP go
    only to where a check was answered from."""

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        if own.hold(addr[0]):
            super().datagram_received(data, addr)

    def send_stun(self, message: aioice.stun.Message, addr: tuple[str, int]) -> None:
        if own.hold(addr[0]):
            super().send_stun(message, addr)


own: Final = OwnAddresses()
_ANY_MACHINE: Final = aioice.ice.StunProtocol


def bind(host: str) -> list[str]:
    """Makes this process's ICE agents answer at `host`; returns the addresses that this means now.

    Bound to loopback they answer at every address of this machine, and only to this machine: Firefox offers
    no loopback candidates, and reaches none. For 0.0.0.0 it is every interface's IPv4, for :: also its IPv6.
    aioice has no such setting, and always leaves 127.0.0.1 out.
    """
    loopback = is_loopback(host)
    everywhere = loopback or host in ("0.0.0.0", "::")  # noqa: S104 - compared only
    first = [host] if loopback and host != "localhost" else []
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: (
        list(dict.fromkeys([*first, *own.read(both=host == "::")])) if everywhere else [host]
    )
    aioice.ice.StunProtocol = OwnMachineOnly if loopback else _ANY_MACHINE  # type: ignore[misc]  # no setting
    aioice.ice.CONSENT_FAILURES = CONSENT_FAILURES
    return aioice.ice.get_host_addresses(True, True)


def reaches_beyond(address: str) -> bool:
    """Whether an address is more than loopback's."""
    return not ipaddress.ip_address(address).is_loopback


def is_loopback(host: str) -> bool:
    """Whether a host to bind reaches this machine alone."""
    return host in ("127.0.0.1", "::1", "localhost")


def offered(sdp: str) -> str:
    """A browser's offer with only the candidates worth a check, and without its end of candidates.

    `.local` names would cost a second of multicast DNS each; an end of candidates makes aioice give up
    before the browser's own checks have arrived. Firefox names such a host in `c=` and `a=rtcp`, too, where
    aiortc can write down an address alone; with ICE nobody sends there.
    """
    kept: list[str] = []
    candidates = 0
    for line in sdp.replace("\r\n", "\n").split("\n"):
        if line.startswith("a=end-of-candidates"):
            continue
        if line.startswith("a=candidate:"):
            found = _CANDIDATE.match(line)
            if found is None or found["transport"].lower() != "udp" or not _is_address(found["host"]):
                continue
            candidates += 1
            if candidates > MOST_CANDIDATES:
                continue
        named = _DEFAULT.fullmatch(line)
        if named is not None and not _is_address(named["host"].partition("/")[0]):
            line = f"{named['head']}IN IP4 0.0.0.0"
        kept.append(line)
    return "\r\n".join(kept)


def _is_address(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return not (address.is_multicast or address.is_unspecified)


def _same_family(host: str, public: str) -> bool:
    """Whether a NAT may have mapped one to the other; a public name may be of either."""
    return not _is_address(public) or (":" in host) == (":" in public)


def answered(sdp: str, public_address: str | None) -> str:
    """Our answer, each candidate also under `public_address` (a NAT that forwards ports one to one)."""
    if public_address is None:
        return sdp
    lines: list[str] = []
    for line in sdp.split("\r\n"):
        lines.append(line)
        found = _CANDIDATE.match(line)
        if (
            found is not None
            and found["type"] == "host"
            and not ipaddress.ip_address(found["host"]).is_loopback
            and _same_family(found["host"], public_address)
        ):
            head, _ = line.split(" typ ", 1)
            head = head.replace(f" {found['host']} ", f" {public_address} ").replace(
                "candidate:", "candidate:p", 1
            )
            lines.append(f"{head} typ srflx raddr {found['host']} rport {found['port']}")
    return "\r\n".join(lines)
