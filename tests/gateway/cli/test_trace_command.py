"""`voicegate trace`: by the recording alone, and where it names no call, by the registry."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from gateway.cli import trace_command as cli_trace
from gateway.cli.main import cli
from gateway.config.settings import load
from gateway.store.registry import CallRow, Registry
from watermark import sound
from watermark.detect import NOTHING, Detection
from watermark.keys import KeyRing

OURS = Detection(True, 1e-9, 9.0, key_id="wm-beef", ln_p=-20.0)
GATEWAY = 0xBEEF << 48


class Detector:
    """Answers `alone` of a recording, and `among` when it is asked for calls."""

    def __init__(self, alone: Detection, among: Detection) -> None:
        self.alone, self.among = alone, among
        self.asked: list[tuple[int, ...]] = []

    def __call__(self, *_: Any, payloads: Iterable[int] = (), speeds: bool) -> Detection:
        wanted = tuple(payloads)
        self.asked += [wanted] if wanted else []
        return self.among if wanted else self.alone


@pytest.fixture
def clip(own_house: Path) -> Path:
    """A recording beside a gateway that had three calls: a, b and c."""
    own_house.mkdir(mode=0o700)
    KeyRing.create(own_house / "watermark-keys.json")
    registry = Registry.open(load().sql)
    for number, name in enumerate("abc", 1):
        registry.enter(
            CallRow(
                call_id=name, payload=number, payload_whole=GATEWAY | number, route="demo", voice="heart",
                caller="sip:bob@192.0.2.1", called="sip:demo@192.0.2.2", source="192.0.2.1",
                started_at=1_800_000_000.0 + number,
            )
        )  # fmt: skip
    registry.close()
    path = own_house / "clip.wav"
    sound.write(path, np.zeros(16_000, np.float32), 8_000)
    return path


def traced(monkeypatch: pytest.MonkeyPatch, clip: Path, detector: Detector) -> Result:
    monkeypatch.setattr(cli_trace, "detect_recording", detector)
    return CliRunner().invoke(cli, ["trace", str(clip)])


def named(call: int) -> Detection:
    return Detection(True, 1e-9, 9.0, payload=GATEWAY | call, key_id="wm-beef", ln_p=-20.0)


def test_a_recording_that_names_its_call_is_believed(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Detector(alone=named(2), among=NOTHING)
    said = traced(monkeypatch, clip, detector).output
    assert "call_id      b" in said
    assert detector.asked == []


@pytest.mark.parametrize("alone", [NOTHING, OURS, named(77)])
def test_else_the_call_is_sought_in_the_registry(
    alone: Detection, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector(alone, among=named(1))
    result = traced(monkeypatch, clip, detector)
    assert result.exit_code == 0
    assert "call_id      a" in result.output
    assert detector.asked == [(GATEWAY | 3, GATEWAY | 2, GATEWAY | 1)], "the newest first"


@pytest.mark.parametrize("alone", [OURS, named(77)])
def test_ours_without_a_call_is_a_broken_chain(
    alone: Detection, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = traced(monkeypatch, clip, Detector(alone, among=NOTHING))
    assert "ours, but the chain is broken" in result.output
    assert "No call of this gateway has this mark's payload." in result.output


def test_what_is_not_ours_is_not_ours(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = traced(monkeypatch, clip, Detector(NOTHING, NOTHING))
    assert result.exit_code == 1
    assert "no mark of this gateway was found" in result.output
