"""The E-model against what ITU-T and others have published of it, and against plain sense."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.rtp.media.e_model import G711_CONCEALED, IMPAIRMENTS, Impairment, impairment, mos, rating

G711_BARE = Impairment(0.0, 4.3)
"""Without concealment (G.113 Appendix I)."""
G729A = Impairment(11.0, 19.0)
G723_1 = Impairment(15.0, 16.1)
"""At 6.3 kbit/s."""


def test_the_default_values_give_the_rating_that_g107_says() -> None:
    assert rating(G711_BARE, 0.0, 0.0) == pytest.approx(93.2, abs=0.05)
    assert mos(rating(G711_BARE, 0.0, 0.0)) == pytest.approx(4.41, abs=0.005)


@pytest.mark.parametrize(
    ("rated", "score"), [(0, 1.0), (50, 2.58), (60, 3.10), (70, 3.60), (80, 4.03), (90, 4.34), (100, 4.5)]
)
def test_a_rating_is_the_score_of_g107s_table_b1(rated: float, score: float) -> None:
    assert mos(rated) == pytest.approx(score, abs=0.01)


@pytest.mark.parametrize(
    ("codec", "costs"),
    [
        (G729A, {0: 11, 1: 15, 2: 19, 4: 26, 8: 36, 16: 49}),
        (G723_1, {0: 15, 1: 19, 2: 24, 4: 32, 8: 41, 16: 55}),
        (G711_CONCEALED, {0: 0, 1: 5, 2: 7, 3: 10, 5: 15, 7: 20}),
    ],
)
def test_random_loss_costs_what_g113_found_in_listening_tests(
    codec: Impairment, costs: dict[int, float]
) -> None:
    """Table I.2 of G.113 Appendix I (2002), to which its factors were fitted."""
    for percent, cost in costs.items():
        assert mos(rating(codec, percent / 100, 0.0)) == pytest.approx(mos(93.2 - cost), abs=0.1)


@pytest.mark.parametrize("delay_ms", [0, 25, 50, 100, 150, 177, 200, 250, 300, 350])
def test_delay_costs_what_another_reading_of_g107_says(delay_ms: float) -> None:
    """Cole and Rosenbluth (Computer Communication Review 31, 2001) drew two lines through G.107's curve,
    which bends away from the second one beyond 350 ms."""
    lines = 0.024 * delay_ms + 0.11 * max(0.0, delay_ms - 177.3)
    assert mos(rating(G711_CONCEALED, 0.0, delay_ms / 1000)) == pytest.approx(mos(93.2 - lines), abs=0.1)


@pytest.mark.parametrize("name", IMPAIRMENTS)
def test_the_score_falls_with_0_2_5_and_10_percent_lost_as_the_formula_says(name: str) -> None:
    codec = IMPAIRMENTS[name]
    scores = [mos(rating(codec, percent / 100, 0.05)) for percent in (0, 2, 5, 10)]
    for before, after in pairwise(scores):
        assert before - after > 0.1
    for percent, score in zip((0, 2, 5, 10), scores, strict=True):
        # clause 7.5; 91.76 is what 50 ms leave of 93.2
        left = 91.76 - codec.ie - (95 - codec.ie) * percent / (percent + codec.bpl)
        assert score == pytest.approx(mos(left), abs=0.1)


def test_losses_in_a_row_cost_more_than_as_many_by_chance() -> None:
    assert rating(G711_CONCEALED, 0.05, 0.0, burst=2.0) < rating(G711_CONCEALED, 0.05, 0.0) - 1.0
    # clause 7.5: 95 * 5 / (5 / 2 + 25.1)
    assert rating(G711_CONCEALED, 0.05, 0.0, burst=2.0) == pytest.approx(93.2 - 17.21, abs=0.05)


@given(st.sampled_from(list(IMPAIRMENTS.values())), st.floats(0, 1), st.floats(0, 1), st.floats(0, 2))
def test_more_loss_and_more_delay_are_never_better(
    codec: Impairment, loss: float, more: float, delay_s: float
) -> None:
    here = rating(codec, loss, delay_s)
    assert rating(codec, max(loss, more), delay_s) <= here + 1e-9
    assert rating(codec, loss, delay_s + more) <= here + 0.2  # echoes of a few ms are worth so much to G.107
    assert 1.0 <= mos(here) <= 4.5


@given(st.floats(-200, 200), st.floats(0, 50))
def test_a_better_rating_is_never_a_worse_score(rated: float, more: float) -> None:
    assert mos(rated) <= mos(rated + more) + 1e-9


@pytest.mark.parametrize(
    ("loss", "delay_s", "burst"), [(-0.01, 0, 1), (1.01, 0, 1), (0, -0.1, 1), (0.1, 0, 0)]
)
def test_what_cannot_be_is_refused(loss: float, delay_s: float, burst: float) -> None:
    with pytest.raises(ValueError, match="no sound has"):
        rating(G711_CONCEALED, loss, delay_s, burst)


def test_codecs_are_known_by_the_names_that_lines_use() -> None:
    assert impairment("PCMU") == impairment("PCMA/8000") == impairment("G722/16000") == G711_CONCEALED
    assert impairment("opus/48000") == IMPAIRMENTS["OPUS"]
    assert impairment("GSM") is impairment(None) is None
