"""Our side's sound of a browser's call, as aiortc takes it: packets, which it need not encode."""

from __future__ import annotations

import asyncio
from typing import Any

from aiortc.codecs.opus import TIME_BASE
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av.packet import Packet


class VoiceTrack(MediaStreamTrack):
    """Our side's audio: Opus packets, as the tick makes them."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._packets: asyncio.Queue[Packet[Any]] = asyncio.Queue()

    def put(self, payload: bytes, timestamp: int) -> None:
        """Sends 20 ms of Opus, with its RTP timestamp."""
        packet: Packet[Any] = Packet(payload)
        packet.pts = timestamp
        packet.time_base = TIME_BASE
        self._packets.put_nowait(packet)

    async def recv(self) -> Packet[Any]:
        """The next packet, for aiortc. Raises `MediaStreamError` once the track is stopped."""
        if self.readyState != "live":
            raise MediaStreamError
        return await self._packets.get()
