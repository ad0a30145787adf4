"""What a call remembers for another engine."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from gateway.hall.dialogue import memory
from gateway.hall.dialogue.memory import Memory
from model import events


def tone(seconds: float) -> np.ndarray:
    at = np.arange(round(seconds * 24_000)) / 24_000
    return (0.5 * np.sin(2 * np.pi * 440 * at)).astype(np.float32)


@pytest.mark.parametrize("line_hz", [8_000, 16_000, 48_000])
def test_the_callers_sound_comes_back_as_it_was(line_hz: int) -> None:
    item = memory.sound(tone(2.0), line_hz)
    part = memory.for_engine(item)["content"][0]
    assert part.keys() == {"type", "audio"}, "the contract knows no more"
    heard = events.pcm_from_base64(part["audio"])
    assert len(heard) == pytest.approx(48_000, abs=2)
    middle = slice(4_000, 44_000)
    assert np.abs(heard[: len(tone(2.0))] - tone(2.0))[middle].max() < 0.01


def test_it_is_kept_at_the_lines_rate() -> None:
    part = memory.sound(tone(2.0), 8_000)["content"][0]
    assert part["rate_hz"] == 8_000
    assert len(base64.b64decode(part["audio"])) == pytest.approx(2 * 16_000, abs=4)


def test_of_a_long_utterance_the_end_is_kept() -> None:
    sound = np.concatenate([np.zeros(24_000 * 30, np.float32), tone(15.0)])
    heard = events.pcm_from_base64(memory.for_engine(memory.sound(sound, 8_000))["content"][0]["audio"])
    assert len(heard) / 24_000 == pytest.approx(15.0, abs=0.01)
    assert np.abs(heard[:2_000]).max() > 0.1


def test_the_oldest_go_when_it_is_too_much() -> None:
    kept = Memory()
    assert not kept
    for number in range(100):
        kept.add(memory.words("user", f"{number}"))
    texts = [item["content"][0]["text"] for item in kept.for_engine()]
    assert texts == [str(number) for number in range(36, 100)]
    for _ in range(20):
        kept.add(memory.sound(tone(15.0), 16_000))
    assert sum(len(part["audio"]) for item in kept.for_engine() for part in item["content"]) < 8 << 20
    kept.add(memory.words("assistant", "the last"))
    assert kept.for_engine()[-1]["content"][0]["text"] == "the last"
