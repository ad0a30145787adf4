"""Drawing codes."""

from __future__ import annotations

import torch
from torch import Tensor

from model.chroma.network.sampling import gumbel, pick

VOCAB = 12


def draws(
    logits: Tensor, count: int, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, seed: int = 1
) -> Tensor:
    """`count` draws from one row of logits."""
    rows = logits.expand(count, -1)
    noise = gumbel(torch.full((count,), seed), torch.arange(count), logits.shape[-1])
    ones = torch.ones(count)
    return pick(rows, ones * temperature, (ones * top_k).long(), ones * top_p, noise)


def logits(seed: int = 0) -> Tensor:
    return 2 * torch.randn(VOCAB, generator=torch.Generator().manual_seed(seed))


def chi_square(found: Tensor, expected: Tensor) -> float:
    counts = torch.bincount(found, minlength=len(expected)).double()
    kept = expected > 0
    assert counts[~kept].sum() == 0
    wanted = expected[kept].double() * len(found)
    return float(((counts[kept] - wanted) ** 2 / wanted).sum())


def test_draws_follow_the_distribution() -> None:
    for temperature in (0.5, 1.0, 2.0):
        expected = (logits() / temperature).softmax(-1)
        found = draws(logits(), 40_000, temperature=temperature)
        assert chi_square(found, expected) < 31.3, "11 degrees of freedom, one in a thousand"


def test_top_k_draws_from_the_likeliest_only() -> None:
    expected = torch.zeros(VOCAB)
    best = logits().topk(4).indices
    expected[best] = logits()[best].softmax(-1)
    assert chi_square(draws(logits(), 40_000, top_k=4), expected) < 16.3


def test_top_p_draws_from_the_least_set_that_reaches_it() -> None:
    shares, order = logits().softmax(-1).sort(descending=True)
    count = int((shares.cumsum(0) < 0.8).sum()) + 1
    assert 1 < count < VOCAB
    expected = torch.zeros(VOCAB)
    expected[order[:count]] = shares[:count] / shares[:count].sum()
    assert chi_square(draws(logits(), 40_000, top_p=0.8), expected) < 24.3


def test_a_tiny_top_p_still_leaves_one() -> None:
    assert (draws(logits(), 100, top_p=0.0) == logits().argmax()).all()


def test_temperature_nought_takes_the_likeliest() -> None:
    assert (draws(logits(), 100, temperature=0.0) == logits().argmax()).all()


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    assert torch.equal(draws(logits(), 200, seed=5), draws(logits(), 200, seed=5))
    assert not torch.equal(draws(logits(), 200, seed=5), draws(logits(), 200, seed=6))


def test_a_rows_draw_does_not_depend_on_its_company() -> None:
    many = torch.stack([logits(seed) for seed in range(6)])
    seeds, number = torch.arange(6) * 7919, torch.arange(6)
    ones = torch.ones(6)
    settings = (ones, torch.full((6,), 5), ones * 0.9)
    together = pick(many, *settings, gumbel(seeds, number, VOCAB))
    for row in range(6):
        one = slice(row, row + 1)
        alone = pick(many[one], *(s[one] for s in settings), gumbel(seeds[one], number[one], VOCAB))
        assert alone[0] == together[row]


def test_noise_is_finite_and_of_gumbels_shape() -> None:
    noise = gumbel(torch.arange(200), torch.zeros(200, dtype=torch.long), 2051)
    assert torch.isfinite(noise).all()
    assert abs(float(noise.mean()) - 0.5772) < 0.01
    assert abs(float(noise.var()) - 1.6449) < 0.03


def test_of_equally_likely_ids_the_lower_goes_first() -> None:
    level = torch.zeros(2051)
    assert (draws(level, 20, top_k=1) == 0).all()
    assert (draws(level, 20, top_p=0.0) == 0).all()
    assert (draws(level, 200, top_k=3) < 3).all()


def test_an_impossible_id_is_never_drawn() -> None:
    masked = logits()
    masked[3] = -torch.inf
    assert (draws(masked, 5_000, temperature=5.0) != 3).all()
