"""Laying a recording on the grid of hops and bins, to some 10 microseconds, by its pilot.

Two models of what happened to time: a **steady** clock (one offset, one skew), fitted coherently over the
whole recording, and a **cut** one, where a jitter buffer has taken out or put in sound: a Viterbi path over
the offset of blocks of 160 ms.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watermark import carrier, sync
from watermark.carrier import BIN_HZ, BINS, CODED_BITS, DATA, FIRST_BIN, GROUP_HOPS, HOPS_HZ, PILOT
from watermark.keys import MarkKey
from watermark.sync import HOP as LAG_HOP
from watermark.sync import Place
from watermark.whiten import NARROW_HZ

Floats = NDArray[np.float32]
Complexes = NDArray[np.complex64]
Indices = NDArray[np.int64]
Reals = NDArray[np.floating]

HOP: Final = NARROW_HZ // HOPS_HZ
FRAME: Final = 2 * HOP
LAG: Final = HOP // LAG_HOP
"""Samples at 8 kHz in one lag of the search."""
AT_ONCE: Final = 64
"""Frames whose spectra are made at once: memory for all would be fetched anew from the system each time."""
OFFSET_S: Final = 0.8e-3
GRID_S: Final = 1 / 32_000
EDGE_S: Final = 40e-6
"""Steps of its grid: of the offset, and how far from the right skew's the recording's ends may lie."""
FINER: Final = 4
"""How much finer the tiles are laid afterwards; the pilot's score stays that of the grid."""
SUM: Final = 8
"""Hops whose products the steady fit adds up before it looks at skews."""
EDGES_S: Final = np.arange(-5, 6) * 20e-6
"""Shifts of the ends, and below of the whole, that are tried once the data's chips are known."""
OFFSETS_S: Final = np.arange(-3, 4) * 10e-6
RETIMINGS: Final = len(EDGES_S) * len(OFFSETS_S)
BLOCK: Final = 16
"""Hops in a block of the cut fit."""
REACH: Final = 640
"""How far its path may stray, in samples at 8 kHz (80 ms)."""
LEAP: Final = 256
"""How far a cut may take it (32 ms: more than a packet)."""
CUT: Final = 0.35
"""What a cut costs the path, in units of the score."""
DRIFT: Final = 0.15
"""What a step of one sample costs it."""

_WINDOW: Final = np.sin(np.pi * (np.arange(FRAME) + 0.5) / FRAME).astype(np.float32)
_BAND: Final = slice(FIRST_BIN, FIRST_BIN + BINS)
_HZ: Final = np.float64(BIN_HZ) * (FIRST_BIN + np.arange(BINS))
_PILOT_HZ: Final = _HZ[PILOT]


@dataclass(slots=True)
class Aligned:
    """Tiles of a recording, in phase with the chips.

    `places`: line hops, int64 `(H,)`. `tiles`: complex64 `(H, 64)`. `at_s`: where each hop begins in the
    recording. `pilot`: the pilot's score, of a path less what its cuts cost. `skew`: how much slower than its
    call the recording runs.
    `ln_tried`: logarithm of the number of places and fits among which this one has the best pilot.
    """

    places: Indices
    tiles: Complexes
    at_s: NDArray[np.float64]
    pilot: float
    skew: float
    ln_tried: float


def frames(white: Floats, starts: Indices) -> Complexes:
    """Spectra of the 20 ms frames at `starts`, complex64 `(H, 64)`; what lies outside is zero."""
    padded = np.concatenate((np.zeros(REACH, np.float32), white, np.zeros(REACH + FRAME, np.float32)))
    views = np.lib.stride_tricks.sliding_window_view(padded, FRAME)
    inside = np.clip(starts + REACH, 0, len(views) - 1)
    tiles = np.empty((len(starts), BINS), np.complex64)
    for at in range(0, len(starts), AT_ONCE):
        windowed = views[inside[at : at + AT_ONCE]] * _WINDOW
        tiles[at : at + AT_ONCE] = np.fft.rfft(windowed)[:, _BAND]
    return tiles


def _pilot_tiles(white: Floats, starts: Indices) -> Complexes:
    """The pilot's part of `frames`, complex64 `(H, 12)`, for frames that follow each other inside `white`."""
    hops = white[starts[0] : starts[-1] + FRAME].reshape(-1, HOP)
    windowed = np.empty((len(starts), FRAME), np.float32)
    np.multiply(hops[:-1], _WINDOW[:HOP], out=windowed[:, :HOP])
    np.multiply(hops[1:], _WINDOW[HOP:], out=windowed[:, HOP:])
    return np.asarray(np.fft.rfft(windowed)[:, _BAND][:, PILOT], np.complex64)


def _grid(white: Floats, place: Place) -> tuple[Indices, Indices]:
    """Line hops that lie inside the recording, and the samples where they begin."""
    first = -(-place.lag // LAG_HOP)
    start = first * HOP - place.lag * LAG
    count = max(0, (len(white) - FRAME - start) // HOP + 1)
    hops = np.arange(count, dtype=np.int64)
    return first + hops, start + hops * HOP


@dataclass(slots=True)
class Fit:
    """A place's steady fit, the best of `tried`; a search of skews went by `skew_step`."""

    place: Place
    score: float
    offset_s: float
    skew: float
    skew_step: float
    tried: int


def fit(white: Floats, key: MarkKey, place: Place) -> Fit | None:
    """The best offset and skew at `place`; None when less than half a second lies on it."""
    places, starts = _grid(white, place)
    if len(places) < HOPS_HZ // 2:
        return None
    tiles = _pilot_tiles(white, starts)
    products, time_s = _blocks(tiles * np.conj(carrier.pilot_chips(key, places)), starts)
    step = EDGE_S * 2 / max(float(np.abs(time_s).max()), 0.5)
    skews = np.arange(-round(sync.SKEW / step), round(sync.SKEW / step) + 1) * step
    offsets = np.arange(-round(OFFSET_S / GRID_S), round(OFFSET_S / GRID_S) + 1) * GRID_S
    score, offset_s, skew = _best(products, time_s, skews, offsets)
    energy = float(np.sqrt(np.square(np.abs(tiles)).sum())) or 1.0
    return Fit(place, score / energy, offset_s, skew, step, len(skews) * len(offsets))


def _best(
    products: Complexes, time_s: NDArray[np.float64], skews: Reals, offsets: Reals
) -> tuple[float, float, float]:
    """The highest sum of the pilot's products on a grid of even steps, and the offset and skew it is at."""
    turned = products * np.exp(2j * np.pi * np.outer(skews[0] * time_s, _PILOT_HZ))
    turn = np.exp(2j * np.pi * np.outer((skews[1] - skews[0]) * time_s, _PILOT_HZ))
    per_bin = np.empty((len(skews), len(_PILOT_HZ)), np.complex128)
    for at in range(len(skews)):
        per_bin[at] = turned.sum(axis=0)
        turned *= turn
    sums = (per_bin @ np.exp(2j * np.pi * np.outer(_PILOT_HZ, offsets))).real
    skew, offset = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return float(sums[skew, offset]), float(offsets[offset]), float(skews[skew])


def _blocks(products: Complexes, starts: Indices) -> tuple[Complexes, NDArray[np.float64]]:
    """Products summed over 8 hops, and the blocks' times from the middle in seconds."""
    whole = len(products) // SUM
    summed = products[: whole * SUM].reshape(whole, SUM, -1).sum(axis=1)
    at = starts[: whole * SUM].reshape(whole, SUM).mean(axis=1) + FRAME / 2
    return summed, (at - _middle(starts)) / NARROW_HZ


def _middle(starts: Indices) -> float:
    return float(starts[0] + starts[-1] + FRAME) / 2


def steady(white: Floats, key: MarkKey, found: Fit) -> Aligned:
    """The recording laid on the grid as `found` says, and a little better."""
    places, starts = _grid(white, found.place)
    tiles = frames(white, starts)
    products, time_s = _blocks(tiles[:, PILOT] * np.conj(carrier.pilot_chips(key, places)), starts)
    steps = np.arange(-FINER, FINER + 1) / FINER
    skews, offsets = found.skew + steps * found.skew_step, found.offset_s + steps * GRID_S
    _, offset_s, skew = _best(products, time_s, skews, offsets)
    from_middle_s = (starts + FRAME / 2 - _middle(starts)) / NARROW_HZ
    delay_s = offset_s + skew * from_middle_s
    tiles *= np.exp(2j * np.pi * np.outer(delay_s, _HZ)).astype(np.complex64)
    return Aligned(
        places, tiles, starts / NARROW_HZ + delay_s, found.score, skew, log(sync.LINE * found.tried)
    )


def retimed(found: Aligned, chips: Complexes) -> Aligned:
    """`found` with the offset and skew, near its own, at which all of `chips` `(H, 64)` fit best: the pilot
    alone leaves some 10 ppm open, which the higher bins feel."""
    products = found.tiles * np.conj(chips)
    values = (_edged(products, _HZ).sum(axis=1) @ _offset_turns(_HZ)).real
    return _moved(found, values)


def retimed_by_bits(found: Aligned, bare: Complexes) -> tuple[Aligned, float]:
    """`found` at the offset and skew, near its own, at which the bits on these data chips `(H, 52)`, whatever
    they are, have most energy; and that energy, about 128 without a mark."""
    inside = carrier.groups(found.places)
    products = (found.tiles[:, DATA] * np.conj(bare))[inside]
    hz = _HZ[DATA]
    by_tile = _edged(products, hz).reshape(len(EDGES_S), -1, GROUP_HOPS, len(hz)).sum(axis=1)
    turned = (by_tile[:, None] * _offset_turns(hz).T[:, None]).real
    soft = turned.reshape(len(EDGES_S), len(OFFSETS_S), -1, CODED_BITS).sum(axis=2)
    energy = np.square(soft).sum(axis=2)
    spread = max(float(np.square(products.real).sum()), 1e-30) / CODED_BITS
    return _moved(found, energy), float(energy.max() / spread)


def _edged(products: Complexes, hz: NDArray[np.float64]) -> Complexes:
    """Products `(H, n)` with the ends shifted by each of `EDGES_S`: complex64 `(11, H, n)`."""
    from_middle = np.linspace(-1, 1, len(products))
    turned = np.empty((len(EDGES_S), *products.shape), np.complex64)
    turned[0] = products * np.exp(2j * np.pi * np.outer(EDGES_S[0] * from_middle, hz))
    step = np.exp(2j * np.pi * np.outer((EDGES_S[1] - EDGES_S[0]) * from_middle, hz)).astype(np.complex64)
    for at in range(1, len(EDGES_S)):
        np.multiply(turned[at - 1], step, out=turned[at])
    return turned


def _offset_turns(hz: NDArray[np.float64]) -> Complexes:
    """What each of `OFFSETS_S` does to these frequencies, complex64 `(n, 7)`."""
    return np.exp(2j * np.pi * np.outer(hz, OFFSETS_S)).astype(np.complex64)


def _moved(found: Aligned, values: NDArray[np.floating]) -> Aligned:
    """`found`, retimed to where `values` `(11, 7)`, of each shift of the ends and of the whole, are best."""
    edge, offset = np.unravel_index(int(np.argmax(values)), values.shape)
    delay_s = OFFSETS_S[offset] + EDGES_S[edge] * np.linspace(-1, 1, len(found.tiles))
    long_s = max(float(found.at_s[-1] - found.at_s[0]), 1 / HOPS_HZ)
    return replace(
        found,
        tiles=found.tiles * np.exp(2j * np.pi * np.outer(delay_s, _HZ)).astype(np.complex64),
        at_s=found.at_s + delay_s,
        skew=found.skew + 2 * float(EDGES_S[edge]) / long_s,
    )


def cut(white: Floats, key: MarkKey, place: Place) -> Aligned | None:
    """The recording laid on the grid by a path that may jump; None when it is shorter than a second."""
    places, starts = _grid(white, place)
    skip = int(-places[0]) % BLOCK if len(places) else 0
    blocks = (len(places) - skip) // BLOCK
    if blocks * BLOCK < HOPS_HZ:
        return None
    places = places[skip : skip + blocks * BLOCK]
    starts = starts[skip : skip + blocks * BLOCK]
    pilot = carrier.pilot_chips(key, places)
    energy = float(np.sqrt(np.square(np.abs(_pilot_tiles(white, starts))).sum())) or 1.0
    lags, score = _path(_block_scores(white, pilot, starts[::BLOCK]) / energy)
    starts = starts + np.repeat(lags, BLOCK)
    tiles = frames(white, starts)
    begins = np.flatnonzero(np.diff(lags, prepend=REACH + 1))
    run = np.repeat(np.arange(len(begins)), np.diff(begins, append=len(lags)) * BLOCK)
    parts = np.arange(-6, 7) / 8 / NARROW_HZ
    turns = np.exp(2j * np.pi * np.outer(_PILOT_HZ, parts))
    summed = np.add.reduceat(tiles[:, PILOT] * np.conj(pilot), begins * BLOCK)
    delays_s = parts[np.argmax((summed @ turns).real, axis=1)]
    tiles *= np.exp(2j * np.pi * np.outer(delays_s, _HZ)).astype(np.complex64)[run]
    return Aligned(
        places,
        tiles,
        starts / NARROW_HZ + delays_s[run],
        score,
        0.0,
        np.inf,  # paths are too many for their pilots to prove anything
    )


def _block_scores(white: Floats, pilot: Complexes, starts: Indices) -> Floats:
    """The pilot's correlation in each block at every lag within reach, `(blocks, 2 * REACH + 1)`."""
    spectrum = np.zeros((len(pilot), HOP + 1), np.complex64)
    spectrum[:, FIRST_BIN + PILOT.start : FIRST_BIN + PILOT.stop] = pilot * np.float32(HOP)
    drawn = (np.fft.irfft(spectrum, FRAME, axis=1) * _WINDOW).reshape(len(starts), BLOCK, FRAME)
    halves = np.zeros((len(starts), BLOCK + 1, HOP), np.float32)
    halves[:, :-1] += drawn[:, :, :HOP]
    halves[:, 1:] += drawn[:, :, HOP:]
    wave = halves.reshape(len(starts), -1)
    long = wave.shape[1] + 2 * REACH
    size = 2_700  # of small factors, and as long as a block and its reach
    padded = np.concatenate((np.zeros(REACH, np.float32), white, np.zeros(long + REACH, np.float32)))
    around = padded[np.clip(starts, 0, len(white))[:, None] + np.arange(long)]
    found = np.fft.irfft(np.fft.rfft(around, size) * np.conj(np.fft.rfft(wave, size)), size)
    return found[:, : 2 * REACH + 1].astype(np.float32)


def _path(scores: Floats) -> tuple[Indices, float]:
    """The best path of lags through the blocks, in samples, and its score less what its steps cost."""
    count, width = scores.shape
    totals = np.full((count, width + 2 * LEAP), -np.inf, np.float32)
    inside = totals[:, LEAP : LEAP + width]
    inside[0] = scores[0]
    for at in range(1, count):
        before, highest = totals[at - 1], totals[at - 1]
        for step in (1 << n for n in range(LEAP.bit_length())):
            highest = np.maximum(highest[:-step], highest[step:])
        best = np.maximum(inside[at - 1], highest[:width] - np.float32(CUT))
        drifted = np.maximum(before[LEAP - 1 :][:width], before[LEAP + 1 :][:width]) - np.float32(DRIFT)
        inside[at] = np.maximum(best, drifted) + scores[at]
    cost = np.full(2 * LEAP, CUT, np.float32)
    cost[LEAP - 1 : LEAP + 2] = DRIFT, 0.0, DRIFT
    lags = np.empty(count, np.int64)
    lags[-1] = int(np.argmax(inside[-1]))
    for at in range(count - 1, 0, -1):
        lag = int(lags[at])
        lags[at - 1] = lag - LEAP + int(np.argmax(totals[at - 1, lag : lag + 2 * LEAP] - cost))
    return lags - REACH, float(inside[-1].max())
