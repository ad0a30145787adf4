"""How far an utterance may be taken for the phrase that was found in it.

A recogniser with a grammar finds a phrase in most of what people say. What tells them apart is how the
phrase's phones sit in the sound: how well each is matched, whether each is as long as such a phone is, and
whether loud sound is left over beside them. Seven such measures are weighed (logistic regression) into the
chance that the phrase was said.

The constants below were fitted by `python -m benchmarks.understanding --tune` on one half of synthetic
callers and of human prompts; the same command without `--tune` measures them on the other half.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from model.api import Floats
from model.embedded.recogniser import Alignment

SURE: Final = 0.9
"""Chance from which on a phrase is taken as said."""
POSSIBLE: Final = 0.6
"""Chance from which on the caller is asked; below, nothing was understood."""
LOUD_DB: Final = -22.0
"""A frame above this (below the loudest) is sound that a phrase should account for."""

FRAMES: Final[dict[str, tuple[float, float]]] = {}
"""Each phone's usual length: mean and standard deviation of the logarithm of its 10 ms frames."""
UNKNOWN_PHONE: Final = (2.0, 0.5)
WEIGHTS: Final = (0.0,) * 7
"""of `measures`, in order"""
BIAS: Final = 0.0


@dataclass(frozen=True, slots=True)
class Hearing:
    """What an utterance was taken for. `phrase` is None when it was like nothing in the grammar."""

    phrase: str | None
    confidence: float
    """chance that it was said, in [0, 1]"""
    sure: bool


NOTHING: Final = Hearing(None, 0.0, False)


def measures(found: Alignment) -> Floats:
    """`(7,)`: match per frame (mean), of the worst and of the middle phones; lengths' distance from usual
    (mean, and of the oddest phones); share of loud sound outside the phrase; log of the number of phones."""
    phones = [phone for word in found.words for phone in word]
    frames = sum(phone.frames for phone in phones)
    match = np.array([phone.score / phone.frames for phone in phones])
    usual = np.array([FRAMES.get(phone.name, UNKNOWN_PHONE) for phone in phones])
    length = np.log([phone.frames for phone in phones])
    oddity = np.abs(length - usual[:, 0]) / usual[:, 1]
    loud = found.loud > LOUD_DB
    outside = loud.copy()
    for phone in phones:
        outside[phone.start : phone.start + phone.frames] = False
    return np.array(
        [
            sum(phone.score for phone in phones) / frames,
            np.percentile(match, 20),
            np.median(match),
            np.mean(oddity),
            np.percentile(oddity, 85),
            np.sum(outside) / max(1, np.sum(loud)),
            math.log(len(phones)),
        ],
        np.float32,
    )


def weigh(found: Alignment) -> Hearing:
    """The phrase, if the evidence is for it."""
    odds = float(np.dot(WEIGHTS, measures(found))) + BIAS
    chance = 1 / (1 + math.exp(-max(-30.0, min(30.0, odds))))
    return Hearing(found.phrase if chance >= POSSIBLE else None, chance, chance >= SURE)
