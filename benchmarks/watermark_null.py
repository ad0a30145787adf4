"""How often unmarked speech is taken for ours: counted, with the searches on.

A verify trial is one 5 s segment of real speech and one random payload: the pilot of a fresh key is searched
over the whole line, and the payload's data is tried at every alignment that the search hands on and at every
retiming, as `detect` does; the largest score counts. Retimings of one alignment are computed from sums over
16 blocks (exact to .1 rad); everything else is the detector's own code. A blind trial is one segment and one
key through the blind search; what counts is the largest logarithm of the p-value's bound.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import log, sqrt
from pathlib import Path

import numpy as np

from benchmarks.watermark_speech import HUMAN, RATE_HZ, speech
from watermark import align, carrier, code, detect, sync
from watermark.carrier import DATA
from watermark.keys import MarkKey
from watermark.whiten import narrow, whiten

SEGMENT_S = 5
BLOCKS = 16
PAYLOADS = 1_000
BATCH = 8
"""Payloads tried on one search."""
EDGES = np.linspace(0.0, 16.0, 321)


@dataclass
class Counts:
    """A histogram of the largest score of each trial, from 0 to 16 in steps of .05."""

    trials: int = 0
    searches: int = 0
    seconds: float = 0.0
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(320, np.int64))
    largest: float = 0.0

    def add(self, scores: np.ndarray) -> None:
        self.trials += len(scores)
        self.histogram += np.histogram(np.clip(scores, 0, 15.99), EDGES)[0]
        self.largest = max(self.largest, float(scores.max(initial=0.0)))

    def over(self, score: float) -> int:
        return int(self.histogram[EDGES[:-1] >= score - 1e-9].sum())

    def tail(self, share: float = 1e-3) -> tuple[float, float, float, float]:
        """(z0, s, low, high): beyond z0, with `share` of trials, `P(z) = share * exp(-s (z^2 - z0^2) / 2)`;
        s = 1 is Gaussian. `low`, `high`: 95 % of s."""
        above = np.cumsum(self.histogram[::-1])[::-1]
        start = int(np.flatnonzero(above >= share * self.trials)[-1])
        begin = EDGES[start]
        centres = EDGES[start:-1] + 0.025
        excess = float((self.histogram[start:] * (centres**2 - begin**2) / 2).sum())
        count = int(above[start])
        slope = count / max(excess, 1e-9)
        return float(begin), slope, slope * (1 - 1.96 / sqrt(count)), slope * (1 + 1.96 / sqrt(count))

    def expected(self, score: float, slope: float, begin: float) -> float:
        """Probability of a larger score by the fitted tail."""
        return self.over(begin) / self.trials * float(np.exp(-slope * (score**2 - begin**2) / 2))


def segments(prompts: Path, seconds: float) -> Iterator[np.ndarray]:
    """Whitened 5 s segments of human speech, one voice after the other."""
    voices = [speech(voice, seconds, prompts, seed=3) for voice in HUMAN]
    length = SEGMENT_S * RATE_HZ
    for at in range(int(seconds) // SEGMENT_S):
        for whole in voices:
            part = whole[at * length : (at + 1) * length] if whole is not None else ()
            if len(part) == length:
                yield whiten(narrow(part, RATE_HZ))


def fresh_key(number: int) -> MarkKey:
    return MarkKey("null", number & 0xFFFF, number.to_bytes(32))


def verify_trials(white: np.ndarray, number: int, payloads: int = PAYLOADS) -> np.ndarray:
    """The largest score of each of so many random payloads on this segment, searched with a fresh key."""
    key = fresh_key(number)
    aligned = detect._alignments(white, key, sync.search(white, key))
    rng = np.random.default_rng(number)
    names = rng.integers(0, 1 << 63, payloads)
    coded = np.stack([code.encode(int(name)) for name in names])
    rows = np.array([carrier.row(key, int(name), 0) for name in names])
    best = np.full(payloads, -np.inf)
    hz = (carrier.FIRST_BIN + np.arange(carrier.BINS))[DATA] * float(carrier.BIN_HZ)
    for found in aligned:
        tiles = found.tiles[:, DATA]
        hops = len(tiles) // BLOCKS * BLOCKS
        energy = sqrt(float(np.square(np.abs(tiles[:hops])).sum()))
        bits = carrier.bit_of_tile(found.places[:hops])
        middle = np.linspace(-1, 1, len(found.tiles))[:hops].reshape(BLOCKS, -1).mean(axis=1)
        delay_s = np.add.outer(np.outer(middle, align.EDGES_S), align.OFFSETS_S)  # (blocks, edges, offsets)
        turns = np.exp(2j * np.pi * np.einsum("k,beo->bkeo", hz, delay_s))
        turns = turns.reshape(BLOCKS * len(hz), -1).astype(np.complex64)
        conjugate = np.conj(tiles[:hops])
        for at in range(0, payloads, BATCH):
            some = slice(at, at + BATCH)
            products = carrier.data_chips(key, rows[some, None], found.places[None, :hops])
            products *= conjugate
            products *= np.take(coded[some], bits, axis=1)
            sums = products.reshape(len(products), BLOCKS, -1, len(hz)).sum(axis=2).reshape(len(products), -1)
            scores = (np.conj(sums) @ turns).real.max(axis=1) / energy
            best[some] = np.maximum(best[some], scores)
    return best


def count_verify(prompts: Path, trials: int, budget_s: float) -> Counts:
    counts, began = Counts(), time.monotonic()
    number = 0
    while counts.trials < trials and time.monotonic() - began < budget_s:
        for white in segments(prompts, 600.0):
            number += 1
            counts.add(verify_trials(white, number))
            counts.searches += 1
            counts.seconds = time.monotonic() - began
            if counts.trials >= trials or counts.seconds > budget_s:
                break
    return counts


def count_blind(prompts: Path, budget_s: float) -> np.ndarray:
    """`ln_p` of the blind search in each trial; a false alarm is one below ln(1e-6) = -13.8."""
    bounds: list[float] = []
    began, number = time.monotonic(), 1 << 40
    while time.monotonic() - began < budget_s:
        for white in segments(prompts, 600.0):
            number += 1
            key = fresh_key(number)
            aligned = detect._alignments(white, key, sync.search(white, key))
            bounds.append(detect._blind(aligned, key, white).ln_p)
            if time.monotonic() - began > budget_s:
                break
    return np.array(bounds)


def blind_tail(bounds: np.ndarray, share: float = 0.2) -> tuple[float, float, float, float]:
    """(u, s, low, high): below u, with `share` of trials, `P(ln_p < x) = share * exp(s (x - u))`; 95 %."""
    ordered = np.sort(bounds)
    count = max(2, round(share * len(ordered)))
    limit = float(ordered[count - 1])
    slope = count / max(float((limit - ordered[:count]).sum()), 1e-9)
    return limit, slope, slope * (1 - 1.96 / sqrt(count)), slope * (1 + 1.96 / sqrt(count))


def verify_threshold(alignments: int = 5) -> float:
    """The score at which verify's p-value is 1e-6 with one payload on the first lap."""
    return sqrt(2 * (log(alignments * align.RETIMINGS) - log(detect.DETECTED)))
