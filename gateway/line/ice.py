"""Which addresses a web line answers at, and which of a browser's it believes.

The line is the reachable side: a browser's checks come to the candidates in our answer, and where they come
from is learnt from them (peer-reflexive, RFC 8445 §7.3.1.3). So nothing here needs STUN, nor multicast DNS to
resolve the `.local` names behind which browsers hide their addresses, nor a network beyond loopback.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import aioice.ice
import ifaddr

MOST_CANDIDATES: Final = 16
"""Addresses of an offer that we send checks to; more is no browser."""
CONSENT_FAILURES: Final = 3
"""Unanswered consent checks (every 5 s) before a browser counts as gone; aioice waits for 6."""

_CANDIDATE = re.compile(
    r"a=candidate:\S+ \d+ (?P<transport>\S+) \d+ (?P<host>\S+) (?P<port>\d+) typ (?P<type>\S+)"
)


def bind(host: str) -> None:
    """Makes this process's ICE agents bind `host` only, or every interface for 0.0.0.0 and ::.

    aioice has no such setting and always leaves 127.0.0.1 out.
    """
    addresses = _addresses(host)
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: list(addresses)
    aioice.ice.CONSENT_FAILURES = CONSENT_FAILURES


def _addresses(host: str) -> list[str]:
    if host == "localhost":
        return ["127.0.0.1"]
    if host not in ("0.0.0.0", "::"):  # noqa: S104 - compared only
        return [host]
    found = {ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips if isinstance(ip.ip, str)}
    return sorted(found | {"127.0.0.1"})


def offered(sdp: str) -> str:
    """A browser's offer with only the candidates worth a check, and without its end of candidates.

    `.local` names would cost a second of multicast DNS each; an end of candidates makes aioice give up
    before the browser's own checks have arrived.
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
        kept.append(line)
    return "\r\n".join(kept)


def _is_address(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return not (address.is_multicast or address.is_unspecified)


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
        ):
            head, _ = line.split(" typ ", 1)
            head = head.replace(f" {found['host']} ", f" {public_address} ").replace(
                "candidate:", "candidate:p", 1
            )
            lines.append(f"{head} typ srflx raddr {found['host']} rport {found['port']}")
    return "\r\n".join(lines)
