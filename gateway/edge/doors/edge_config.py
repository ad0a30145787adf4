"""What an edge is told when it starts."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

from gateway.config.certificate import Trust, asking
from gateway.edge.dialogs.wire_tap import OnWire
from gateway.edge.doors.attestation import SignedCalls
from gateway.edge.doors.digest import HashOf, MayOmitQop
from gateway.edge.doors.srtp_policy import SrtpPolicy
from gateway.edge.grammar.sdp import FOUR, SIX
from gateway.edge.grammar.speech_notice import SpeechNotice


@dataclass(frozen=True, slots=True)
class EdgeConfig:
    """Addresses and rules. `route_key` signs what we put into dialogs, `boot_token` what lines get."""

    host: str
    port: int
    """UDP and TCP; 0: any, the same for both"""
    boot_token: str
    route_key: bytes
    public_address: str | None = None
    tls_port: int = 0
    """0: any"""
    tls: ssl.SSLContext | None = None
    """what SIP over TLS shows; None: there is none"""
    tls_asking: Callable[[str], ssl.SSLContext | None] | None = None
    """makes what is shown where trunks are known by certificates of these authorities (PEM)"""
    client_authorities: Set[str] = frozenset()
    """SHA-256 fingerprints of those of which each peer but a trunk needs a certificate; empty: none"""
    trust: Trust = asking
    """makes what servers are checked by that we connect to"""
    web_ports: Mapping[str, int] = field(default_factory=dict)
    """by "ws" and "wss": where browsers reach us"""
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    """addresses or networks"""
    signed: SignedCalls | None = None
    """judges what callers' networks signed; None: nobody does, and calls have no attestation"""
    invites_per_s: float = 20.0
    """per source"""
    emergency: tuple[str, ...] = ()
    """numbers for which help is called"""
    loopback_port_file: Path | None = None
    """remembers where lines reach us, for the next edge; None: an edge's calls lose it when it ends"""
    digest: str = "md5"
    """a key of `digest.ALGORITHMS`"""
    ha1: HashOf | None = None
    """None: callers need no password"""
    may_omit_qop: MayOmitQop | None = None
    """whose telephone may log in by RFC 2069; None: nobody's"""
    phones: HashOf | None = None
    """hashes of those who may register a telephone, who always need their password; None: nobody may"""
    least_registered_s: int = 60
    most_registered_s: int = 3600
    qualify_s: float = 0.0
    """how often telephones are asked whether they are there; 0: never"""
    notice: SpeechNotice | None = None
    """what answers say of the voice, for machines; None: nothing"""
    srtp: SrtpPolicy = field(default_factory=SrtpPolicy)
    on_wire: OnWire | None = None
    """hears of each message of a call; None: nobody does"""

    @property
    def families(self) -> Set[str]:
        """Over which of IPv4 and IPv6 sound may go: those that `host` is of."""
        if self.host == "::":
            return FOUR | SIX
        return SIX if ":" in self.host else FOUR
