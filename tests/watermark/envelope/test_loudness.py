"""What the network looks at: how loud the parts of the band are."""

import numpy as np
import pytest

from watermark.envelope import loudness
from watermark.envelope.cells import BANDS, EDGES_HZ


def tone(hz: float, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * 8_000)) / 8_000).astype(np.float32)


@pytest.mark.parametrize("band", range(BANDS))
def test_a_tone_is_loudest_in_its_own_band(band: int) -> None:
    middle = (EDGES_HZ[band] * EDGES_HZ[band + 1]) ** 0.5
    powers = loudness.power(tone(middle))
    assert powers[10:-10].mean(axis=0).argmax() // 2 == band


def test_a_frame_is_centred_at_its_time() -> None:
    sound = np.zeros(8_000, np.float32)
    sound[8 * 500] = 1.0
    assert loudness.power(sound).sum(axis=1).argmax() == 50


@pytest.mark.parametrize("samples", [8_000, 8_001, 8_079, 8_080, 100])
def test_there_is_a_frame_each_10_ms_to_the_end(samples: int) -> None:
    sound = np.random.default_rng(1).standard_normal(samples).astype(np.float32)
    powers = loudness.power(sound)
    assert powers.shape == (samples // 80 + 1, loudness.SUB_BANDS)
    assert (powers > 0).all()


def test_how_loud_the_recording_is_changes_nothing() -> None:
    sound = np.random.default_rng(1).standard_normal(16_000).astype(np.float32)
    loud = loudness.inputs(loudness.power(sound))
    np.testing.assert_allclose(loudness.inputs(loudness.power(1e-3 * sound)), loud, atol=1e-3)
    np.testing.assert_allclose(loudness.inputs(loudness.power(1e3 * sound)), loud, atol=1e-3)


def test_silence_is_zero() -> None:
    assert not loudness.inputs(loudness.power(np.zeros(8_000, np.float32))).any()


def test_the_mean_around_a_frame_is_of_those_that_there_are() -> None:
    level = np.random.default_rng(2).standard_normal((3, 50)).astype(np.float32)
    mean = loudness.around(level)
    for at in (0, 7, 25, 49):
        np.testing.assert_allclose(mean[:, at], level[:, max(0, at - 15) : at + 16].mean(axis=1), atol=1e-5)


def test_a_long_sound_is_heard_as_its_parts_are() -> None:
    sound = np.random.default_rng(1).normal(0, 0.1, 3 * loudness.AT_ONCE * loudness.HOP).astype(np.float32)
    first = loudness.AT_ONCE // 2
    whole, part = loudness.power(sound), loudness.power(sound[first * loudness.HOP :])
    np.testing.assert_allclose(whole[first + 2 :], part[2:], rtol=1e-4)
