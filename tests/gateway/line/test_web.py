"""The web line against a hall and a front of this test's, called by aiortc in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.codecs.opus import TIME_BASE
from aiortc.mediastreams import MediaStreamTrack
from av.packet import Packet

from gateway.line import opus, webcall
from gateway.line.jitter import Kind
from gateway.line.tick import RECEIVING, SENDING
from gateway.line.web import WebLine
from gateway.runtime import Runtime
from tests.gateway.line.fake_hall import FRAME, TOKEN, FakeFront, FakeHall, Sound, power_at, silence, tone


class Microphone(MediaStreamTrack):
    """Opus packets of a sound, every 20 ms."""

    kind = "audio"

    def __init__(self, sound: Sound) -> None:
        super().__init__()
        self._sound = sound
        self._encoder = opus.Encoder()
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

    async def hears(self, seconds: float) -> bytes:
        """What came, decoded, for so long."""
        receiver = self.connection.getReceivers()[0]
        jitter = receiver._RTCRtpReceiver__jitter_buffer  # type: ignore[attr-defined]
        decoder = opus.Decoder()
        out = bytearray()
        async with asyncio.timeout(seconds + 5):
            while len(out) < seconds * 2 * 48_000:
                await asyncio.sleep(0.01)
                while (pulled := jitter.pull()).kind is Kind.PLAY:
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


class House:
    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.hall = FakeHall(runtime)
        self.front = FakeFront(runtime)
        self.line = WebLine("web0", "hall0", runtime, TOKEN)
        self.browsers: list[Browser] = []

    async def call(self, call_id: str = "c1", sound: Sound = silence) -> tuple[Browser, int]:
        """A call that is up; its browser and its number."""
        browser = Browser(sound)
        self.browsers.append(browser)
        answer = await self.front.offer(call_id, await browser.offer())
        started = await self.hall.hears("call.started")
        assert started["call_id"] == call_id
        assert not started["resumed"]
        await browser.accept(answer)
        confirmed = await self.hall.hears("call.confirmed")
        assert confirmed["codec"] == "opus/48000"
        return browser, int(started["call"])


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    webcall.prepare("127.0.0.1")
    house = House(Runtime(tmp_path))
    await house.hall.start()
    await house.front.start()
    running = asyncio.create_task(house.line.run())
    async with asyncio.timeout(5):
        await house.front.line_up.wait()
        await house.hall.line_up.wait()
    yield house
    for browser in house.browsers:
        await browser.connection.close()
    house.line.stop()
    async with asyncio.timeout(5):
        await running
    await house.front.stop()
    await house.hall.stop()


async def until(condition: Any, within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_sound_goes_both_ways(house: House) -> None:
    house.hall.sound = tone(440)
    browser, number = await house.call(sound=tone(1000))
    heard = await browser.hears(1.0)
    assert power_at(heard[-48_000:], 440) > 0.9
    await until(lambda: len(house.hall.heard[number]) > 2 * 48_000)
    assert power_at(bytes(house.hall.heard[number][-48_000:]), 1000) > 0.9
    assert house.hall.flags[number][-1] & SENDING
    assert house.hall.flags[number][-1] & RECEIVING
    await until(lambda: house.hall.played[number] >= 48_000)
    assert house.hall.played[number] % FRAME == 0
