"""`voicegate trace`: by the recording alone, and where it names no call, by the registry."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from consent.proof.evidence import PAYLOAD_MASK
from gateway.cli.calls import trace_command as cli_trace
from gateway.cli.main import cli
from gateway.config.settings import load
from gateway.store.registry import CallRow, Registry
from watermark import sound
from watermark.detect import NOTHING, Detection
from watermark.keys import KeyRing
from watermark.payload import call_payload

OURS = Detection(True, 1e-9, 9.0, key_id="wm-beef", ln_p=-20.0)


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
    ring = KeyRing.create(own_house / "watermark-keys.json")
    registry = Registry.open(load().sql)
    for number, name in enumerate("abc", 1):
        whole = call_payload(ring.current, name)
        registry.enter(
            CallRow(
                call_id=name, payload=whole & PAYLOAD_MASK, payload_whole=whole, route="demo", voice="heart",
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


def payload_of(clip: Path, call: str) -> int:
    return call_payload(KeyRing.load(clip.parent / "watermark-keys.json").current, call)


def named(clip: Path, call: str) -> Detection:
    """The mark of one of the three calls, or of "x", which this gateway never had."""
    return Detection(True, 1e-9, 9.0, payload=payload_of(clip, call), key_id="wm-beef", ln_p=-20.0)


def test_a_recording_that_names_its_call_is_believed(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Detector(alone=named(clip, "b"), among=NOTHING)
    said = traced(monkeypatch, clip, detector).output
    assert "call_id      b" in said
    assert detector.asked == []


@pytest.mark.parametrize("alone", [NOTHING, OURS, "x"])
def test_else_the_call_is_sought_in_the_registry(
    alone: Detection | str, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector(named(clip, alone) if isinstance(alone, str) else alone, among=named(clip, "a"))
    result = traced(monkeypatch, clip, detector)
    assert result.exit_code == 0
    assert "call_id      a" in result.output
    assert detector.asked == [tuple(payload_of(clip, call) for call in "cba")], "the newest first"


@pytest.mark.parametrize("alone", [OURS, "x"])
def test_ours_without_a_call_is_a_broken_chain(
    alone: Detection | str, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = named(clip, alone) if isinstance(alone, str) else alone
    result = traced(monkeypatch, clip, Detector(found, among=NOTHING))
    assert "ours, but the chain is broken" in result.output
    assert "No call of this gateway has this mark's payload." in result.output


def test_what_is_not_ours_is_not_ours(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = traced(monkeypatch, clip, Detector(NOTHING, NOTHING))
    assert result.exit_code == 1
    assert "no mark of this gateway was found" in result.output


# ── somebody who can write SQL ───────────────────────────────────────────────────────────────────────────


def swap_payloads(clip: Path, one: str, other: str) -> None:
    with sqlite3.connect(clip.parent / "voicegate.db") as plain:
        columns = "payload, payload_whole"
        rows = {
            call: plain.execute(f"SELECT {columns} FROM calls WHERE call_id = ?", (call,)).fetchone()
            for call in (one, other)
        }
        plain.execute("UPDATE calls SET payload = 1, payload_whole = 1 WHERE call_id = ?", (one,))
        for call, payloads in ((other, rows[one]), (one, rows[other])):
            plain.execute(
                "UPDATE calls SET payload = ?, payload_whole = ? WHERE call_id = ?", (*payloads, call)
            )


def test_swapped_payloads_name_the_right_call_and_are_told(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark of call a led to call b, and the chain was called unbroken."""
    swap_payloads(clip, "a", "b")
    monkeypatch.setattr(cli_trace, "detect_recording", Detector(named(clip, "a"), NOTHING))
    found = json.loads(CliRunner().invoke(cli, ["trace", str(clip), "--json"]).output)
    assert found["call"]["call_id"] == "a"
    assert found["evidence"]["unbroken"] is False
    says = {link["title"]: (link["holds"], link["says"]) for link in found["evidence"]["links"]}
    assert says["Call"][0] is False
    assert "the registry has it for b" in says["Call"][1]


def test_a_payload_that_was_given_to_another_call_names_neither(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row of a is gone; b has its payload."""
    whole = payload_of(clip, "a")
    with sqlite3.connect(clip.parent / "voicegate.db") as plain:
        plain.execute("DELETE FROM calls WHERE call_id = 'a'")
        signed = whole - (1 << 64) if whole >= 1 << 63 else whole
        plain.execute(
            "UPDATE calls SET payload = ?, payload_whole = ? WHERE call_id = 'b'",
            (whole & PAYLOAD_MASK, signed),
        )
    monkeypatch.setattr(cli_trace, "detect_recording", Detector(named(clip, "a"), NOTHING))
    found = json.loads(CliRunner().invoke(cli, ["trace", str(clip), "--json"]).output)
    assert found["call"] is None
    (link,) = [link for link in found["evidence"]["links"] if link["title"] == "Call"]
    assert link["holds"] is False
    assert "for the call b" in link["says"]


def test_an_older_keys_payload_still_names_its_call(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = named(clip, "b")
    KeyRing.load(clip.parent / "watermark-keys.json").rotate(clip.parent / "watermark-keys.json")
    assert "call_id      b" in traced(monkeypatch, clip, Detector(mark, NOTHING)).output
