"""What a thief does to sound is what its name says."""

import numpy as np
import pytest
import soxr

from benchmarks.watermark import thefts
from watermark.envelope import chip_network
from watermark.envelope.cells import BANDS
from watermark.keys import BOTH_LAYERS, MarkKey
from watermark.whiten import NARROW_HZ

RATE_HZ = 24_000


@pytest.fixture
def noise() -> np.ndarray:
    """2 s at 24 kHz, of a telephone's band."""
    narrow = 0.1 * np.random.default_rng(3).standard_normal(2 * NARROW_HZ)
    return np.asarray(soxr.resample(narrow, NARROW_HZ, RATE_HZ), np.float32)


def test_bands_add_up_to_the_sound(noise: np.ndarray) -> None:
    bands = thefts.bands_of(noise, RATE_HZ)
    assert bands.shape == (BANDS + 1, len(noise))
    assert np.allclose(bands.sum(axis=0), noise, atol=1e-5)
    assert np.allclose(thefts.levelled(bands, RATE_HZ, np.zeros((BANDS, 401))), noise, atol=1e-5)


def test_a_swell_is_taken_out_of_the_envelope(noise: np.ndarray) -> None:
    time_s = np.arange(len(noise)) / RATE_HZ
    swollen = (noise * 10 ** (0.2 * np.sin(2 * np.pi * 15 * time_s))).astype(np.float32)
    flat = thefts.flattened(6.0, 12.0, 20.0)(swollen, RATE_HZ, np.random.default_rng(0))

    def swell(sound: np.ndarray) -> float:
        levels = thefts.levels_db(thefts.bands_of(sound, RATE_HZ), RATE_HZ)
        at = np.arange(levels.shape[1]) * thefts.STEP_S
        return float(np.abs(levels @ np.exp(-2j * np.pi * 15 * at)).mean() * 2 / len(at))

    assert swell(swollen) > 3
    assert swell(flat) < swell(swollen) / 3


@pytest.mark.parametrize(
    "theft",
    [
        thefts.random_walk(0.001, 2.0), thefts.swung(0.001, 3.0), thefts.pieces(0.02, 0.3, 1.0),
        thefts.there_and_back(0.02), thefts.dropped_and_doubled(40), thefts.random_gains(4.0, 5.0, 20.0),
        thefts.redrawn(12.0), thefts.marked_again(1), thefts.unlearnt(4.0, 1),
    ],
)  # fmt: skip
def test_a_theft_keeps_the_sound_about_as_long_and_as_loud(theft: thefts.Theft, noise: np.ndarray) -> None:
    stolen = theft(noise, RATE_HZ, np.random.default_rng(1))
    assert len(stolen) == pytest.approx(len(noise), rel=0.01)
    assert np.isfinite(stolen).all()
    assert np.std(stolen) == pytest.approx(np.std(noise), rel=0.3)
    assert not np.allclose(stolen[: len(noise)], noise[: len(stolen)], atol=1e-3)


def test_what_the_network_hears_it_no_longer_hears() -> None:
    """The network's own words, without any key, are enough to take them back."""
    rng = np.random.default_rng(5)
    key = MarkKey("wm-0001", 1, bytes(32), BOTH_LAYERS, 2.0)
    pink = np.fft.irfft(
        np.fft.rfft(rng.standard_normal(4 * RATE_HZ)) / np.sqrt(1 + np.arange(2 * RATE_HZ + 1))
    )
    marked = thefts.mark_calls(key, [1 << 48], (pink / np.abs(pink).max()).astype(np.float32))[0]
    stolen = thefts.unlearnt(4.0, 1)(marked, RATE_HZ, rng)
    before, after = (float(np.square(chip_network.soft(each[::3])).sum()) for each in (marked, stolen))
    assert after < 0.7 * before
