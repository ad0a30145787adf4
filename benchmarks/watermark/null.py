"""How often unmarked speech is taken for ours: counted, with the searches on.

A segment is 5 s of real speech; the pilot of a fresh key is searched over the whole line, and what the search
hands on is judged twice, by the detector's own code. Verify: at each alignment and each retiming 256 rows of
data chips and 80 payloads on each of them, 20,480 trials, the largest score of each counts; all payloads of a
row at once, since a payload's score is a sum of the row's 128 soft bits. Blind: one trial, of which the bound
on the p-value counts. Halves (`python -m benchmarks.prove null-halves`): each half judges a course that was
fitted anew to the other, by the call's own chips and by those of `OTHERS` other rows and payloads, each of
which is a trial: to all of them the course is as blind.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from math import log, sqrt
from pathlib import Path

import numpy as np

from benchmarks.watermark.host_speech import HUMAN, RATE_HZ, speech
from watermark import align, carrier, code, detect, drift, sync
from watermark.align import Aligned
from watermark.carrier import CODED_BITS, DATA, DATA_BINS, GROUP_HOPS
from watermark.frames import MarkedFrame
from watermark.keys import MarkKey
from watermark.mark import MarkerBank
from watermark.payload import call_payload
from watermark.sound import through_mu_law
from watermark.whiten import narrow, whiten

SEGMENT_S = 5
SPEECH_S = 600.0
"""Of each voice; then the same again, with fresh keys."""
ROWS = 256
PAYLOADS = 80
BATCH = 16
"""Rows judged at once."""
EDGES = np.linspace(0.0, 16.0, 321)


@dataclass
class Counts:
    """Verify: a histogram of the largest score of each trial, from 0 to 16 in steps of .05. Blind: `ln_p` of
    each search."""

    trials: int = 0
    searches: int = 0
    seconds: float = 0.0
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(320, np.int64))
    largest: float = 0.0
    blind: list[float] = field(default_factory=list)

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


def segments(prompts: Path) -> Iterator[np.ndarray]:
    """Whitened 5 s segments of human speech, one voice after the other."""
    voices = [speech(voice, SPEECH_S, prompts, seed=3) for voice in HUMAN]
    length = SEGMENT_S * RATE_HZ
    for at in range(int(SPEECH_S) // SEGMENT_S):
        for whole in voices:
            if whole is None:
                continue
            part = whole[at * length : (at + 1) * length]
            if len(part) == length:
                yield whiten(narrow(part, RATE_HZ))


def verify_trials(aligned: list[Aligned], key: MarkKey, number: int) -> np.ndarray:
    """The largest score, over alignments and retimings, of each payload on each row: `(ROWS * PAYLOADS,)`."""
    rng = np.random.default_rng(number)
    rows = rng.choice(carrier.ROWS, ROWS, replace=False)
    coded = np.stack([code.encode(int(payload)) for payload in rng.integers(0, 1 << 63, PAYLOADS)])
    best = np.full((ROWS, PAYLOADS), -np.inf, np.float32)
    for found in aligned:
        hops = len(found.places) // GROUP_HOPS * GROUP_HOPS
        places, tiles = found.places[:hops], found.tiles[:hops, DATA]
        by_bit = np.argsort(carrier.bit_of_tile(places).ravel(), kind="stable")
        energy = sqrt(float(np.square(np.abs(tiles)).sum()))
        turned = np.conj(tiles)[:, :, None] * _turns(len(found.places))[:hops]
        turned = turned.reshape(hops * DATA_BINS, -1)[by_bit]
        turned = turned.reshape(CODED_BITS, -1, align.RETIMINGS)  # (bits, tiles each, retimings)
        parts = np.concatenate((turned.real, -turned.imag), axis=1)
        for at in range(0, ROWS, BATCH):
            some = slice(at, at + BATCH)
            chips = carrier.data_chips(key, rows[some, None], places[None, :]).reshape(BATCH, -1)[:, by_bit]
            chips = chips.reshape(BATCH, CODED_BITS, -1).transpose(1, 0, 2)
            soft = np.concatenate((chips.real, chips.imag), axis=2) @ parts  # (bits, rows, retimings)
            scores = np.tensordot(coded, soft, axes=1).max(axis=2) / energy  # (payloads, rows)
            best[some] = np.maximum(best[some], scores.T)
    return best.ravel()


@cache
def _turns(hops: int) -> np.ndarray:
    """What each retiming does to the data tiles, complex64 `(hops, 52, RETIMINGS)`, conjugate."""
    hz = (carrier.FIRST_BIN + DATA) * float(carrier.BIN_HZ)
    edges = np.outer(np.linspace(-1, 1, hops), align.EDGES_S)
    delay_s = (edges[:, :, None] + align.OFFSETS_S).reshape(hops, 1, -1)
    return np.exp(-2j * np.pi * hz[:, None] * delay_s).astype(np.complex64)


def null_key(number: int) -> MarkKey:
    """The key of the `number`-th search, which no speech knows."""
    return MarkKey("null", number & 0xFFFF, (number + 1).to_bytes(32))


def searched(white: np.ndarray, number: int) -> np.ndarray:
    """The scores of the verify trials, `(ROWS * PAYLOADS,)`, where the `number`-th search of it ends."""
    key = null_key(number)
    search = sync.Search(white, key)
    aligned = [*detect._steady(white, key, search.steady), *detect._cut(white, key, search)]
    return verify_trials(aligned, key, number)


HALVES_S = 2
OTHERS = 63
HALVES_THRESHOLD = sqrt(2 * (log(2) - log(detect.DETECTED)))
"""Where p = 1e-6 with both halves at one place: 5.39."""


@dataclass(frozen=True)
class HalvesMaterial:
    """Whitened sound of `HALVES_S`, unmarked, and through mu-law of one call's mark from its first hop on."""

    key: MarkKey
    call: int
    unmarked: list[np.ndarray]
    marked: list[np.ndarray]

    @classmethod
    def of(cls, prompts: Path) -> HalvesMaterial:
        key = null_key(0)
        call = call_payload(key, "the call")
        samples = HALVES_S * RATE_HZ
        unmarked, marked = [], []
        for voice in HUMAN:
            whole = speech(voice, 60.0, prompts, seed=4)
            if whole is None:
                continue
            for at in range(0, len(whole) - samples, samples):
                part = whole[at : at + samples]
                bank = MarkerBank(key)
                (frame,) = bank.mark(np.array([bank.open(call)]), part[None])
                if isinstance(frame, MarkedFrame):
                    unmarked.append(whiten(narrow(part, RATE_HZ)))
                    marked.append(whiten(through_mu_law(narrow(frame.samples, RATE_HZ))))
        return cls(key, call, unmarked, marked)

    def scores(self, number: int, pairs: int) -> np.ndarray:
        """Both halves of so many other payloads, `(2 * pairs, 1 + OTHERS)`, the first column by their own
        chips: of unmarked sound, and of every second, which is marked, at the place where it has the call's
        own pilot."""
        found: list[np.ndarray] = []
        for at in range(number * pairs, (number + 1) * pairs):
            payload = call_payload(self.key, f"none {at}")
            sounds, hop = (self.marked, carrier.entry(self.key, self.call)) if at % 2 else (self.unmarked, 0)
            white = sounds[at // 2 % len(sounds)]
            lap = (hop - carrier.entry(self.key, payload)) % carrier.LINE_HOPS if at % 2 else 1_000
            hops, middle = drift.Start(lap).hops(len(white))
            chips = carrier.call_chips(self.key, payload, code.encode(payload), hops)
            others = self._others(at, (carrier.entry(self.key, payload) + hops) % carrier.LINE_HOPS)
            for first, half in enumerate(drift.both_halves(white, chips, middle)):
                energy = float(np.square(np.abs(half.tiles)).sum())
                products = np.einsum("ohb,hb->o", others[:, :, first::2].conj(), half.tiles).real
                found.append(np.array([half.score, *(products / sqrt(energy)).tolist()]))
        return np.stack(found)

    def _others(self, seed: int, places: np.ndarray) -> np.ndarray:
        """Data chips of other rows and payloads at these places, complex64 `(OTHERS, H, 52)`."""
        rng = np.random.default_rng([5, seed])
        rows = rng.choice(carrier.ROWS, OTHERS, replace=False)
        bits = code.encode_all(rng.integers(0, 1 << 63, OTHERS).astype(np.uint64))
        chips = carrier.data_chips(self.key, rows[:, None], places[None, :])
        return np.asarray(chips * bits[:, carrier.bit_of_tile(places)], np.complex64)


def count(prompts: Path, trials: int, budget_s: float) -> Counts:
    """Blind trials for `budget_s` seconds, and at the same places as many verify trials as are wanted."""
    white = list(segments(prompts))
    counts, began = Counts(), time.monotonic()
    while counts.seconds < budget_s:
        number = len(counts.blind)
        each = white[number % len(white)]
        counts.blind.append(detect.by_carrier(detect.pilot_searches(each, null_key(number), (), None)).ln_p)
        if counts.trials < trials:
            counts.add(searched(each, number))
            counts.searches += 1
        counts.seconds = time.monotonic() - began
    return counts


def blind_tail(bounds: np.ndarray, share: float = 0.2) -> tuple[float, float, float, float]:
    """(u, s, low, high): below u, with `share` of trials, `P(ln_p < x) = share * exp(s (x - u))`; 95 %."""
    ordered = np.sort(bounds)
    count = min(len(ordered), max(2, round(share * len(ordered))))
    limit = float(ordered[count - 1])
    slope = count / max(float((limit - ordered[:count]).sum()), 1e-9)
    return limit, slope, slope * (1 - 1.96 / sqrt(count)), slope * (1 + 1.96 / sqrt(count))


def verify_threshold(alignments: int = detect.STEADY + detect.CUT) -> float:
    """The score at which verify's p-value is 1e-6 with one payload on the first lap."""
    return sqrt(2 * (log(alignments * align.RETIMINGS) - log(detect.DETECTED)))
