"""A recording is found on a key's line and its call told from others; what was not marked is not found."""

from math import log

import numpy as np
import pytest

from watermark.envelope.cells import (
    BANDS,
    CALL_BANDS,
    CELL_HOPS,
    HALF_CELL_HOPS,
    LINE_BANDS,
    LINE_CELLS,
    Cells,
)
from watermark.envelope.search import (
    LINE_HOPS,
    NEAR_SHARE,
    STEADY,
    LinePlace,
    Tempi,
    call_scores,
    score,
    search,
)

SURE = log(1e-6)
CALL = 0xBEEF_0000_1234_5678


@pytest.fixture(scope="module")
def cells() -> Cells:
    return Cells(bytes(range(32)))


def heard(cells: Cells, frames: int, place: int, tempo: float, strength: float, lap: int = 0) -> np.ndarray:
    """What a network would say of a recording of `CALL` at this place of the line: each chip faintly, in
    noise."""
    soft = np.random.default_rng(frames).standard_normal((BANDS, frames)).astype(np.float32)
    cell = place // CELL_HOPS + np.arange(int(frames * (1 + tempo)) // CELL_HOPS + 2)
    chips = cells.call(CALL, (cell - cells.entry(CALL)) % LINE_CELLS + lap * LINE_CELLS)
    for band in range(BANDS):
        middle = cell * CELL_HOPS + HALF_CELL_HOPS * (1 + band % 2)
        at = np.rint((middle - place) / (1 + tempo)).astype(int)
        inside = (at >= 0) & (at < frames)
        soft[band, at[inside]] += strength * chips[inside, band]
    return soft


@pytest.mark.parametrize("place", [0, 77, 123_457, LINE_HOPS - 400])
@pytest.mark.parametrize("tempo", [0.0, 0.004, -0.03])
def test_a_recording_is_found_wherever_it_lies_on_the_line_and_however_fast_it_is(
    cells: Cells, place: int, tempo: float
) -> None:
    found = search(heard(cells, 1_000, place, tempo, 0.5), cells)[0]
    assert found.ln_p < 2 * SURE
    assert abs(found.tempo - tempo) <= 0.001
    middle = (place + 500 * (1 + tempo)) % LINE_HOPS
    assert abs(found.line_hop(500) % LINE_HOPS - middle) <= 1
    assert found.z == pytest.approx(
        score(heard(cells, 1_000, place, tempo, 0.5), cells, found.hop, found.tempo)
    )


def test_another_keys_line_does_not_hold_it(cells: Cells) -> None:
    soft = heard(cells, 1_000, 123_457, 0.0, 0.5)
    assert all(place.ln_p > SURE for place in search(soft, Cells(bytes(32))))


def test_noise_is_not_found(cells: Cells) -> None:
    assert all(place.ln_p > SURE for place in search(heard(cells, 1_000, 0, 0.0, 0.0), cells))


def test_silence_is_nowhere(cells: Cells) -> None:
    assert search(np.zeros((BANDS, 1_000), np.float32), cells) == []
    assert score(np.zeros((BANDS, 1_000), np.float32), cells, 5) == 0.0


def test_a_part_of_the_line_holds_it_or_does_not(cells: Cells) -> None:
    soft = heard(cells, 1_000, 20_000, 0.0, 0.5)
    assert search(soft, cells, first=15_000, hops=9_000)[0].hop == 20_000
    assert all(place.ln_p > SURE for place in search(soft, cells, first=25_000, hops=9_000))


def test_a_part_that_goes_over_the_lines_end_is_searched(cells: Cells) -> None:
    soft = heard(cells, 1_000, 100, 0.0, 0.5)
    assert search(soft, cells, first=LINE_HOPS - 3_000, hops=6_000)[0].hop == 100


def test_a_long_recording_is_found_by_its_clearest_part_and_judged_as_a_whole(cells: Cells) -> None:
    soft = heard(cells, 6_000, 222_222, 0.0023, 0.4)
    soft[:, :2_500] *= 0.1
    found = search(soft, cells)[0]
    assert abs(found.line_hop(4_000) - (222_222 + 4_000 * 1.0023)) <= 1
    assert found.z > 10
    within = search(soft, cells, first=220_000, hops=6_000)[0]
    assert (within.hop, within.tempo) == (found.hop, found.tempo)


def test_a_later_lap_is_found_when_it_is_asked_for(cells: Cells) -> None:
    soft = heard(cells, 1_000, 50_000, 0.0, 0.5, lap=2)
    assert search(soft, cells, tempi=STEADY)[0].ln_p > SURE
    found = search(soft, cells, laps=(0, 1, 2), tempi=STEADY)[0]
    assert (found.hop, found.lap) == (50_000, 2)


def test_every_try_counts_in_the_bound(cells: Cells) -> None:
    soft = heard(cells, 1_000, 20_001, 0.0, 0.5)
    steady, narrow = Tempi(3, 3), Tempi(0, 0)
    one = search(soft, cells, tempi=narrow)[0]
    assert one.ln_p == pytest.approx(log(LINE_HOPS) - one.z**2 / 2)
    assert search(soft, cells, tempi=steady)[0].ln_p == pytest.approx(one.ln_p + log(7))
    assert search(soft, cells, tempi=narrow, laps=(0, 1))[0].ln_p == pytest.approx(one.ln_p + log(2))
    far = search(soft, cells, tempi=Tempi(3, 9))[0]
    assert far.ln_p == pytest.approx(one.ln_p + log(7 / NEAR_SHARE))


def at(place: int, tempo: float = 0.0, lap: int = 0) -> LinePlace:
    return LinePlace(place % LINE_HOPS, tempo, lap, 0.0, 0.0)


@pytest.mark.parametrize("place", [0, 77, 123_457, LINE_HOPS - 400])
@pytest.mark.parametrize("tempo", [0.0, 0.004, -0.03])
@pytest.mark.parametrize("lap", [0, 2])
def test_the_calls_half_says_which_call_it_is(cells: Cells, place: int, tempo: float, lap: int) -> None:
    soft = heard(cells, 1_000, place, tempo, 0.5, lap)
    others = np.random.default_rng(7).integers(0, 1 << 48, 3_000, dtype=np.uint64)
    scores = call_scores(soft, cells, np.append(others, np.uint64(CALL)), at(place, tempo, lap))
    assert scores[-1] > 8
    assert abs(scores[:-1].mean()) < 0.1
    assert 0.9 < scores[:-1].std() < 1.1
    assert scores[:-1].max() < 5
    elsewhere = (at(place + CELL_HOPS, tempo, lap), at(place, tempo, lap + 1), at(place, tempo + 0.02, lap))
    for wrong in elsewhere:
        assert call_scores(soft, cells, np.array([CALL], np.uint64), wrong)[0] < 5.5


def test_the_calls_score_is_a_sum_over_its_cells(cells: Cells) -> None:
    soft = heard(cells, 1_000, 600, 0.0, 0.3)
    line = np.arange(100, 267)
    chips = cells.call(CALL, (line - cells.entry(CALL)) % LINE_CELLS)[:, CALL_BANDS].T
    middles = line * CELL_HOPS + 2 * HALF_CELL_HOPS - 600
    said = np.where(middles < 1_000, soft[CALL_BANDS, np.minimum(middles, 999)], 0.0)
    first = soft[CALL_BANDS, 0]  # of the cell before, whose middle is the first frame
    chip = cells.call(CALL, np.array([(99 - cells.entry(CALL)) % LINE_CELLS]))[0, CALL_BANDS]
    energy = np.square(said).sum() + np.square(first).sum()
    expected = ((said * chips).sum() + (first * chip).sum()) / np.sqrt(energy)
    (found,) = call_scores(soft, cells, np.array([CALL], np.uint64), at(600))
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_search_hears_nothing_of_the_calls_half_nor_the_call_of_the_lines(cells: Cells) -> None:
    """Only so is a call's score at a place that was found one try."""
    soft = heard(cells, 1_000, 20_000, 0.0, 0.5)
    (whole, *_) = search(soft, cells, first=15_000, hops=9_000)
    call = np.array([CALL], np.uint64)
    deaf = soft.copy()
    deaf[CALL_BANDS] = 0.0
    assert search(deaf, cells, first=15_000, hops=9_000)[0] == whole
    assert call_scores(deaf, cells, call, whole)[0] == 0.0
    assert search(soft - deaf, cells, first=15_000, hops=9_000) == []
    assert call_scores(soft - deaf, cells, call, whole)[0] == call_scores(soft, cells, call, whole)[0]
    assert np.array_equal(soft[LINE_BANDS], deaf[LINE_BANDS])


def test_many_calls_are_scored_as_each_is_alone(cells: Cells) -> None:
    soft = heard(cells, 6_000, LINE_HOPS - 2_000, 0.001, 0.2)
    calls = np.append(np.arange(5_000, dtype=np.uint64), np.uint64(CALL))
    place = at(LINE_HOPS - 2_000, 0.001)
    together = call_scores(soft, cells, calls, place)
    for which in (0, 2_047, 2_048, 5_000):
        assert together[which] == call_scores(soft, cells, calls[which : which + 1], place)[0]
    assert int(together.argmax()) == 5_000


def test_the_tempis_shares_add_up_to_one() -> None:
    for tempi in (Tempi(), STEADY, Tempi(0, 0), Tempi(2, 9)):
        assert sum(np.exp(-tempi.ln_tries(steps)) for steps in tempi.all()) == pytest.approx(1.0)


def test_the_bound_holds_where_chance_is_counted(cells: Cells) -> None:
    """z of a recording at places that it is not from: standard normal."""
    rng = np.random.default_rng(5)
    soft = (
        rng.laplace(size=(BANDS, 500)).astype(np.float32) * rng.random((BANDS, 500)).astype(np.float32) ** 3
    )
    scores = np.array([score(soft, cells, place) for place in rng.integers(0, LINE_HOPS, 2_000)])
    assert abs(scores.mean()) < 0.1
    assert 0.9 < scores.std() < 1.1
    assert scores.max() < 5.5
