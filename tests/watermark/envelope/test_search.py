"""A recording is found on a key's line, and what was not marked is not."""

from math import log

import numpy as np
import pytest

from watermark.envelope.cells import BANDS, CELL_HOPS, HALF_CELL_HOPS, LINE_CELLS, Cells
from watermark.envelope.search import LINE_HOPS, NEAR_SHARE, STEADY, Tempi, score, search

SURE = log(1e-6)


@pytest.fixture(scope="module")
def cells() -> Cells:
    return Cells(bytes(range(32)))


def heard(cells: Cells, frames: int, place: int, tempo: float, strength: float, lap: int = 0) -> np.ndarray:
    """What a network would say of a recording at this place of the line: each chip faintly, in noise."""
    soft = np.random.default_rng(frames).standard_normal((BANDS, frames)).astype(np.float32)
    cell = place // CELL_HOPS + np.arange(int(frames * (1 + tempo)) // CELL_HOPS + 2)
    chips = cells.lap(lap)[cell % LINE_CELLS]
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
