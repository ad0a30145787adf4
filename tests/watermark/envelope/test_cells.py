import numpy as np
import pytest

from watermark.envelope.cells import BANDS, CELL_HOPS, LINE_CELLS, Cells

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


def test_chips_are_signs_and_fair_in_each_band() -> None:
    assert CELLS.line.shape == (LINE_CELLS, BANDS)
    assert CELLS.line.dtype == np.int8
    assert set(np.unique(CELLS.line)) == {-1, 1}
    assert np.abs(CELLS.line.mean(axis=0, dtype=np.float64)).max() < BOUND


def test_bands_share_nothing() -> None:
    alike = np.corrcoef(CELLS.line.astype(np.float64), rowvar=False)
    assert np.abs(alike[np.triu_indices(BANDS, 1)]).max() < BOUND


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


def test_a_call_walks_the_line_and_draws_anew_on_each_lap() -> None:
    entry = CELLS.entry(7)
    first = CELLS.call(7, np.arange(LINE_CELLS))
    assert np.array_equal(first, np.roll(CELLS.line, -entry, axis=0))
    second = CELLS.call(7, np.arange(LINE_CELLS, 2 * LINE_CELLS))
    assert np.array_equal(second, np.roll(CELLS.lap(1), -entry, axis=0))
    assert np.array_equal(CELLS.call(7, np.arange(-1, 3))[1:], first[:3])
    across = CELLS.call(7, np.arange(LINE_CELLS - 2, LINE_CELLS + 2))
    assert np.array_equal(across, np.concatenate((first[-2:], second[:2])))


def test_the_hops_of_the_line_have_small_factors() -> None:
    hops = LINE_CELLS * CELL_HOPS
    for prime in (2, 3, 5):
        while hops % prime == 0:
            hops //= prime
    assert hops == 1
