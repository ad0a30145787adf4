import numpy as np

from watermark import carrier, rows
from watermark.align import Aligned
from watermark.carrier import DATA
from watermark.keys import MarkKey


def test_the_row_is_heard_whatever_its_bits_say(key: MarkKey) -> None:
    rng = np.random.default_rng(5)
    places = 77 + np.arange(600)
    bits = rng.choice(np.float32([-1, 1]), carrier.CODED_BITS)
    chips = carrier.data_chips(key, 700, places) * bits[carrier.bit_of_tile(places)]
    noise = rng.standard_normal((2, *chips.shape))
    tiles = np.zeros((600, carrier.BINS), np.complex64)
    tiles[:, DATA] = chips + 14 * (noise[0] + 1j * noise[1])
    (first, energy), (_, other) = rows.likely(
        key, Aligned(places, tiles, places / 100, 0.0, 0.0, 0.0), part=1
    )
    assert first == 700
    assert energy > other + 30


def test_a_payload_knows_its_laps(key: MarkKey) -> None:
    assert rows.lap(key, 5, carrier.row(key, 5, 2)) == 2
    taken = {carrier.row(key, 5, lap) for lap in range(carrier.LAPS)}
    assert rows.lap(key, 5, next(row for row in range(carrier.ROWS) if row not in taken)) is None
