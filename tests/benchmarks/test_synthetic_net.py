"""The training of the built-in classifier: it learns, by the seed alone, and judges nobody whom it met."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import synthetic_net
from benchmarks.synthetic_measured import TraitTable
from benchmarks.synthetic_net import equal_error, folds, left_out, left_out_sources, met, train, weights


def made(seed: int = 3) -> TraitTable:
    """Three synthesizers of two voices, two sources of five people, four clips each; a trait tells."""
    chance = np.random.default_rng(seed)
    rows = [
        (machine, family, f"{person}", f"{family}/{person}/{clip}")
        for machine, names, voices in ((True, "abc", 2), (False, "xy", 5))
        for family in names
        for person in range(voices)
        for clip in range(4)
    ]
    machine, family, person, clip = (np.array([row[k] for row in rows]) for k in range(4))
    values = chance.standard_normal((len(rows), 6))
    values[:, 2] += 4.0 * machine
    names = tuple(f"trait {k}" for k in range(6))
    return TraitTable(names, values, machine, family, person, np.full(len(rows), "any line"), clip)


def test_it_learns_the_trait_that_tells() -> None:
    table = made()
    scores = train(table).scores(made(4).values)
    assert equal_error(scores[~table.machine], scores[table.machine])[0] < 0.1


def test_the_seed_alone_decides() -> None:
    first, again, other = train(made()), train(made()), train(made(), seed=7)
    assert np.array_equal(first.first, again.first)
    assert not np.array_equal(first.first, other.first)


def test_machines_and_people_weigh_the_same_and_so_do_voices_of_a_family() -> None:
    table = made()
    weight = weights(table)
    assert weight[table.machine].sum() == pytest.approx(0.5)
    assert weight[~table.machine].sum() == pytest.approx(0.5)
    voices = [weight[(table.family == "a") & (table.person == voice)].sum() for voice in "01"]
    assert voices[0] == pytest.approx(voices[1])


def test_a_persons_rows_are_in_one_fold() -> None:
    table = made()
    fold = folds(table)
    for family in "xy":
        for person in "01234":
            assert len(set(fold[(table.family == family) & (table.person == person)])) == 1


def test_nobody_is_judged_by_a_network_that_met_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The double says of a row whether it trained on it (its first trait is the row's number)."""
    table = made()
    table.values[:, 0] = np.arange(len(table.machine))
    trained: list[TraitTable] = []

    class Remembers:
        def __init__(self, seen: TraitTable) -> None:
            self._seen = seen

        def scores(self, values: np.ndarray) -> np.ndarray:
            trained.append(self._seen)
            return np.isin(values[:, 0], self._seen.values[:, 0]).astype(float)

    monkeypatch.setattr(synthetic_net, "train", Remembers)
    assert not left_out(table).any()
    for seen in trained:
        assert len(set(seen.family[seen.machine])) == 2
    assert not met(table)[table.machine].any()
    trained.clear()
    assert not left_out_sources(table)[~table.machine].any()
    for seen in trained:
        assert len(set(seen.family[~seen.machine])) == 1


def test_the_equal_error_rate_of_halves_that_overlap() -> None:
    people, machines = np.arange(0.0, 10.0), np.arange(5.0, 15.0)
    rate, at = equal_error(people, machines)
    assert rate == pytest.approx(0.25, abs=0.06)
    assert 5 <= at <= 9
    assert equal_error(people, people + 100)[0] == 0
