"""What a line for telephones is told when it is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from gateway.config import bcg729
from gateway.config.runtime import Runtime
from gateway.rtp.described_audio import CodecName

PORTS_A_CALL: Final = 4
"""A call has two (RTP and RTCP); as many again rest, so that a port is not at once another call's."""

RATES: Final[Mapping[str, int]] = {"narrow": 8000, "wide": 16000}
CODECS: Final[Mapping[str, tuple[CodecName, ...]]] = {
    "narrow": ("PCMU", "PCMA", "G729") if bcg729.library() is not None else ("PCMU", "PCMA"),
    "wide": ("OPUS", "G722", "PCMU", "PCMA"),
}
"""The best liked first."""


@dataclass(frozen=True, slots=True)
class LinePlan:
    """What a line is, and what it takes."""

    name: str
    kind: Literal["narrow", "wide"]
    hall: str
    """Name of the hall that owns the line's calls."""
    runtime: Runtime
    token: str = field(repr=False)
    """The boot's token: opens the house's sockets and signs the edge's INVITEs."""
    capacity: int
    """Calls it takes."""
    process: str = ""
    """What dies when the line does; empty: it is alone there."""
    sip_port: int = 0
    """UDP port on 127.0.0.1; 0: an ephemeral one, told in hello."""
    rtp_port: int = 0
    """First of its `PORTS_A_CALL` for each call; 0: a random block."""
    media_address: str = "127.0.0.1"
    """Local address RTP binds; empty: all of IPv4; "::": all, of IPv6 too. The edge rewrites what the SDP
    says."""
    rtp_timeout_s: float = 0.0
    """A caller from whom nothing came for so long is gone; 0: never."""

    @property
    def rate_hz(self) -> int:
        return RATES[self.kind]
