"""A browser of aiortc, as the page is one: a microphone of a given sound, an ear, and the data channel."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.codecs.opus import TIME_BASE
from aiortc.mediastreams import MediaStreamTrack
from av.packet import Packet

from gateway.line import opus
from gateway.line.jitter import PullKind
from tests.gateway.line.line_harness import FRAME, Sound, silence


class Microphone(MediaStreamTrack):
    """Opus packets of a sound, every 20 ms."""

    kind = "audio"

    def __init__(self, sound: Sound) -> None:
        super().__init__()
        self._sound = sound
        self._encoder = opus.OpusEncoder()
        self._n = 0
        self._from: float | None = None

    async def recv(self) -> Packet[Any]:
        now = asyncio.get_running_loop().time()
        self._from = now if self._from is None else self._from
        await asyncio.sleep(max(0.0, self._from + 0.02 * self._n - now))
        packet: Packet[Any] = Packet(self._encoder.encode(self._sound(self._n) or bytes(2 * FRAME)))
        packet.pts, packet.time_base = self._n * FRAME, TIME_BASE
        self._n += 1
        return packet


class Browser:
    """A peer as the page is: one audio section, one channel "events"."""

    def __init__(self, sound: Sound = silence) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.connection.addTrack(Microphone(sound))
        self.channel = self.connection.createDataChannel("events")
        self.shown: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.opened, self.closed, self.connected = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.channel.on("message", lambda text: self.shown.put_nowait(json.loads(text)))
        self.channel.on("open", self.opened.set)
        self.connection.on("connectionstatechange", self._changed)

    def _changed(self) -> None:
        if self.connection.connectionState == "connected":
            self.connected.set()
        if self.connection.connectionState in ("closed", "failed"):
            self.closed.set()

    async def offer(self) -> str:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return self.connection.localDescription.sdp

    async def accept(self, answer: str) -> None:
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        async with asyncio.timeout(5):
            await self.connected.wait()

    def vanish(self) -> None:
        """Is gone without a word, as a browser that was killed, or behind a cable that was cut."""
        ice: Any = self.connection.getReceivers()[0].transport.transport._connection
        for protocol in ice._protocols:
            protocol.datagram_received = lambda data, addr: None
            protocol.transport.sendto = lambda data, addr: None

    async def hears(self, seconds: float) -> bytes:
        """What came, decoded, for so long."""
        receiver = self.connection.getReceivers()[0]
        jitter = receiver._RTCRtpReceiver__jitter_buffer  # type: ignore[attr-defined]
        decoder = opus.OpusDecoder()
        out = bytearray()
        async with asyncio.timeout(seconds + 5):
            while len(out) < seconds * 2 * 48_000:
                await asyncio.sleep(0.01)
                while (pulled := jitter.pull()).kind is PullKind.PLAY:
                    out += decoder.decode(pulled.payload)
        return bytes(out)

    async def says(self, **message: Any) -> None:
        async with asyncio.timeout(5):
            await self.opened.wait()
        self.channel.send(json.dumps(message))

    async def is_shown(self, kind: str) -> dict[str, Any]:
        async with asyncio.timeout(5):
            while (event := await self.shown.get())["kind"] != kind:
                pass
        return event
