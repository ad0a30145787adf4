"""Where a registered telephone is (RFC 3261 §10): what the edge knows, SQL keeps and a command shows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """One Contact of one user. Times are seconds since the epoch; texts are bounded by the registrar."""

    user: str
    key: str
    """tells it from the user's others: a hash of instance and reg-id (RFC 5626 §6), else of the Contact"""
    contact: str
    """the Contact's URI as it came; requests bear it and never go to its host"""
    instance: str = ""
    """`+sip.instance`, "" without one"""
    reg_id: int = 0
    """0: not registered by RFC 5626"""
    q: str = ""
    """its Contact's preference, as it came"""
    path: tuple[str, ...] = ()
    """Path lines (RFC 3327) as they came; requests bear them as Route"""
    call_id_hash: str
    """of the REGISTER's Call-ID"""
    cseq: int
    transport: str
    """with `host` and `port` the flow that it registered by, as the edge saw it"""
    host: str
    port: int
    source: str
    """the telephone's address, also behind a trusted proxy"""
    user_agent: str = ""
    registered_at: float
    expires_at: float
    lost_at: float | None = None
    """since when its connection is gone, so that nobody reaches it; None: not known to be"""

    @property
    def flow(self) -> tuple[str, str, int]:
        """Transport, host and port."""
        return self.transport, self.host, self.port


def hash_of(*parts: str) -> str:
    """32 hexadecimal digits for texts of any length."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
