"""A WebRTC call's cost, and how soon it greets: `python -m benchmarks.web [--calls 1,4,8] [--seconds 20]`.

A web line in a process of its own; this process is its hall, its front, and the browsers (aiortc, sending
prepared packets, decoding nothing). Both sides talk all the time: human prompts where they are installed
(Debian: asterisk-core-sounds-en-wav), else noise with a speech-like envelope. Printed: the line's CPU-seconds
per call-second, its memory, ticks that came late, and packets' spacing as a browser sees it. Then a whole
gateway is called a few times, one after the other: from DTLS being up to the first packet with sound in it.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import statistics
import sys
import tempfile
from array import array
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import click
import httpx
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.codecs.opus import TIME_BASE
from aiortc.mediastreams import MediaStreamTrack
from av.packet import Packet

from benchmarks.house_meter import cpu_s, pss_mb
from gateway.config.runtime import Runtime
from gateway.ipc.line_messages import CallConfirmed
from gateway.line import opus, webcall
from tests.e2e.gateway_process import House
from tests.gateway.line.line_harness import FRAME, TOKEN, FakeFront, FakeHall

PROMPTS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
LOUD = 300
"""Peak of a frame (of 32,768) from which it counts as sound."""


def speech(seconds: float) -> list[bytes]:
    """20 ms frames at 48 kHz."""
    pcm = bytearray()
    wanted = int(seconds * 2 * opus.RATE_HZ)
    for path in sorted(PROMPTS.glob("*.wav"), key=lambda path: -path.stat().st_size)[:20]:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=opus.RATE_HZ)
        with av.open(str(path)) as file:
            for frame in file.decode(audio=0):
                for out in resampler.resample(frame):
                    pcm += bytes(out.planes[0])[: 2 * out.samples]
        if len(pcm) > wanted:
            break
    if not pcm:
        print(f"no prompts in {PROMPTS}: noise with a speech-like envelope instead")
        chance = random.Random(1)
        samples = (int(9000 * chance.gauss(0, 0.3) * abs(math.sin(k / 9000))) for k in range(wanted // 2))
        pcm += array("h", samples).tobytes()
    return [bytes(pcm[k : k + 2 * FRAME]) for k in range(0, len(pcm) - 2 * FRAME, 2 * FRAME)]


class Prepared(MediaStreamTrack):
    """Packets made beforehand, one every 20 ms."""

    kind = "audio"

    def __init__(self, packets: list[bytes], offset: int) -> None:
        super().__init__()
        self._packets, self._n, self._offset = packets, 0, offset
        self._from = 0.0

    async def recv(self) -> Packet[Any]:
        now = asyncio.get_running_loop().time()
        if not self._n:
            self._from = now
        await asyncio.sleep(max(0.0, self._from + 0.02 * self._n - now))
        packet: Packet[Any] = Packet(self._packets[(self._n + self._offset) % len(self._packets)])
        packet.pts, packet.time_base = self._n * FRAME, TIME_BASE
        self._n += 1
        return packet


class WebCaller:
    def __init__(self, packets: list[bytes], offset: int) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.connection.addTrack(Prepared(packets, offset))
        self.connection.createDataChannel("events")
        self.arrivals: list[float] = []
        self.connected_at: float | None = None
        self.heard_at: float | None = None
        self.heard = asyncio.Event()
        self._decoder = opus.OpusDecoder()
        self.connection.on("connectionstatechange", self._moved)

    def _moved(self) -> None:
        if self.connection.connectionState == "connected" and self.connected_at is None:
            self.connected_at = asyncio.get_running_loop().time()

    def _listen(self, payload: bytes, now: float) -> None:
        if (
            self.heard_at is None
            and max(map(abs, memoryview(self._decoder.decode(payload)).cast("h"))) > LOUD
        ):
            self.heard_at = now
            self.heard.set()

    async def call(self, place: Callable[[str], Awaitable[str]]) -> None:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        answer = await place(self.connection.localDescription.sdp)
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        buffer = self.connection.getReceivers()[0]._RTCRtpReceiver__jitter_buffer  # type: ignore[attr-defined]
        now = asyncio.get_running_loop().time

        def add(packet: Any) -> tuple[bool, None]:
            self.arrivals.append(now())
            self._listen(packet.payload, self.arrivals[-1])
            return False, None

        buffer.add = add


async def measure(calls: int, seconds: float, sound: list[bytes], packets: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        runtime = Runtime(Path(folder))
        hall = await FakeHall(runtime, sound=lambda n: sound[n % len(sound)]).start()
        hall.keep = False
        front = await FakeFront(runtime).start()
        line = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway.line.web", "--name", "web0", "--hall", "hall0",
            "--runtime", folder,
            env={**os.environ, "VOICEGATE_BOOT_TOKEN": TOKEN, "VOICEGATE_LOG_LEVEL": "warning"},
        )  # fmt: skip
        await front.line_up.wait()
        await hall.line_up.wait()
        empty = pss_mb(line.pid)
        callers = [WebCaller(packets, 137 * k) for k in range(calls)]
        for k, caller in enumerate(callers):
            await caller.call(partial(front.offer, f"c{k}"))
            await hall.hears(CallConfirmed)
        await asyncio.sleep(2)
        for caller in callers:
            caller.arrivals.clear()
        before, began = cpu_s(line.pid), asyncio.get_running_loop().time()
        await asyncio.sleep(seconds)
        spent = cpu_s(line.pid) - before
        lasted = asyncio.get_running_loop().time() - began
        gaps = sorted(b - a for caller in callers for a, b in pairwise(caller.arrivals))
        print(
            f"{calls} calls: {100 * spent / lasted / calls:.2f} % of a core per call, "
            f"{pss_mb(line.pid):.0f} MB ({(pss_mb(line.pid) - empty) / calls:.1f} a call); "
            f"packets {len(gaps) / calls / lasted:.1f}/s, apart p50 {1000 * statistics.median(gaps):.1f} "
            f"p99 {1000 * gaps[int(0.99 * len(gaps))]:.1f} ms, over 40 ms: {sum(g > 0.04 for g in gaps)}"
        )
        for caller in callers:
            await caller.connection.close()
        line.terminate()
        await line.wait()
        await front.stop()
        await hall.stop()


async def greet(times: int, packets: list[bytes]) -> None:
    """From DTLS up to the first sound of a whole gateway's greeting."""
    with tempfile.TemporaryDirectory() as folder:
        house = House(Path(folder), sip_lines=0)
        await asyncio.to_thread(house.start)
        took = []
        try:
            shown = {"Origin": house.url, **house.bearer}
            async with httpx.AsyncClient(base_url=house.url, headers=shown) as http:

                async def place(offer: str) -> str:
                    headers = {"Content-Type": "application/sdp"}
                    answer = await http.post("/api/call", content=offer, headers=headers)
                    answer.raise_for_status()
                    return answer.text

                for _ in range(times):
                    caller = WebCaller([packets[-1]], 0)
                    await caller.call(place)
                    async with asyncio.timeout(5):
                        await caller.heard.wait()
                    assert caller.heard_at is not None
                    assert caller.connected_at is not None
                    took.append(1000 * (caller.heard_at - caller.connected_at))
                    await caller.connection.close()
        finally:
            await asyncio.to_thread(house.stop)
    took.sort()
    print(f"greeting after DTLS, {times} calls: p50 {statistics.median(took):.0f} ms, most {took[-1]:.0f} ms")


@click.command()
@click.option("--calls", default="1,4,8", show_default=True)
@click.option("--seconds", default=20.0, show_default=True)
def main(calls: str, seconds: float) -> None:
    """CPU of one web line; the greeting's delay of a whole gateway."""
    webcall.prepare("127.0.0.1")
    sound = speech(60.0)
    encoder = opus.OpusEncoder(32_000, 5, 10)  # as a browser encodes: speech, with FEC
    packets = [encoder.encode(frame) for frame in sound]

    async def run() -> None:
        for count in calls.split(","):
            await measure(int(count), seconds, sound, packets)
        await greet(10, packets)

    asyncio.run(run())


if __name__ == "__main__":
    main()
