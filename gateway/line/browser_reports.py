"""What RTCP says of a browser's call, by aiortc: how its sound comes here, and ours there."""

from __future__ import annotations

from aiortc import RTCRtpTransceiver
from aiortc.stats import RTCInboundRtpStreamStats, RTCRemoteInboundRtpStreamStats

from gateway.ipc.line_messages import FarReception
from gateway.line.opus import RATE_HZ


class BrowserReports:
    """As `read` found them last."""

    def __init__(self) -> None:
        self.jitter_ms: float | None = None
        """of the browser's sound"""
        self.round_trip_ms: float | None = None
        self.share_lost = 0.0
        """of our packets, between the browser's last two reports"""
        self.far: FarReception | None = None

    async def read(self, audio: RTCRtpTransceiver) -> None:
        """Looks at what there is by now."""
        for came in (await audio.receiver.getStats()).values():
            if isinstance(came, RTCInboundRtpStreamStats):
                self.jitter_ms = _ms(came.jitter)
        for told in (await audio.sender.getStats()).values():
            if not isinstance(told, RTCRemoteInboundRtpStreamStats):
                continue
            self.share_lost = told.fractionLost / 256
            self.far = FarReception(
                told.packetsReceived + told.packetsLost, max(0, told.packetsLost), _ms(told.jitter)
            )
            if told.roundTripTime is not None:
                self.round_trip_ms = round(max(0.0, told.roundTripTime) * 1000, 1)


def _ms(units: int) -> float:
    """A jitter as RTCP has it, in units of the RTP clock."""
    return round(units * 1000 / RATE_HZ, 1)
