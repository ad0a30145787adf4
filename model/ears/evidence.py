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
from model.ears.recogniser import Alignment

SURE: Final = 0.53
"""Chance from which on a phrase is taken as said."""
POSSIBLE: Final = 0.31
"""Chance from which on the caller is asked; below, nothing was understood."""
LOUD_DB: Final = -22.0
"""A frame above this (below the loudest) is sound that a phrase should account for."""

FRAMES: Final[dict[str, tuple[float, float]]] = {
    "AA": (2.08, 0.38), "AE": (1.89, 0.60), "AH": (1.70, 0.42), "AO": (2.31, 0.41), "AW": (2.46, 0.36),
    "AY": (2.86, 0.48), "B": (1.81, 0.43), "D": (1.59, 0.39), "DH": (1.79, 0.40), "EH": (2.08, 0.50),
    "ER": (1.98, 0.70), "EY": (2.46, 0.55), "F": (2.18, 0.46), "G": (2.01, 0.35), "HH": (1.82, 0.49),
    "IH": (1.77, 0.47), "IY": (2.45, 0.44), "K": (2.03, 0.35), "L": (1.91, 0.41), "M": (1.82, 0.40),
    "N": (1.93, 0.53), "NG": (2.31, 0.35), "OW": (2.46, 0.48), "P": (1.95, 0.36), "R": (1.69, 0.44),
    "S": (1.37, 0.41), "SH": (2.32, 0.35), "T": (1.81, 0.52), "TH": (1.76, 0.35), "UH": (1.60, 0.35),
    "UW": (1.99, 0.51), "V": (2.01, 0.45), "W": (2.12, 0.35), "Y": (1.90, 0.45), "Z": (1.37, 0.35),
}  # fmt: skip
"""Each phone's usual length: mean and standard deviation of the logarithm of its 10 ms frames."""
UNKNOWN_PHONE: Final = (2.0, 0.5)
WEIGHTS: Final = (0.0150, 0.0383, 0.1018, -4.7241, -1.4774, -8.3042, 0.0669)
"""of `measures`, in order"""
BIAS: Final = 12.579


@dataclass(frozen=True, slots=True)
class Hearing:
    """What an utterance was taken for. `phrase` is None when it was like nothing in the grammar."""

    phrase: str | None
    confidence: float
    """chance that it was said, in [0, 1]"""
    sure: bool


NOTHING: Final = Hearing(None, 0.0, False)


def measures(found: Alignment) -> Floats:
    """`(7,)`: match per frame (mean), of the worst and of the middle phones; how far lengths are from usual
    at this speaker's pace (mean, and of the oddest phones); share of loud sound outside the phrase; log of
    the number of phones.
    """
    phones = [phone for word in found.words for phone in word]
    frames = sum(phone.frames for phone in phones)
    match = np.array([phone.score / phone.frames for phone in phones])
    usual = np.array([FRAMES.get(phone.name, UNKNOWN_PHONE) for phone in phones])
    length = np.log([phone.frames for phone in phones]) - usual[:, 0]
    oddity = np.abs(length - np.median(length)) / usual[:, 1]  # slow and fast speakers are no odd ones
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
            np.mean(outside) / max(1e-6, float(np.mean(loud))),
            math.log(len(phones)),
        ],
        np.float32,
    )


def weigh(found: Alignment) -> Hearing:
    """The phrase, if the evidence is for it."""
    odds = float(np.dot(WEIGHTS, measures(found))) + BIAS
    chance = 1 / (1 + math.exp(-max(-30.0, min(30.0, odds))))
    return Hearing(found.phrase if chance >= POSSIBLE else None, chance, chance >= SURE)
