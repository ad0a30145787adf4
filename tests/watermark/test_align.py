import numpy as np
import pytest

from watermark import align, carrier
from watermark.align import Aligned
from watermark.carrier import DATA
from watermark.keys import MarkKey


@pytest.mark.parametrize(("edge_s", "offset_s"), [(80e-6, -20e-6), (-60e-6, 30e-6)])
def test_bits_that_nobody_knows_tell_the_time(edge_s: float, offset_s: float, key: MarkKey) -> None:
    rng = np.random.default_rng(3)
    places = 5_000 + np.arange(1_000)
    bits = rng.choice(np.float32([-1, 1]), carrier.CODED_BITS)
    bare = carrier.data_chips(key, 7, places)
    chips = bare * bits[carrier.bit_of_tile(places)]
    late_s = offset_s + edge_s * np.linspace(-1, 1, 1_000)
    tiles = np.zeros((1_000, carrier.BINS), np.complex64)
    noise = rng.standard_normal((2, *chips.shape))
    tiles[:, DATA] = chips * np.exp(-2j * np.pi * np.outer(late_s, align._HZ[DATA])) + 15 * (
        noise[0] + 1j * noise[1]
    )
    found = Aligned(places, tiles, places / 100, 0.0, 0.0, 0.0)

    def score(each: Aligned) -> float:
        heard = each.tiles[:, DATA]
        return float((heard * np.conj(chips)).real.sum() / np.sqrt(np.square(np.abs(heard)).sum()))

    timed, energy = align.retimed_by_bits(found, bare)
    assert score(timed) > 1.1 * score(found)
    assert energy > 1.5 * align.retimed_by_bits(found, carrier.data_chips(key, 8, places))[1]
    assert timed.at_s - found.at_s == pytest.approx(late_s, abs=25e-6)
