"""The address at which others reach this gateway, for what it says of itself."""

from __future__ import annotations

import socket
from typing import Final

from gateway.config.settings import Settings

LOOPBACK: Final = "127.0.0.1"
ELSEWHERE: Final = "192.0.2.1"
"""An address that is nobody's (RFC 5737): the way to it is the way to everybody."""
ELSEWHERE_SIX: Final = "2001:db8::1"
"""The same of IPv6 (RFC 3849)."""


def reached_at(settings: Settings) -> str:
    """The address that a telephone dials."""
    if settings.public_address:
        return settings.public_address
    if settings.host not in ("0.0.0.0", "::"):  # noqa: S104 - compared only
        return settings.host
    address = seen_from(ELSEWHERE)
    if settings.host == "::" and address == LOOPBACK:  # a machine of IPv6 alone
        return seen_from(ELSEWHERE_SIX)
    return address


def in_url(address: str) -> str:
    """A host as it stands in a URL: an IPv6 address in brackets (RFC 3986 §3.2.2)."""
    return f"[{address}]" if ":" in address else address


def seen_from(peer: str) -> str:
    """The address of ours that `peer`, an IP address without brackets, would see.

    It is the loopback where there is no way to `peer`. The kernel is asked, and nothing is sent.
    """
    family = socket.AF_INET6 if ":" in peer else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((peer, 9))
            return str(probe.getsockname()[0])
        except OSError:
            return LOOPBACK
