"""Multinomial logistic regression in numpy, in some 50 ms for a plan's classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from model.api import Floats

RIDGE: Final = 0.2
STEPS: Final = 25


def softmax(odds: Floats) -> Floats:
    """`(n, classes)` log odds as chances, each row's sum 1."""
    chances: Floats = np.exp(odds - odds.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    return chances


def fit(groups: Sequence[Floats]) -> Floats:
    """`(d + 1, len(groups))`: weights and, in the last row, the bias; each group `(n, d)` is a class, and all
    classes weigh the same.

    Newton's steps with Böhning's fixed bound on the curvature (1992), which is inverted once; with Nesterov's
    momentum, begun anew whenever it leads uphill.
    """
    classes = len(groups)
    x = np.concatenate(groups)
    x = np.concatenate([x, np.ones((len(x), 1), np.float32)], axis=1)
    label = np.repeat(np.arange(classes), [len(group) for group in groups])
    share = np.array([len(x) / classes / max(1, len(group)) for group in groups], np.float32)
    weighed = x * share[label][:, None]
    target = np.eye(classes, dtype=np.float32)[label]
    ridge = np.full((x.shape[1], 1), RIDGE, np.float32)
    ridge[-1] = 1e-6
    curve = 0.5 * (weighed.T @ x).astype(np.float64) + np.diag(ridge[:, 0].astype(np.float64))
    step = np.linalg.inv(curve).astype(np.float32)
    weights = ahead = np.zeros((x.shape[1], classes), np.float32)
    pace = 1.0
    for _ in range(STEPS):
        slope = weighed.T @ (softmax(x @ ahead) - target) + ridge * ahead
        moved = ahead - step @ slope
        if np.sum(slope * (moved - weights)) > 0:
            pace, ahead = 1.0, moved
        else:
            faster = (1 + (1 + 4 * pace * pace) ** 0.5) / 2
            ahead = moved + np.float32((pace - 1) / faster) * (moved - weights)
            pace = faster
        weights = moved
    return weights
