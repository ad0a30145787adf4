import numpy as np
import pytest

from watermark import sync
from watermark.keys import MarkKey


def test_peaks_are_the_highest_that_keep_their_distance() -> None:
    score = np.random.default_rng(1).standard_normal(5_000).astype(np.float32)
    at, best = sync._peaks(score, 20, apart=3)
    alone = [n for n in range(5_000) if score[n] == score[max(0, n - 3) : n + 4].max()]
    assert at.tolist() == sorted(alone, key=lambda n: -score[n])[:20]
    assert np.array_equal(best, score[at])


@pytest.mark.parametrize("skew", [0.0, 100e-6, -150e-6])
def test_a_faint_pilot_is_found_among_a_thousand_places_whatever_its_clock(skew: float, key: MarkKey) -> None:
    rng = np.random.default_rng(2)
    line = sync._line(key)
    lags = rng.integers(0, len(line) - 8_000, 1_000)
    heard = line[lags[700] :][:8_000] * np.exp(2j * np.pi * sync.CENTRE_HZ * skew * np.arange(8_000) / 800)
    noise = rng.standard_normal((2, 8_000)).astype(np.float32)
    base = (heard + 40 * (noise[0] + 1j * noise[1])).astype(np.complex64)
    (first, power), *others = sync._coherent(line, base, lags, 24)
    assert first == lags[700]
    assert power > 1.5 * others[0][1]
