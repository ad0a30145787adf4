"""Whether what is said to an address stays between two ends."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_local(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_safe(url: str) -> bool:
    """TLS, or this machine only."""
    parts = urlsplit(url)
    return parts.scheme in ("https", "wss") or is_local(parts.hostname or "")
