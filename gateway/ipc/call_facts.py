"""Who calls whom: what the edge (or the page) knows of a call, and everybody after it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallFacts:
    """Written by whoever took the call in, and by nobody else."""

    caller: str
    """URI of From; "web" for a browser."""
    called: str
    """The Request-URI, or what was dialled on the page."""
    display: str
    source: str
    """The caller's address, as we or a trusted proxy saw it."""
    transport: str
    """udp, tcp, tls or webrtc."""
    user: str | None = None
    """Who logged in; None where no password is asked."""
    trunk: str | None = None
    """By which trunk it came."""
    headers: dict[str, str] | None = None
    """What a trusted peer says of the call, by header in small letters: printable, short, few
    (`gateway.edge.grammar.peer_headers`). From anybody else `attestation` alone, where calls' signatures are
    judged (`gateway.edge.doors.attestation`), or None."""
    sip_call_id: str = ""
    """The caller's own Call-ID (RFC 3261 §20.8); empty for a browser that calls by WHIP."""
