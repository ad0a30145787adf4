"""Every audible word of a real call is marked, and the mark finds the call: from what the caller recorded."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.caller import place_call
from tests.e2e.house import House, free_port
from tests.needs import need_sounds
from watermark.detect import detect
from watermark.keys import KeyRing
from watermark.sound import read

pytestmark = pytest.mark.e2e

Say = Callable[[str], Path]
WINDOW_S = 10


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
    said = subprocess.run(command, env=house.environ, capture_output=True, text=True, timeout=120)
    return said.returncode, json.loads(said.stdout)


def ask(port: int, sound: bytes) -> dict[str, str]:
    """What the public detector says."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/detect", data=sound, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return dict(json.loads(answer.read()))


@pytest.mark.parametrize("codec", ["pcmu", "g722"])
def test_no_ten_seconds_of_speech_are_unmarked_and_the_recording_names_its_call(
    marked_house: tuple[House, int], say: Say, tmp_path: Path, codec: str
) -> None:
    house, port = marked_house
    record = tmp_path / "heard.wav"
    script = [say("what are your opening hours"), say("where are you")]
    report = place_call(house.uri, script=script, record=record, codec=codec)
    assert report.answered, report.ended
    call = max(house.calls(), key=lambda one: float(one["started_at"]))

    recording = read(record)
    sound, rate_hz = recording.channels[0], recording.rate_hz
    frames = sound[: len(sound) // (rate_hz // 50) * (rate_hz // 50)].reshape(-1, rate_hz // 50)
    voiced = frames[np.sqrt((frames**2).mean(axis=1)) > 0.003]
    assert len(voiced) * 0.02 > 1.2 * WINDOW_S, "disclosure, greeting, two answers"

    status, found = trace(house, record)
    assert status == 0
    assert found["call"]["call_id"] == call["call_id"]
    assert found["call"]["voice"] == "heart"
    assert found["evidence"]["unbroken"] is True

    ring = KeyRing.load(house.folder / "data" / "watermark-keys.json")
    payload = int(found["mark"]["payload"], 16)
    for start in range(0, max(1, len(sound) // rate_hz - WINDOW_S + 1), 2):
        window = sound[start * rate_hz : (start + WINDOW_S) * rate_hz]
        loud = np.abs(window).max() > 0.02
        if loud:
            verdict = detect(window, rate_hz, ring, payloads=[payload])
            assert verdict.detected, f"{start} s to {start + WINDOW_S} s: p = {verdict.p_value}"

    assert ask(port, record.read_bytes()) == {"answer": "yes"}


def test_a_human_is_not_ours_and_rubbish_is_an_error(marked_house: tuple[House, int], tmp_path: Path) -> None:
    house, port = marked_house
    human = need_sounds() / "demo-abouttotry.wav"
    status, found = trace(house, human)
    assert (status, found) == (1, {"ours": False})
    assert ask(port, human.read_bytes())["answer"] in ("no", "unsure")
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(port, b"rubbish")
    assert 400 <= refused.value.code < 500
