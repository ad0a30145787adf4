"""What a real Chromium plays of marked speech that comes over a bad network: its own NetEq, recorded.

    python -m benchmarks.watermark.chromium_calls --clips 2            # two excerpts of each voice, real time

The speech goes out as a web line sends it (Opus, 20 ms), by WebRTC on the loopback; packets come late in
bursts and some never, by the same law as for the stand-in (`jitter_buffer.delays_s`). The browser's track is
read as it would be heard, and kept under benchmarks/out/watermark/chromium, named by what was sent. What
NetEq did to it (samples that were taken out, put in, concealed) is kept beside it, from the browser's own
counters. The row `NetEq (Chromium)` hears these recordings; it makes none.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import soxr
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.codecs.opus import TIME_BASE
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtp import is_rtcp
from av.packet import Packet
from playwright.async_api import Page, Route, async_playwright

from benchmarks.watermark import hosts
from benchmarks.watermark.adapters import ROOT, SpeechMark, marks
from benchmarks.watermark.channels import own_chance
from benchmarks.watermark.host_speech import RATE_HZ
from benchmarks.watermark.jitter_buffer import delays_s
from gateway.line import opus
from watermark.pcm import float_from_int16, int16_from_float

FOLDER: Final = "chromium"
OPUS_HZ: Final = 48_000
PACKET: Final = 960
AT_ONCE: Final = 6
"""Calls of one browser at the same time."""
SETTLED_S: Final = 1.0
"""Silence before the speech, in which the call is set up and the buffer finds its target."""
NAMED_S: Final = 10.0
"""A recording is named by so much of what was sent."""
FLAGS: Final = (
    "--allow-loopback-in-peer-connection",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
    "--no-sandbox",
)
URL: Final = "http://localhost/"
RECORDER: Final = """
async (wanted) => {
  const samples = wanted.samples, parts = [];
  const peer = new RTCPeerConnection();
  const done = new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error("the sound ended early")), 1000 * wanted.within_s);
    peer.ontrack = async ({ track }) => {
      const audio = new Audio();
      audio.srcObject = new MediaStream([track]);
      audio.volume = 0.01;
      await audio.play();
      const reader = new MediaStreamTrackProcessor({ track }).readable.getReader();
      let count = 0, rate = 0;
      while (count < samples) {
        const { value } = await reader.read();
        const part = new Float32Array(value.numberOfFrames);
        value.copyTo(part, { planeIndex: 0, format: "f32-planar" });
        rate = value.sampleRate;
        value.close();
        parts.push(part);
        count += part.length;
      }
      const stats = [...(await peer.getStats()).values()].find((one) => one.type === "inbound-rtp");
      const sound = new Float32Array(count);
      let at = 0;
      for (const part of parts) { sound.set(part, at); at += part.length; }
      const bytes = new Uint8Array(sound.buffer);
      let text = "";
      for (let from = 0; from < bytes.length; from += 10000)
        text += String.fromCharCode(...bytes.subarray(from, from + 10000));
      resolve({ rate, sound: btoa(text), stats });
    };
  });
  await peer.setRemoteDescription({ type: "offer", sdp: wanted.offer });
  await peer.setLocalDescription(await peer.createAnswer());
  await window.answered(wanted.number, peer.localDescription.sdp);
  const heard = await done;
  peer.close();
  return heard;
}
"""
KEPT_STATS: Final = (
    "packetsReceived", "packetsLost", "packetsDiscarded", "concealedSamples", "silentConcealedSamples",
    "insertedSamplesForDeceleration", "removedSamplesForAcceleration", "totalSamplesReceived",
)  # fmt: skip


def name_of(marked: np.ndarray) -> str:
    """What the recording of this sound's beginning is called, by the sound."""
    begin = np.ascontiguousarray(int16_from_float(marked[: round(NAMED_S * RATE_HZ)]))
    return hashlib.sha256(begin.tobytes()).hexdigest()[:24]


def recorded(marked: np.ndarray, rate_hz: int, folder: Path) -> tuple[np.ndarray, int] | None:
    """What Chromium played of a sound, float32 and its rate; None where so much of it was not recorded."""
    path = folder / FOLDER / f"{name_of(marked)}.npz"
    if not path.exists():
        return None
    with np.load(path) as kept:
        if len(marked) > float(kept["seconds"]) * rate_hz:
            return None
        return float_from_int16(kept["sound"]), int(kept["rate_hz"])


class _Speaker(MediaStreamTrack):
    """Opus packets of a sound, every 20 ms, behind `SETTLED_S` of silence."""

    kind = "audio"

    def __init__(self, sound: np.ndarray) -> None:
        super().__init__()
        high = np.asarray(soxr.resample(sound, RATE_HZ, OPUS_HZ), np.float32)
        quiet = np.zeros(round(SETTLED_S * OPUS_HZ), np.float32)
        self._pcm = int16_from_float(np.concatenate((quiet, high)))
        self._encoder = opus.OpusEncoder()
        self._n = 0
        self._from: float | None = None

    async def recv(self) -> Packet[Any]:
        """The next packet, when it is due."""
        now = asyncio.get_running_loop().time()
        self._from = now if self._from is None else self._from
        await asyncio.sleep(max(0.0, self._from + 0.02 * self._n - now))
        pcm = self._pcm[self._n * PACKET : (self._n + 1) * PACKET]
        packet: Packet[Any] = Packet(self._encoder.encode(np.pad(pcm, (0, PACKET - len(pcm))).tobytes()))
        packet.pts, packet.time_base = self._n * PACKET, TIME_BASE
        self._n += 1
        return packet


def _impair(connection: RTCPeerConnection, sound: np.ndarray) -> None:
    """Its packets come as late as `delays_s` says, or never."""
    late = delays_s(len(sound) * 50 // RATE_HZ + 500, own_chance(sound)).tolist()
    transport: Any = connection.getSenders()[0].transport
    send = transport._send_rtp
    counted, under_way = 0, set[asyncio.Task[None]]()

    async def later(data: bytes, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        with suppress(ConnectionError):  # the call is over
            await send(data)

    async def impaired(data: bytes) -> None:
        nonlocal counted
        if is_rtcp(data):
            await send(data)
            return
        delay_s = late[counted % len(late)]
        counted += 1
        if math.isfinite(delay_s):
            task = asyncio.create_task(later(data, delay_s))
            under_way.add(task)
            task.add_done_callback(under_way.discard)

    transport._send_rtp = impaired


class Recorder:
    """A browser's page that is called."""

    def __init__(self, page: Page, folder: Path) -> None:
        self._page, self._folder = page, folder
        self._answers: dict[int, asyncio.Future[str]] = {}
        self._calls = 0

    async def open(self) -> None:
        """The page is there. Its place counts as safe, as the track's reader demands."""

        async def empty(route: Route) -> None:
            await route.fulfill(body="<!doctype html><title>recorder</title>", content_type="text/html")

        await self._page.route(URL, empty)
        await self._page.goto(URL)
        await self._page.expose_function("answered", self._answered)

    def _answered(self, number: int, sdp: str) -> None:
        self._answers[number].set_result(sdp)

    async def record(self, sent: np.ndarray) -> dict[str, int]:
        """One call in real time; what NetEq counted. The recording is kept."""
        seconds = len(sent) / RATE_HZ
        self._calls += 1
        number = self._calls
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        connection.addTrack(_Speaker(sent))
        _impair(connection, sent)
        try:
            await connection.setLocalDescription(await connection.createOffer())
            wanted = {
                "offer": connection.localDescription.sdp,
                "number": number,
                "samples": round((seconds + SETTLED_S + 0.5) * OPUS_HZ),
                "within_s": 3 * seconds,
            }
            heard = asyncio.create_task(self._page.evaluate(RECORDER, wanted))
            await asyncio.wait({heard, answer}, return_when=asyncio.FIRST_COMPLETED)
            if heard.done():
                heard.result()  # why there was no answer
            await connection.setRemoteDescription(RTCSessionDescription(await answer, "answer"))
            found = await heard
        finally:
            await connection.close()
        stats = {name: int(found["stats"].get(name, 0)) for name in KEPT_STATS}
        path = self._folder / FOLDER / f"{name_of(sent)}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        # the silence in front is taken off by a fixed time: where the speech lies is for detectors to find
        sound = int16_from_float(np.frombuffer(base64.b64decode(found["sound"]), np.float32))
        begin = round((SETTLED_S - 0.2) * found["rate"])
        np.savez_compressed(
            path, sound=sound[begin:], rate_hz=found["rate"], seconds=seconds, stats=json.dumps(stats)
        )
        return stats


async def record_all(wanted: Iterable[tuple[str, np.ndarray]], folder: Path, chromium: str) -> None:
    """Records these sounds, `AT_ONCE` at a time."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            recorder = Recorder(await browser.new_page(), folder)
            await recorder.open()
            free = asyncio.Semaphore(AT_ONCE)

            async def one(label: str, marked: np.ndarray) -> None:
                async with free:
                    try:
                        click.echo(f"{label}: {json.dumps(await recorder.record(marked))}", err=True)
                    except (ConnectionError, MediaStreamError, TimeoutError) as error:
                        click.echo(f"{label}: not recorded: {error}", err=True)

            await asyncio.gather(*(one(*each) for each in wanted))
        finally:
            await browser.close()


def _unrecorded(
    clips: int, compared: list[SpeechMark], folder: Path
) -> Iterable[list[tuple[str, np.ndarray]]]:
    for some in hosts.rounds(clips, folder / "speech"):
        missing = []
        for host in some:
            for mark in compared:
                marked = mark.marked(host)[: max(mark.lengths_s) * RATE_HZ]
                if recorded(marked, RATE_HZ, folder) is None:
                    missing.append((f"{host.name}, {mark.name}", marked))
        if missing:
            yield missing


@click.command()
@click.option("--clips", type=click.IntRange(1, hosts.CLIPS), default=2, show_default=True)
@click.option("--mark", "chosen", multiple=True, default=["both layers, 2"], show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "benchmarks" / "out" / "watermark")
def main(clips: int, chosen: tuple[str, ...], out: Path) -> None:
    """Records what was not recorded yet; a run that was killed goes on."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("chromium is not installed: apt-get install chromium")
    compared = [mark for mark in marks() if mark.name.startswith(chosen) and mark.missing() is None]
    for missing in _unrecorded(clips, compared, out):
        asyncio.run(record_all(missing, out, chromium))


if __name__ == "__main__":
    main()
