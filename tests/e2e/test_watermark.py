"""Every audible word of a real call is marked, and the mark finds the call: from what the caller recorded."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.cli.caller.caller_sound import read_wav
from gateway.cli.caller.testphone import place_call
from gateway.line import opus, webcall
from tests.e2e.gateway_process import House, free_port
from tests.gateway.line.rawbrowser import Browser
from tests.needs import HANGS_S, need_sounds
from watermark.detect import detect
from watermark.keys import KeyRing
from watermark.sound import read, write

pytestmark = pytest.mark.e2e

Say = Callable[[str], Path]
WINDOW_S = 10
SPOKEN_S = 6
"""The mark rests while nobody speaks: what is looked at is so much speech without a pause of `PAUSE_S`."""
PAUSE_S = 0.5
ASKS_AFTER_S = 11
"""The disclosure and the greeting are over by then."""
LISTENS_S = 24


@pytest.fixture(scope="module")
def marked_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, int]]:
    port = free_port()
    house = House(tmp_path_factory.mktemp("marked"), detector_port=port)
    house.start()
    try:
        yield house, port
    finally:
        house.stop()


def trace(house: House, clip: Path) -> tuple[int, dict[str, Any]]:
    """What `voicegate trace` says, and its status."""
    command = [sys.executable, "-m", "gateway.cli", "trace", str(clip), "--json"]
    said = subprocess.run(command, env=house.environ, capture_output=True, text=True, timeout=HANGS_S)
    return said.returncode, json.loads(said.stdout)


def ask(port: int, sound: bytes) -> dict[str, str]:
    """What the public detector says."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/detect", data=sound, method="POST")
    with urllib.request.urlopen(request, timeout=HANGS_S) as answer:
        return dict(json.loads(answer.read()))


def phone(house: House, script: list[Path], record: Path, codec: str) -> None:
    """A call by SIP, recorded to its end."""
    report = place_call(house.uri, script=script, record=record, codec=codec)
    assert report.answered, report.ended


async def browse(house: House, question: Path, record: Path) -> None:
    """A call from the page: every Opus packet that came, decoded and laid where its timestamp says."""
    webcall.prepare("127.0.0.1")
    asked = read_wav(question, opus.RATE_HZ).tobytes()
    begin = ASKS_AFTER_S * 50

    def microphone(frame: int) -> bytes | None:
        said = asked[(frame - begin) * 2 * opus.FRAME :][: 2 * opus.FRAME] if frame >= begin else b""
        return said if len(said) == 2 * opus.FRAME else None

    browser = Browser(microphone)
    packets: list[tuple[int, bytes]] = []
    """(samples at 48 kHz since the first packet, payload)"""
    first = -1
    enough = asyncio.Event()
    buffer = browser.connection.getReceivers()[0]._RTCRtpReceiver__jitter_buffer  # type: ignore[attr-defined]

    def tap(packet: Any) -> tuple[bool, None]:
        nonlocal first
        first = packet.timestamp if first < 0 else first
        packets.append(((packet.timestamp - first) % 2**32, packet.payload))
        if packets[-1][0] > LISTENS_S * opus.RATE_HZ:
            enough.set()
        return False, None

    buffer.add = tap
    offer = (await browser.offer()).encode()
    headers = {"Content-Type": "application/sdp", "Origin": house.url, **house.bearer}
    request = urllib.request.Request(f"{house.url}/api/call", offer, headers, method="POST")
    with await asyncio.to_thread(urllib.request.urlopen, request, timeout=HANGS_S) as answer:
        await browser.accept(answer.read().decode())
    async with asyncio.timeout(2 * LISTENS_S):
        await enough.wait()
    await browser.connection.close()

    decoder = opus.OpusDecoder()
    sound = np.zeros(LISTENS_S * opus.RATE_HZ, np.float32)
    for at, payload in sorted(packets):
        heard = np.frombuffer(decoder.decode(payload), "<i2") / np.float32(32768)
        sound[at : at + len(heard)] = heard[: max(0, len(sound) - at)]
    write(record, sound, opus.RATE_HZ)


@pytest.fixture(scope="module")
def heard(
    marked_house: tuple[House, int], say: Say, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """What three callers at once recorded, by codec."""
    house, _ = marked_house
    folder = tmp_path_factory.mktemp("heard")
    records = {codec: folder / f"{codec}.wav" for codec in ("pcmu", "g722", "opus")}
    script = [say("what are your opening hours"), say("where are you")]
    with ThreadPoolExecutor(2) as phones:
        calls = [phones.submit(phone, house, script, records[codec], codec) for codec in ("pcmu", "g722")]
        asyncio.run(browse(house, script[0], records["opus"]))
        for call in calls:
            call.result()
    return records


def voiced_frames(sound: np.ndarray, rate_hz: int) -> np.ndarray:
    """Which 20 ms hold speech."""
    frames = sound[: len(sound) // (rate_hz // 50) * (rate_hz // 50)].reshape(-1, rate_hz // 50)
    return np.asarray(np.sqrt((frames**2).mean(axis=1)) > 0.003)


def spoken_windows(voiced: np.ndarray) -> Iterator[tuple[float, float]]:
    """Start and end (s) of windows of speech, every 2 s of each stretch that has no longer pause."""
    at = np.flatnonzero(voiced) * 0.02
    for stretch in np.split(at, np.flatnonzero(np.diff(at) > PAUSE_S) + 1):
        for start_s in np.arange(stretch[0], stretch[-1] - SPOKEN_S, 2.0):
            yield float(start_s), float(min(start_s + WINDOW_S, stretch[-1] + 0.02))


@pytest.mark.long("three calls in real time, and what they recorded is searched through")
@pytest.mark.parametrize("codec", ["pcmu", "g722", "opus"])
def test_no_ten_seconds_of_speech_are_unmarked_and_the_recording_names_its_call(
    marked_house: tuple[House, int], heard: dict[str, Path], codec: str
) -> None:
    house, port = marked_house
    record = heard[codec]
    recording = read(record)
    sound, rate_hz = recording.channels[0], recording.rate_hz
    voiced = voiced_frames(sound, rate_hz)
    assert np.count_nonzero(voiced) * 0.02 > WINDOW_S, "disclosure, greeting, and what was answered"

    status, found = trace(house, record)
    assert status == 0
    events = house.get(f"/api/calls/{found['call']['call_id']}")["events"]
    (confirmed,) = [event["data"] for event in events if event["kind"] == "confirmed"]
    assert confirmed["codec"].lower().startswith(codec)
    assert found["call"]["voice"] == "heart"
    assert found["evidence"]["unbroken"] is True

    ring = KeyRing.load(house.folder / "data" / "watermark-keys.json")
    payload = int(found["mark"]["payload"], 16)
    windows = list(spoken_windows(voiced))
    assert windows[0][0] < WINDOW_S, "the disclosure is one of them"
    for start_s, end_s in windows:
        window = sound[round(start_s * rate_hz) : round(end_s * rate_hz)]
        verdict = detect(window, rate_hz, ring, payloads=[payload])
        assert verdict.detected, f"{start_s:.1f} s to {end_s:.1f} s: p = {verdict.p_value}"

    said = ask(port, record.read_bytes())
    assert (said["answer"], said["technique"]) == ("yes", "watermark")


def test_a_human_is_not_ours_and_rubbish_is_an_error(marked_house: tuple[House, int], tmp_path: Path) -> None:
    house, port = marked_house
    human = need_sounds() / "demo-abouttotry.wav"
    status, found = trace(house, human)
    assert (status, found) == (1, {"ours": False})
    assert ask(port, human.read_bytes())["answer"] in ("no", "unsure")
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(port, b"rubbish")
    assert 400 <= refused.value.code < 500
