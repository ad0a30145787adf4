import numpy as np

from watermark import carrier, code
from watermark.keys import MarkKey

KEY = MarkKey("wm-beef", 0xBEEF, bytes(range(32)))
OTHER = MarkKey("wm-beef", 0xBEEF, bytes(32))
HOPS = np.arange(2_000, dtype=np.int64)


def agreement(one: np.ndarray, two: np.ndarray) -> float:
    return float((one * np.conj(two)).real.mean() / 2)


def test_chips_are_fair_and_independent_of_place_row_and_key() -> None:
    data = carrier.data_chips(KEY, 3, HOPS)
    bound = 5 / np.sqrt(2 * data.size)
    assert set(np.unique(data.real)) == set(np.unique(data.imag)) == {-1.0, 1.0}
    assert abs(data.real.mean()) < bound * np.sqrt(2)
    for other in (
        carrier.data_chips(KEY, 4, HOPS),
        carrier.data_chips(KEY, 3, HOPS + 1),
        carrier.data_chips(OTHER, 3, HOPS),
        np.roll(data, 1, axis=1),
    ):
        assert abs(agreement(data, other)) < bound
    pilot = carrier.pilot_chips(KEY, HOPS)
    assert abs(agreement(pilot, data[:, :12])) < 5 / np.sqrt(2 * pilot.size)


def test_any_hop_can_be_drawn_alone() -> None:
    coded = code.encode(7)
    whole = carrier.call_chips(KEY, 7, coded, HOPS)
    some = carrier.call_chips(KEY, 7, coded, HOPS[700:710])
    assert np.array_equal(whole[700:710], some)


def test_the_data_of_a_second_lap_is_not_that_of_the_first() -> None:
    coded = code.encode(7)
    first = carrier.call_chips(KEY, 7, coded, HOPS)
    second = carrier.call_chips(KEY, 7, coded, HOPS + carrier.LINE_HOPS)
    assert np.array_equal(first[:, carrier.PILOT], second[:, carrier.PILOT])
    assert abs(agreement(first[:, carrier.DATA], second[:, carrier.DATA])) < 0.02


def test_every_coded_bit_is_carried_equally_and_all_over_the_band() -> None:
    tiles = carrier.bit_of_tile(np.arange(carrier.GROUP_HOPS, dtype=np.int64))
    assert np.array_equal(np.bincount(tiles.ravel()), np.full(128, 13))
    for bit in range(128):
        bins = np.sort(np.nonzero(tiles == bit)[1])
        assert np.array_equal(np.diff(bins), np.full(12, 4))


def test_entries_spread_over_the_line() -> None:
    entries = np.array([carrier.entry(KEY, payload) for payload in range(400)]) / carrier.LINE_HOPS
    assert len(set(entries)) > 395
    assert np.abs(np.histogram(entries, 4, (0, 1))[0] - 100).max() < 45


def test_of_calls_that_were_few_places_are_remembered() -> None:
    for payload in range(1_000):
        carrier.call_chips(KEY, payload, code.encode(payload), HOPS[:32])
    for remembered in (carrier.entry, carrier.row):
        assert remembered.cache_info().currsize <= carrier.REMEMBERED
