"""Laying a recording whose time wanders on the grid of hops and bins.

A wobble of a millisecond turns the carrier's phases by whole turns while nobody hears it, and neither a
steady clock nor a path of offsets (`align`) can follow it. Here every block of 40 ms has an **offset** and a
**rate**, and a Viterbi path goes through both: first far and coarse, in steps of 1/16 ms and .6 % of rate,
then near that path in steps of 1/64 ms and .16 %. Frames are read at the rate of their block.

The place where the recording lies must be known to some 30 ms: from the envelope layer, from the registry, or
from who asks. Nothing is sought along the line.

**Why paths are not counted.** The best of the some e^640 paths through 10 s would need a score of 36. So a
path is fitted to the pilot and to one half of the data bins, and judged by the other half, which it has not
seen; then the other way round. The chips that judge are fair coins that depend neither on the sound nor on
the chips that chose the path. So for every path that could have been chosen, the score of the judging half is
a weighted sum of fair coins, whose tail Hoeffding's inequality bounds, `P(score > z) <= exp(-z^2 / 2)`: one
path is one try, however it was found. What counts is how often is judged: two halves at each place, N = 2 *
places, and p = 1e-6 is at z = 5.4 for one place. The score is that of half the data: .71 of the whole's.

Where the payload is not known the path is fitted to the pilot alone, and all of the data judge (`by_pilot`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, inf, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watermark import carrier
from watermark.align import Aligned
from watermark.carrier import BIN_HZ, BINS, DATA, FIRST_BIN, HOPS_HZ, LINE_HOPS, PILOT
from watermark.keys import MarkKey
from watermark.whiten import NARROW_HZ

Floats = NDArray[np.float32]
Complexes = NDArray[np.complex64]
Indices = NDArray[np.int64]
Reals = NDArray[np.float64]

HOP: Final = NARROW_HZ // HOPS_HZ
FRAME: Final = 2 * HOP
BLOCK: Final = 4
"""Hops in a block (40 ms), which has one rate."""
SHEAR: Final = 4
"""Steps by which one step of rate moves the offset from block to block."""
CUT: Final = 9.0
"""What a jump to any offset and rate costs the path, in standard deviations of a hop's correlation."""
BENT: Final = 0.5
"""What a change of the rate by `BEND` from one block to the next costs it; the cost grows with the square."""
BEND: Final = 0.0047
MOST: Final = 6
"""Steps by which the rate may change at most; a jump is free to change it by any."""
CLEAR: Final = 9.0
"""A half that scores so high needs no other one, which counts nevertheless."""
SHORTEST_HOPS: Final = HOPS_HZ
"""A path through less than a second is not sought."""
HALVES: Final = (DATA[0::2], DATA[1::2])
REACH_S: Final = 0.03
"""How far from its place a recording may begin to be followed."""

_WINDOW: Final = np.sin(np.pi * (np.arange(FRAME) + 0.5) / FRAME).astype(np.float32)
_HZ: Final = np.float64(BIN_HZ) * (FIRST_BIN + np.arange(BINS))
_IN_BLOCK: Final = np.arange(BLOCK) - (BLOCK - 1) / 2


@dataclass(frozen=True, slots=True)
class Start:
    """A recording may begin at this `hop` of its call, or of the key's line, and be faster by the share
    `tempo`."""

    hop: float
    tempo: float = 0.0

    def hops(self, samples: int, first: int | None = None) -> tuple[Indices, Reals]:
        """The hops, from `first` on, whose frames lie inside so many samples at 8 kHz, and the frames'
        middles in samples."""
        long = HOP / (1 + self.tempo)
        begin = ceil(self.hop) if first is None else max(ceil(self.hop), first)
        count = int((samples - FRAME - (begin - self.hop) * long) // long) + 1
        hops = begin + np.arange(max(0, count // BLOCK * BLOCK), dtype=np.int64)
        return hops, np.asarray((hops - self.hop) * long + FRAME / 2, np.float64)


@dataclass(frozen=True, slots=True)
class Grid:
    """What a path may go through: `fine` steps of offset a sample, `reach` samples to either side of where it
    is looked for, `rates` steps of rate to either side of an even one. `size`: of the FFT."""

    fine: int
    reach: int
    rates: int
    size: int

    @property
    def rate(self) -> float:
        """One step of rate."""
        return SHEAR / (self.fine * BLOCK * HOP)

    @property
    def aside(self) -> int:
        """Steps by which a block's outer hops lie off its middle at the highest rate."""
        return -(-self.rates * SHEAR * (BLOCK - 1) // (2 * BLOCK))


FAR: Final = Grid(fine=2, reach=300, rates=3, size=768)
CLOSE: Final = Grid(fine=8, reach=8, rates=13, size=192)


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """Where the hops of a call lie in a recording: the `middle` of each hop's frame, in samples at 8 kHz,
    float64 `(H,)`, and how much slower than in the call it is played there, `rate` `(H,)`. `score`: of the
    path, less what its turns cost."""

    middle: Reals
    rate: Reals
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class Half:
    """What one half of the data says along the course of the other: its `score`, about standard normal
    without a mark, and what it is made of: `tiles` and `chips` `(H, 26)`, and where the hops begin,
    `at_s`."""

    score: float
    tiles: Complexes
    chips: Complexes
    at_s: Reals
    skew: float


def halves(white: Floats, chips: Complexes, middle: Reals) -> Half | None:
    """The better of the two halves of the data of a call's chips `(H, 64)`, whose frames would lie around
    `middle` `(H,)` if time went evenly; None for less than a second."""
    if len(chips) < SHORTEST_HOPS:
        return None
    best: Half | None = None
    for half in both_halves(white, chips, middle):
        best = half if best is None or half.score > best.score else best
        if best.score > CLEAR:
            break
    return best


def both_halves(white: Floats, chips: Complexes, middle: Reals) -> Iterator[Half]:
    """Each half of the data along the course of all other chips; none is followed before it is asked for."""
    for half in HALVES:
        others = chips.copy()
        others[:, half] = 0.0
        course = followed(white, others, middle)
        yield _half(laid(white, course)[:, half], chips[:, half], course)


def _half(tiles: Complexes, chips: Complexes, course: Course) -> Half:
    energy = float(np.square(np.abs(tiles)).sum())
    score = float((tiles * np.conj(chips)).real.sum()) / sqrt(energy) if energy > 0 else 0.0
    return Half(score, tiles, chips, (course.middle - FRAME / 2) / NARROW_HZ, _skew(course))


def _skew(course: Course) -> float:
    """How much slower than the call the recording runs, on the whole."""
    long = course.middle[-1] - course.middle[0]
    return float(long / ((len(course.middle) - 1) * HOP) - 1)


def by_pilot(white: Floats, key: MarkKey, start: Start) -> Aligned | None:
    """The recording laid on the key's line along the course of its pilot, which has seen no data; None for
    less than a second. Its pilot's score proves nothing: `ln_tried` is infinite."""
    hops, middle = start.hops(len(white))
    if len(hops) < SHORTEST_HOPS:
        return None
    places = hops % LINE_HOPS
    chips = np.zeros((len(hops), BINS), np.complex64)
    chips[:, PILOT] = carrier.pilot_chips(key, places)
    course = followed(white, chips, middle)
    tiles = laid(white, course)
    at_s = (course.middle - FRAME / 2) / NARROW_HZ
    return Aligned(places, tiles, at_s, course.score, _skew(course), inf)


def followed(white: Floats, chips: Complexes, middle: Reals) -> Course:
    """The likeliest course of these chips `(H, 64)`, zero where they are not to be looked at, around
    `middle`; H is a multiple of `BLOCK`."""
    starts = np.rint(middle - FRAME / 2).astype(np.int64)
    waves = np.asarray((chips @ _waves_of_bins(0.0)).real * _WINDOW, np.float32)
    offset, _, _ = _path(FAR, _correlated(FAR, white, waves, starts), np.zeros(len(chips) // BLOCK, np.int64))
    coarse = np.rint(offset / FAR.fine).astype(np.int64)
    found = _correlated(CLOSE, white, waves, starts + np.repeat(coarse, BLOCK))
    near, rate, score = _path(CLOSE, found, coarse)
    rates = np.repeat(rate * CLOSE.rate, BLOCK)
    aside = np.tile(_IN_BLOCK * HOP, len(near)) * rates
    return Course(starts + FRAME / 2 + np.repeat(coarse + near / CLOSE.fine, BLOCK) + aside, rates, score)


def laid(white: Floats, course: Course) -> Complexes:
    """Tiles along a course, complex64 `(H, 64)`, each frame read at its own rate."""
    starts = np.floor(course.middle - FRAME / 2).astype(np.int64)
    frames = _around(white, starts, 0, FRAME) * _WINDOW
    tiles = np.empty((len(starts), BINS), np.complex64)
    for rate in np.unique(course.rate).tolist():
        here = course.rate == rate
        tiles[here] = frames[here] @ np.conj(_waves_of_bins(rate)).T
    late_s = (course.middle - FRAME / 2 - starts) / NARROW_HZ
    tiles *= np.exp(2j * np.pi * np.outer(late_s, _HZ)).astype(np.complex64)
    return tiles


@lru_cache(maxsize=2 * CLOSE.rates + 1)
def _waves_of_bins(rate: float) -> Complexes:
    """Each bin's wave in a frame that is played slower by this share: complex64 `(64, 160)`."""
    middle = (FRAME - 1) / 2
    at = middle + (np.arange(FRAME) - middle) / (1 + rate)
    return np.exp(2j * np.pi * np.outer(_HZ, at) / NARROW_HZ).astype(np.complex64)


def _around(white: Floats, starts: Indices, before: int, length: int) -> Floats:
    """`(n, length)` of the recording from `before` samples ahead of each start; zeros outside."""
    padded = np.concatenate((np.zeros(before + length, np.float32), white, np.zeros(length, np.float32)))
    views = np.lib.stride_tricks.sliding_window_view(padded, length)
    around: Floats = views[np.clip(starts + length, 0, len(views) - 1)]
    return around


def _correlated(grid: Grid, white: Floats, waves: Floats, starts: Indices) -> Floats:
    """The correlation of each hop with its wave, in steps around its start, rms 1:
    `(H, 2 * (reach * fine + aside) + 1)`."""
    side = grid.reach * grid.fine + grid.aside
    before = -(-side // grid.fine)
    around = _around(white, starts, before, FRAME + 2 * before)
    spectra = np.fft.rfft(around, grid.size) * np.conj(np.fft.rfft(waves, grid.size))
    lags = np.fft.irfft(spectra, grid.size * grid.fine)
    found = lags[:, before * grid.fine - side :][:, : 2 * side + 1]
    found /= np.sqrt(np.square(found).mean(axis=1, keepdims=True)) + np.float32(1e-12)
    return np.asarray(found, np.float32)


def _block_scores(grid: Grid, hops: Floats) -> Floats:
    """The sum of each block's hops along each offset and rate: `(K, rates, offsets)`."""
    blocks = hops.reshape(-1, BLOCK, hops.shape[1])
    width = hops.shape[1] - 2 * grid.aside
    scores = np.empty((len(blocks), 2 * grid.rates + 1, width), np.float32)
    for row in range(2 * grid.rates + 1):
        aside = np.floor(SHEAR * (row - grid.rates) * _IN_BLOCK / BLOCK + 0.5).astype(np.int64)
        first, *others = (aside + grid.aside).tolist()
        into = scores[:, row]
        into[:] = blocks[:, 0, first : first + width]
        for hop, begin in enumerate(others, 1):
            into += blocks[:, hop, begin : begin + width]
    return scores


def _path(grid: Grid, hops: Floats, centres: Indices) -> tuple[Indices, Indices, float]:
    """Offset (in steps from its centre, at the block's middle) and rate of each block, and the path's score.
    `centres`: where each block is looked for, in samples."""
    scores = _block_scores(grid, hops)
    count, rates, width = scores.shape
    most = min(MOST, int(sqrt(CUT / BENT) * BEND / grid.rate))
    cost = (BENT * np.square(np.arange(-most, most + 1) * grid.rate / BEND)).astype(np.float32)
    moved = np.diff(centres) * grid.fine
    totals = np.empty_like(scores)
    totals[0] = scores[0]
    wide = np.full((rates, 3 * width), -np.inf, np.float32)
    turned = np.full((rates + 2 * most, width), -np.inf, np.float32)
    other = np.empty((rates, width), np.float32)
    begins = width - SHEAR * (np.arange(rates) - grid.rates)
    for at in range(1, count):
        before, best = totals[at - 1], totals[at]
        wide[:, width : 2 * width] = before
        for row, begin in enumerate((begins + moved[at - 1]).clip(0, 2 * width).tolist()):
            turned[most + row] = wide[row, begin : begin + width]
        best.fill(before.max() - CUT)
        for bend in range(2 * most + 1):
            np.subtract(turned[bend : bend + rates], cost[bend], out=other)
            np.maximum(best, other, out=best)
        best += scores[at]
    return _traced(grid, totals, cost, moved)


def _traced(grid: Grid, totals: Floats, cost: Floats, moved: Indices) -> tuple[Indices, Indices, float]:
    """The best path, from its end."""
    count, rates, width = totals.shape
    most = len(cost) // 2
    offset, rate = np.empty(count, np.int64), np.empty(count, np.int64)
    row, column = divmod(int(totals[-1].argmax()), width)
    score = float(totals[-1, row, column])
    for at in range(count - 1, 0, -1):
        rate[at], offset[at] = row, column
        before = totals[at - 1]
        came = divmod(int(before.argmax()), width)
        best = before[came] - CUT
        for other in range(max(0, row - most), min(rates, row + most + 1)):
            beside = column - SHEAR * (other - grid.rates) + int(moved[at - 1])
            if 0 <= beside < width and before[other, beside] - cost[other - row + most] > best:
                best, came = before[other, beside] - cost[other - row + most], (other, beside)
        row, column = came
    rate[0], offset[0] = row, column
    return offset - width // 2, rate - grid.rates, score
