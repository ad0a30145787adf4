import numpy as np
import pytest

from watermark.envelope.cells import (
    BANDS,
    CALL_BANDS,
    CELL_HOPS,
    CELLS_A_BLOCK,
    HALF_BANDS,
    LINE_BANDS,
    LINE_BLOCKS,
    LINE_CELLS,
    Cells,
)

CELLS = Cells(bytes(range(32)))
OTHER = Cells(bytes(32))
BOUND = 5 / np.sqrt(LINE_CELLS)


def agreement(one: np.ndarray, two: np.ndarray) -> float:
    """The mean product of the chips of the most alike of the bands."""
    return float(np.abs((one.astype(np.float64) * two).mean(axis=0)).max())


def repeats(line: np.ndarray) -> float:
    """The best agreement of a line of chips with itself at any other place."""
    spectrum = np.fft.rfft(line.astype(np.float64), axis=0)
    alike = np.fft.irfft(np.square(np.abs(spectrum)).sum(axis=1), len(line)) / line.size
    return float(np.abs(alike[1:]).max())


@pytest.fixture(scope="module")
def whole() -> np.ndarray:
    """All chips of a call's first lap."""
    return CELLS.call(7, np.arange(LINE_CELLS))


def test_chips_are_signs_and_fair_in_each_band(whole: np.ndarray) -> None:
    assert CELLS.line.shape == (LINE_CELLS, HALF_BANDS)
    assert whole.shape == (LINE_CELLS, BANDS)
    for chips in (CELLS.line, whole):
        assert chips.dtype == np.int8
        assert set(np.unique(chips)) == {-1, 1}
        assert np.abs(chips.mean(axis=0, dtype=np.float64)).max() < BOUND


def test_bands_share_nothing(whole: np.ndarray) -> None:
    alike = np.corrcoef(whole.astype(np.float64), rowvar=False)
    assert np.abs(alike[np.triu_indices(BANDS, 1)]).max() < BOUND


def test_a_call_repeats_nowhere(whole: np.ndarray) -> None:
    assert repeats(whole) < 6 / np.sqrt(whole.size)
    for bands in (LINE_BANDS, CALL_BANDS):
        assert repeats(whole[:, bands]) < 6 / np.sqrt(whole.size / 2)


def test_the_line_repeats_nowhere() -> None:
    assert repeats(CELLS.line) < 6 / np.sqrt(CELLS.line.size)
    repeated = CELLS.line.copy()
    repeated[40_000:50_000] = repeated[10_000:20_000]
    assert repeats(repeated) > 0.1  # the test can fail


def test_another_key_and_another_lap_are_other_chips() -> None:
    assert agreement(CELLS.line, OTHER.line) < BOUND
    assert agreement(CELLS.line, CELLS.lap(1)) < BOUND
    assert agreement(CELLS.lap(2), CELLS.lap(1)) < BOUND
    assert np.array_equal(CELLS.line, Cells(bytes(range(32))).line)
    with pytest.raises(ValueError, match="from 0"):
        CELLS.lap(-1)


def test_entries_follow_key_and_payload_and_spread_over_the_line() -> None:
    entries = np.array([CELLS.entry(payload) for payload in range(400)])
    assert CELLS.entry(7) == Cells(bytes(range(32))).entry(7)
    assert CELLS.entry(7) != OTHER.entry(7)
    assert len(set(entries.tolist())) > 395
    assert np.abs(np.histogram(entries, 4, (0, LINE_CELLS))[0] - 100).max() < 45
    assert CELLS.entry((1 << 64) - 1) < LINE_CELLS


def test_a_call_walks_the_line_and_draws_anew_on_each_lap(whole: np.ndarray) -> None:
    entry = CELLS.entry(7)
    assert np.array_equal(whole[:, LINE_BANDS], np.roll(CELLS.line, -entry, axis=0))
    second = CELLS.call(7, np.arange(LINE_CELLS, 2 * LINE_CELLS))
    assert np.array_equal(second[:, LINE_BANDS], np.roll(CELLS.lap(1), -entry, axis=0))
    assert agreement(whole, second) < BOUND
    assert np.array_equal(CELLS.call(7, np.arange(-1, 3))[1:], whole[:3])
    across = CELLS.call(7, np.arange(LINE_CELLS - 2, LINE_CELLS + 2))
    assert np.array_equal(across, np.concatenate((whole[-2:], second[:2])))


def test_calls_at_one_place_share_the_lines_chips_and_not_their_own(whole: np.ndarray) -> None:
    places = np.arange(LINE_CELLS)
    there = CELLS.call(8, (places + CELLS.entry(7) - CELLS.entry(8)) % LINE_CELLS)
    assert np.array_equal(there[:, LINE_BANDS], whole[:, LINE_BANDS])
    assert agreement(there[:, CALL_BANDS], whole[:, CALL_BANDS]) < BOUND
    assert agreement(OTHER.call(7, places)[:, CALL_BANDS], whole[:, CALL_BANDS]) < BOUND
    later = CELLS.call((1 << 64) - 1, places[:2_000])
    assert agreement(later[:, CALL_BANDS], whole[:2_000, CALL_BANDS]) < 5 / np.sqrt(2_000)


def test_drawn_chips_are_the_calls_by_block(whole: np.ndarray) -> None:
    first = CELLS.entry(7) // CELLS_A_BLOCK + 1
    begin = first * CELLS_A_BLOCK - CELLS.entry(7)
    blocks = np.arange(first, first + 3)
    drawn = CELLS.drawn(np.array([9, 7], np.uint64), blocks % LINE_BLOCKS)
    bits = np.unpackbits(drawn[1]).reshape(-1, HALF_BANDS)
    assert np.array_equal(1 - 2 * bits.astype(np.int8), whole[begin : begin + len(bits), CALL_BANDS])
    assert np.array_equal(CELLS.drawn(7, blocks % LINE_BLOCKS)[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[1])


def test_the_hops_of_the_line_have_small_factors() -> None:
    hops = LINE_CELLS * CELL_HOPS
    for prime in (2, 3, 5):
        while hops % prime == 0:
            hops //= prime
    assert hops == 1
