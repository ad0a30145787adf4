"""Changing rates and hearing speech, batched."""

from __future__ import annotations

import wave

import numpy as np
import pytest

from gateway.hall.media.audio import VAD_HZ, VAD_WINDOW, VoiceActivity
from gateway.rtp.media.rate_changer import FILTER_DELAY_S, RateChanger
from tests.needs import need_sounds
from watermark.pcm import float_from_bytes

PAIRS = [
    (8_000, 24_000),
    (16_000, 24_000),
    (48_000, 24_000),
    (24_000, 8_000),
    (24_000, 16_000),
    (24_000, 48_000),
]


def tone(hz: float, rate_hz: int, frames: int = 50) -> np.ndarray:
    n = round(rate_hz * 0.02) * frames
    return np.sin(2 * np.pi * hz * np.arange(n) / rate_hz).astype(np.float32)


def stream(changer: RateChanger, sound: np.ndarray, frame: int, row: int = 0) -> np.ndarray:
    rows = np.array([row])
    return np.concatenate(
        [changer.change(rows, sound[None, at : at + frame])[0] for at in range(0, len(sound), frame)]
    )


@pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)
@pytest.mark.parametrize("hz", [300, 1000, 3000])
def test_a_tone_arrives_whole_and_exactly_three_ms_later(from_hz: int, to_hz: int, hz: int) -> None:
    out = stream(RateChanger(from_hz, to_hz, 1), tone(hz, from_hz), round(from_hz * 0.02))
    expected = np.sin(2 * np.pi * hz * (np.arange(len(out)) / to_hz - FILTER_DELAY_S))
    error = out[to_hz // 10 :] - expected[to_hz // 10 :]
    assert 10 * np.log10(0.5 / np.mean(error**2)) > 60
    assert FILTER_DELAY_S <= 0.005


@pytest.mark.parametrize(("from_hz", "to_hz"), [(24_000, 8_000), (24_000, 16_000), (48_000, 24_000)])
def test_what_the_lower_rate_cannot_carry_is_gone(from_hz: int, to_hz: int) -> None:
    out = stream(RateChanger(from_hz, to_hz, 1), tone(to_hz * 0.58, from_hz), round(from_hz * 0.02))
    assert 20 * np.log10(np.std(out[to_hz // 10 :]) / np.sqrt(0.5)) < -60


def test_changes_of_the_same_rates_share_one_filter_that_nobody_can_write() -> None:
    one, other = (RateChanger(48_000, 24_000, count) for count in (1, 4))
    assert one._kernel is other._kernel
    assert not one._kernel.flags.writeable
    assert RateChanger(24_000, 48_000, 1)._kernel is not one._kernel


def test_rows_do_not_touch_each_other() -> None:
    rng = np.random.default_rng(1)
    both = RateChanger(8_000, 24_000, 4)
    alone = RateChanger(8_000, 24_000, 4)
    a, b = rng.standard_normal((2, 160 * 6)).astype(np.float32)
    for at in range(0, len(a), 160):
        together = both.change(np.array([2, 0]), np.stack([a[at : at + 160], b[at : at + 160]]))
        by_itself = alone.change(np.array([2]), a[None, at : at + 160])
        np.testing.assert_allclose(together[0], by_itself[0], atol=1e-5)


def test_silero_hears_a_person_and_not_silence_or_noise() -> None:
    with wave.open(str(need_sounds() / "cannot-complete-as-dialed.wav")) as file:
        speech = float_from_bytes(file.readframes(1 << 20))
    noise = np.random.default_rng(0).standard_normal(len(speech)).astype(np.float32) * 0.02
    vad = VoiceActivity(3)
    rows = np.arange(3)
    judged: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for at in range(0, len(speech) - 160, 160):
        block = np.stack([speech[at : at + 160], noise[at : at + 160], np.zeros(160, np.float32)])
        for row, p in vad.judge(rows, block).items():
            judged[row].append(p)
    assert len(judged[0]) == pytest.approx(len(speech) / VAD_WINDOW, abs=2)
    assert np.mean(judged[0]) > 0.7
    assert max(judged[1]) < 0.5
    assert max(judged[2]) < 0.5
    assert VAD_WINDOW / VAD_HZ == 0.032


def test_what_was_passed_by_is_made_afterwards_as_it_would_have_been() -> None:
    sound = np.random.default_rng(1).standard_normal((20, 160)).astype(np.float32)
    heard, passed, row = RateChanger(8_000, 24_000, 2), RateChanger(8_000, 24_000, 2), np.array([1])
    made = np.stack([heard.change(row, frame[None])[0] for frame in sound])
    for frame in sound[:18]:
        passed.pass_by(row, frame[None])
    np.testing.assert_allclose(passed.again(sound[2:18]), made[3:18], atol=1e-5)
    np.testing.assert_allclose(passed.change(row, sound[None, 18])[0], made[18], atol=1e-5)
