"""What is behind a caller has the level that was asked for."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from gateway.cli.caller.caller_sound import LEVEL_DB, active_level_db, at_level, background, pink, spoken
from gateway.errors import CallerError
from watermark.pcm import Floats, bytes_from_float

HZ = 8_000


def level_db(sound: Floats) -> float:
    return float(10 * np.log10(np.mean(sound.astype(np.float64) ** 2)))


def wav(path: Path, sound: Floats) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, HZ, 0, "NONE", ""))
        file.writeframes(bytes_from_float(sound))
    return path


def test_pauses_do_not_count_toward_a_callers_level() -> None:
    said = pink(-20.0, 1, 1.0, HZ)
    assert active_level_db([said], HZ) == pytest.approx(-20, abs=0.1)
    paused = np.concatenate([said, np.zeros(5 * HZ, np.float32), said])
    assert active_level_db([paused], HZ) == pytest.approx(-20, abs=0.2)
    assert active_level_db([np.zeros(HZ, np.float32)], HZ) == active_level_db([], HZ) == LEVEL_DB


@pytest.mark.parametrize("rate_hz", [8_000, 16_000])
def test_noise_lies_so_many_decibels_below_what_is_said(rate_hz: int) -> None:
    assert level_db(background(None, 15.0, -20.0, 1, rate_hz)) == pytest.approx(-35, abs=0.01)


def test_a_seed_is_the_same_noise() -> None:
    one, again = (pink(-40, 3, 1.0, HZ) for _ in range(2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, pink(-40, 4, 1.0, HZ))


def test_a_file_may_be_the_noise_but_not_a_silent_one(tmp_path: Path) -> None:
    hum = np.sin(2 * np.pi * 100 * np.arange(HZ) / HZ).astype(np.float32) / 2
    noise = background(wav(tmp_path / "hum.wav", hum), 10.0, -26.0, 1, HZ)
    assert level_db(noise) == pytest.approx(-36, abs=0.01)
    assert np.argmax(np.abs(np.fft.rfft(noise))) == 100
    with pytest.raises(CallerError, match=r"quiet\.wav is silent"):
        background(wav(tmp_path / "quiet.wav", np.zeros(HZ, np.float32)), 10.0, -26.0, 1, HZ)


def test_words_are_said_and_nothing_is_an_error() -> None:
    said = spoken("hello")
    assert said.dtype == np.float32
    assert 0.2 * HZ < len(said) < 3 * HZ
    assert level_db(at_level(said, -26.0)) == pytest.approx(-26, abs=0.01)
    with pytest.raises(CallerError, match=r"there is nothing to say in '\.\.\.'"):
        spoken("...")
