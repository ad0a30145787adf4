"""What a line is told when it is forked. No pjsua2 here: who forks a line need not have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from gateway.config.runtime import Runtime

CAPACITY: Final = 4
"""PJSUA_MAX_CALLS of the wheel; more is cut silently. `voicegate doctor` counts what another one takes."""
RTP_PORTS: Final = 36
"""Ports a line may use for RTP and RTCP: room for its calls and for those whose ports are still closing."""
RTP_STRIDE: Final = 40
"""Between the blocks of two lines; more than the range + 2, which pjsua2 may step over."""

RATES: Final[Mapping[str, int]] = {"narrow": 8000, "wide": 16000}
CODECS: Final[Mapping[str, tuple[str, ...]]] = {
    "narrow": ("PCMU/8000", "PCMA/8000"),
    "wide": ("G722/16000", "PCMU/8000", "PCMA/8000"),
}


@dataclass(frozen=True, slots=True)
class LinePlan:
    """What the supervisor decides about a line."""

    name: str
    kind: Literal["narrow", "wide"]
    hall: str
    """Name of the hall that owns the line's calls."""
    runtime: Runtime
    token: str = field(repr=False)
    """The boot's token: opens the house's sockets and signs the edge's INVITEs."""
    sip_port: int = 0
    """UDP port on 127.0.0.1; 0: an ephemeral one, told in hello."""
    rtp_port: int = 0
    """First of this line's `RTP_PORTS`; 0: a random block."""
    media_address: str = "127.0.0.1"
    """Local address RTP binds; empty or 0.0.0.0: all. The edge rewrites what the SDP says."""
    public_address: str = ""
    """Address the SDP says, when it is not the bound one."""
    rtp_timeout_s: float = 0.0
    """A caller from whom nothing came for so long is gone; 0: never."""
    capacity: int = CAPACITY
    """Calls it takes."""

    @property
    def rate_hz(self) -> int:
        return RATES[self.kind]
