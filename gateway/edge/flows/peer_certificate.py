"""The certificate that a peer showed: which names it bears, and which authorities stand behind it.

Only a handshake proves who a peer is. A session that is resumed shows no chain, so it says nothing.
"""

from __future__ import annotations

import hashlib
import re
import ssl
import time
from dataclasses import dataclass
from typing import Any, Final

_SIP_DOMAIN: Final = re.compile(r"sips?:([a-z0-9.-]+)")


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """One that the handshake has verified. Fingerprints are SHA-256, in small hexadecimal digits."""

    fingerprint: str
    chain: frozenset[str]
    """fingerprints of it and of all above it, as far as it was verified"""
    names: frozenset[str]
    """host names and SIP URIs, in small letters"""
    until: float
    """when it ends, in seconds since 1970"""

    @property
    def ended(self) -> bool:
        """Whether it has ended since the handshake."""
        return time.time() >= self.until

    @property
    def domains(self) -> frozenset[str]:
        """Which domains it speaks for (RFC 5922 §7.1): its SIP URIs without a user, else its host names.

        A `*` stands for nothing (§7.2).
        """
        uris = [name for name in self.names if name.startswith(("sip:", "sips:"))]
        found = (_SIP_DOMAIN.fullmatch(uri) for uri in uris)
        return frozenset(one[1] for one in found if one is not None) if uris else self.names


def certificate_of(secured: ssl.SSLObject | None) -> PeerCertificate | None:
    """What the peer of a finished handshake showed; None where it showed nothing that was verified."""
    shown: Any = None if secured is None else secured.getpeercert()
    if secured is None or not shown:
        return None
    chain = _verified_chain(secured)
    if not chain:
        return None  # a resumed session
    prints = [hashlib.sha256(one).hexdigest() for one in chain]
    names = (str(value).lower() for kind, value in shown.get("subjectAltName", ()) if kind in ("DNS", "URI"))
    until = ssl.cert_time_to_seconds(str(shown["notAfter"]))
    return PeerCertificate(prints[0], frozenset(prints), frozenset(names), until)


def _verified_chain(secured: Any) -> list[bytes]:
    """DER, the peer's own first."""
    if hasattr(secured, "get_verified_chain"):  # Python 3.13
        return list(secured.get_verified_chain())
    inner = getattr(secured, "_sslobj", None)
    chain = None if inner is None or inner.session_reused else inner.get_verified_chain()
    return [ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in chain or ()]
