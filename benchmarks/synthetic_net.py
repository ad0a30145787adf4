"""A small network, trained by numpy alone, and what it is worth on machines and people that it never met."""

from __future__ import annotations

from typing import Final

import numpy as np

from benchmarks.synthetic_measured import TraitTable
from consent.checks.baseline import CLIP, Network

HIDDEN: Final = 24
STEPS: Final = 300
RATE: Final = 0.01
DECAY: Final = 1e-2
DROPPED: Final = 0.5
"""Share of traits that each step leaves out."""
SEED: Final = 12
FOLDS: Final = 5


def weights(measured: TraitTable) -> np.ndarray:
    """Machines and people weigh the same; within them a family by the root of how many voices it has."""
    weight = np.zeros(len(measured.machine))
    for machine in (True, False):
        side = measured.machine == machine
        for family in np.unique(measured.family[side]):
            of_family = side & (measured.family == family)
            voices = np.unique(measured.person[of_family])
            for voice in voices:
                of_voice = of_family & (measured.person == voice)
                weight[of_voice] = np.sqrt(len(voices)) / len(voices) / of_voice.sum()
        weight[side] /= weight[side].sum()
    return weight / weight.sum()


def train(measured: TraitTable, seed: int = SEED) -> Network:
    """Adam over all rows at once, traits left out by chance (against leaning on a few)."""
    chance = np.random.default_rng(seed)
    weight = weights(measured)
    mean = weight @ measured.values
    scale = np.sqrt(weight @ (measured.values - mean) ** 2) + 1e-6
    count = measured.values.shape[1]
    normal, truth = np.clip((measured.values - mean) / scale, -CLIP, CLIP), measured.machine.astype(float)
    parts = [
        chance.normal(0, 1 / np.sqrt(count), (count, HIDDEN)), np.zeros(HIDDEN),
        chance.normal(0, 1 / np.sqrt(HIDDEN), HIDDEN), np.zeros(1),
    ]  # fmt: skip
    moments = [(np.zeros_like(part), np.zeros_like(part)) for part in parts]
    for step in range(1, STEPS + 1):
        kept = normal * (chance.random((len(normal), count)) > DROPPED) / (1 - DROPPED)
        hidden = np.tanh(kept @ parts[0] + parts[1])
        wrong = weight * (1 / (1 + np.exp(-(hidden @ parts[2] + parts[3]))) - truth)
        back = np.outer(wrong, parts[2]) * (1 - hidden**2)
        slopes = [
            kept.T @ back + DECAY * parts[0], back.sum(axis=0), hidden.T @ wrong + DECAY * parts[2],
            wrong.sum(keepdims=True),
        ]  # fmt: skip
        rate = RATE * (1 + np.cos(np.pi * step / STEPS)) / 2
        for part, slope, (first, second) in zip(parts, slopes, moments, strict=True):
            first += 0.1 * (slope - first)
            second += 0.001 * (slope**2 - second)
            part -= rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return Network(measured.names, mean, scale, parts[0], parts[1], parts[2], float(parts[3][0]))


def folds(measured: TraitTable) -> np.ndarray:
    """A fold for each row, the same for all rows of a person."""
    people = np.unique(np.char.add(np.char.add(measured.family, "/"), measured.person))
    fold = dict(zip(people, np.random.default_rng(SEED).permutation(len(people)) % FOLDS, strict=True))
    return np.array([fold[f"{f}/{p}"] for f, p in zip(measured.family, measured.person, strict=True)])


def left_out(measured: TraitTable) -> np.ndarray:
    """The score of each row by a network that never met its family (machines) or its person (people).

    Each family of machines has a network of its own, trained on all the others and on all people of other
    folds; a person's score is the mean over the families' networks of the fold that lacks that person.
    """
    fold = folds(measured)
    scores = np.zeros(len(measured.machine))
    times = np.zeros(len(measured.machine))
    for number, family in enumerate(np.unique(measured.family[measured.machine])):
        of_family = measured.machine & (measured.family == family)
        away = ~measured.machine & (fold == number % FOLDS)
        net = train(measured.rows(~of_family & ~away))
        tested = of_family | away
        scores[tested] += net.scores(measured.values[tested])
        times[tested] += 1
    return scores / np.maximum(times, 1)


def met(measured: TraitTable) -> np.ndarray:
    """Machines' scores by networks that met the same voice saying other things."""
    scores = np.zeros(len(measured.machine))
    clips = np.unique(measured.clip)
    fold_of = dict(zip(clips, np.random.default_rng(SEED).permutation(len(clips)) % FOLDS, strict=True))
    fold = np.array([fold_of[clip] for clip in measured.clip])
    for number in range(FOLDS):
        away = measured.machine & (fold == number)
        scores[away] = train(measured.rows(~away)).scores(measured.values[away])
    return scores


def left_out_sources(measured: TraitTable) -> np.ndarray:
    """The score of each person's row by a network that met nobody of that source (rooms, microphones)."""
    scores = np.zeros(len(measured.machine))
    for family in np.unique(measured.family[~measured.machine]):
        of_family = ~measured.machine & (measured.family == family)
        scores[of_family] = train(measured.rows(~of_family)).scores(measured.values[of_family])
    return scores


def equal_error(people: np.ndarray, machines: np.ndarray) -> tuple[float, float]:
    """The rate, and the threshold at which as many people are held as machines are missed."""
    steps = np.unique(np.concatenate((people, machines)))
    missed = np.searchsorted(np.sort(machines), steps) / len(machines)
    held = 1 - np.searchsorted(np.sort(people), steps) / len(people)
    at = int(np.abs(missed - held).argmin())
    return float((missed[at] + held[at]) / 2), float(steps[at])
