"""Finding where a recording lies on a key's line, knowing nothing but the key.

The pilot occupies 800 Hz, so the whole line (66.9 min) is 3.2 million complex samples. The recording is cut
into parts, each part is correlated with the whole line by FFT, and the squared magnitudes are added up.

For a steady clock the parts are of 2.56 s, over which an error of 100 ppm costs 1 dB. A recording that a
jitter buffer has stretched and cut has a few splices in each of those: it is cut into pieces of .64 s, and
the sum is that of the likeliest path, which may stray by 10 ms from piece to piece. It grows from both ends
to the recording's middle. The 96 best places are then followed again with pieces of .32 s, of which more
are whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watermark import carrier
from watermark.carrier import BIN_HZ, FIRST_BIN, HOPS_HZ, LINE_HOPS, PILOT, PILOT_BINS
from watermark.keys import MarkKey
from watermark.whiten import NARROW_HZ

Floats = NDArray[np.float32]
Complexes = NDArray[np.complex64]
Indices = NDArray[np.int64]

BASE_HZ: Final = 800
"""Complex sample rate of the pilot: its 600 Hz and the skirts of its windows."""
CENTRE_HZ: Final = 1_100
HOP: Final = BASE_HZ // HOPS_HZ
LINE: Final = LINE_HOPS * HOP
PIECE: Final = 512
WHOLE: Final = 4
"""Pieces in a part of a recording with a steady clock."""
BATCH: Final = 8_192
"""Samples of the recording that are correlated at once, with so many chunks of the line."""
CHUNKS: Final = 4
CHUNK: Final = 8_192
CELL: Final = 8
"""Lags (10 ms) in a cell of a path."""
STRAY: Final = 1.0
"""What straying into the next cell costs it, in units of a piece's mean power."""
REACH: Final = 128
"""How far it is followed to either side, in lags (160 ms)."""
FOLLOWED: Final = 16
"""Places followed at once."""
LISTED: Final = 1_000
"""Places of the steady sum at which the whole recording is added up coherently, at some skews."""
BLOCK: Final = 256
"""Samples (.32 s) over which a skew turns nothing."""
SKEW: Final = 160e-6
"""Clock errors that are looked for."""
TURN_S: Final = 130e-6
"""What half a step of skew may shift the ends of the recording."""
STEADY: Final = (24, 6)
"""Places handed on from the whole line, and from a part of it."""
CUT: Final = (2, 1)
STRAYED: Final = (96, 16)
"""Places that are followed to a path; the best `CUT` of them are handed on."""
FAINT: Final = 0.02
"""A piece with less than this share of the mean energy says nothing."""

assert PIECE % CELL == 0  # noqa: S101  # constants of this file; one that is changed alone shows in every test
assert CENTRE_HZ % HOPS_HZ == 0  # noqa: S101  # the same
assert NARROW_HZ == 10 * BASE_HZ  # noqa: S101  # the same


@dataclass(frozen=True, slots=True)
class Place:
    """The recording may begin at `lag` (in 1/800 s) of the line."""

    lag: int


def pilot_line(key: MarkKey, first_hop: int, hops: int) -> Complexes:
    """The pilot at complex baseband, 8 samples a hop, complex64 `((hops + 1) * 8,)`."""
    chips = carrier.pilot_chips(key, first_hop + np.arange(hops, dtype=np.int64))
    at = np.arange(2 * HOP)
    hz = (FIRST_BIN + np.arange(PILOT.start, PILOT.stop)) * BIN_HZ - CENTRE_HZ
    turns = np.outer(hz, at) / BASE_HZ
    window = np.sin(np.pi * (at + 0.5) / (2 * HOP))
    frames = chips @ (np.exp(2j * np.pi * turns) * window).astype(np.complex64)
    line = np.zeros((hops + 1, HOP), np.complex64)
    line[:-1] += frames[:, :HOP]
    line[1:] += frames[:, HOP:]
    return line.reshape(-1)


@lru_cache(maxsize=6)
def _line(key: MarkKey) -> Complexes:
    """The whole line: 26 MB a key."""
    line = pilot_line(key, 0, LINE_HOPS)
    line[:HOP] += line[LINE:]
    return line[:LINE]


def _part(key: MarkKey, first: int, lags: int) -> Complexes:
    """`lags` hops of the line from `first` on; behind its end it begins anew."""
    line, end = _line(key), first + lags
    if end <= LINE:
        return line[first:end]
    return np.concatenate((line[first:], line[: end - LINE], line[: max(0, end - 2 * LINE)]))


def baseband(white: Floats) -> Complexes:
    """The pilot's band of whitened sound, complex64 at 800 Hz."""
    samples = -(-len(white) // 80) * 8
    spectrum = np.fft.fft(white, samples * 10)
    centre = CENTRE_HZ * samples // BASE_HZ
    band = spectrum[centre - samples // 2 : centre + samples // 2]
    return np.fft.ifft(np.fft.ifftshift(band)).astype(np.complex64)


def pieces(base: Complexes) -> Complexes:
    """The pieces of .64 s, `(P, 512)`, filled up to whole parts; zeros for those that say nothing."""
    count = -(-len(base) // PIECE)
    cut = np.zeros((-(-count // WHOLE) * WHOLE, PIECE), np.complex64)
    cut.reshape(-1)[: len(base)] = base
    energy = np.square(np.abs(cut)).sum(axis=1)
    cut[energy <= FAINT * energy[:count].mean()] = 0.0
    return cut


class Search:
    """The likeliest places of whitened 8 kHz sound on the key's line, best first, each kind sought when it is
    first asked for.

    `first`, `lags`: where on the line it may begin, in 1/800 s; without them, anywhere.
    """

    def __init__(self, white: Floats, key: MarkKey, first: int = 0, lags: int = LINE) -> None:
        self._base = baseband(white)
        self._parts = pieces(self._base)
        self._key, self._first, self._lags = key, first, lags

    @cached_property
    def steady(self) -> list[Place]:
        """Where it may begin if its clock is steady."""
        if not self._parts.any():
            return []
        listed, _ = _peaks(_steady(self._line, self._parts), LISTED, apart=3)
        return self._places(_coherent(self._line, self._base, listed, STEADY[self._lags < LINE]))

    @cached_property
    def cut(self) -> list[Place]:
        """Where it may begin, judged by its middle, if a jitter buffer has cut it."""
        if not self._parts.any():
            return []
        part = self._lags < LINE
        strayed, _ = _peaks(_cut(self._line, self._parts), STRAYED[part], apart=7)
        return self._places(_followed(self._line, self._parts, strayed * CELL)[: CUT[part]])

    @cached_property
    def _line(self) -> Complexes:
        return _part(self._key, self._first, self._lags + self._parts.size)

    def _places(self, found: list[tuple[int, float]]) -> list[Place]:
        return [Place((self._first + lag) % LINE) for lag, _ in found]


def best_score(white: Floats, key: MarkKey) -> float:
    """The score of the best place on the whole line, -1 for silence."""
    parts = pieces(baseband(white))
    return float(_steady(_part(key, 0, LINE + parts.size), parts).max()) if parts.any() else -1.0


def _steady(line: Complexes, parts: Complexes) -> Floats:
    """The power of 2.56 s at a time, added up: `(lags,)`."""
    total = np.zeros(len(line) - parts.size, np.float32)
    size = WHOLE * PIECE
    for at, power in enumerate(_powers(line, parts.reshape(-1, size), 1)):
        total += power[at * size :][: len(total)]
    return total


def _cut(line: Complexes, parts: Complexes) -> Floats:
    """The power of the likeliest path that goes through each cell in the recording's middle."""
    cells, step = -(-(len(line) - parts.size) // CELL), PIECE // CELL
    middle, last = len(parts) // 2, len(parts) - 1
    early = enumerate(_powers(line, parts[:middle], CELL))
    late = enumerate(_powers(line, parts[: middle - 1 : -1], CELL))
    return _strayed(power[at * step :][:cells] for at, power in early) + _strayed(
        power[(last - at) * step :][:cells] for at, power in late
    )


def _strayed(powers: Iterable[Floats]) -> Floats:
    """The power of the likeliest path through the pieces in this order that ends in each cell, or beside it;
    cells are on the last axis."""
    best: Floats = np.zeros(1, np.float32)
    for power in powers:
        best = power + best
        other = best - np.float32(STRAY)
        np.maximum(best[..., 1:], other[..., :-1], out=best[..., 1:])
        np.maximum(best[..., :-1], other[..., 1:], out=best[..., :-1])
    return best


def _followed(line: Complexes, parts: Complexes, found: Indices) -> list[tuple[int, float]]:
    """The paths near these lags again, by pieces of half the length: (lag, score), best first."""
    size = PIECE // 2
    halves = parts.reshape(-1, 1, size)
    middle = len(halves) // 2
    around = np.arange(2 * REACH + size) - REACH + size * np.arange(len(halves))[:, None, None]
    spectra = _spectra(halves, around.shape[-1])
    places: dict[int, float] = {}
    for at in range(0, len(found), FOLLOWED):
        lags = found[at : at + FOLLOWED, None]
        nearby = np.fft.fft(line.take(lags + around, mode="clip"))
        height = np.abs(np.fft.ifft(spectra * nearby)[..., : 2 * REACH])
        powers = np.square(_largest(height, CELL))
        total = _strayed(powers[:middle]) + _strayed(powers[: middle - 1 : -1])
        best = lags[:, 0] - REACH + total.argmax(axis=1) * CELL
        places.update(zip(best.tolist(), total.max(axis=1).tolist(), strict=True))
    return sorted(places.items(), key=lambda place: place[1], reverse=True)


def _spectra(parts: Complexes, size: int) -> Complexes:
    """Conjugate spectra, so scaled that the squared correlation has mean 1 where there is no mark."""
    energy = np.square(np.abs(parts)).sum(axis=-1, keepdims=True)
    scale = np.sqrt(2 * PILOT_BINS * energy) + np.float32(1e-15)
    return np.asarray(np.conj(np.fft.fft(parts, size)) / scale, np.complex64)


def _largest(height: Floats, cell: int) -> Floats:
    """The largest of so many that follow each other on the last axis."""
    largest = height[..., ::cell].copy()
    for at in range(1, cell):
        np.maximum(largest, height[..., at::cell], out=largest)
    return largest


def _powers(line: Complexes, parts: Complexes, cell: int) -> Iterator[Floats]:
    """For each part its squared correlation with the line, the largest in each cell of so many lags:
    `(len(line) // cell,)`. In batches that stay in the processor's cache, and are many enough for numpy to
    transform several at once."""
    size = parts.shape[1]
    stride, many = CHUNK - size, BATCH // size
    for begin in range(0, len(parts), many):
        spectra = _spectra(parts[begin : begin + many, None], CHUNK)
        found = np.empty((len(spectra), CHUNKS, CHUNK), np.complex64)
        height = np.empty((len(spectra), CHUNKS, stride), np.float32)
        powers = np.empty((len(spectra), len(line) // cell), np.float32)
        for first in range(0, len(line), CHUNKS * stride):
            around = np.zeros(CHUNKS * stride + size, np.complex64)
            inside = line[first : first + len(around)]
            around[: len(inside)] = inside
            chunks = np.lib.stride_tricks.sliding_window_view(around, CHUNK)[::stride]
            np.multiply(spectra, np.fft.fft(chunks), out=found)
            np.fft.ifft(found, out=found)  # type: ignore[arg-type]  # numpy's stubs know complex128 only
            np.abs(found[..., :stride], out=height)
            largest = _largest(height.reshape(len(spectra), -1), cell)
            into = powers[:, first // cell : first // cell + largest.shape[1]]
            np.square(largest[:, : into.shape[1]], out=into)
        yield from powers


def _peaks(score: Floats, count: int, apart: int) -> tuple[Indices, Floats]:
    """The highest places, more than `apart` from each other, and their scores; the best first."""
    many = min(len(score), count * (2 * apart + 1))
    at = np.sort(np.argpartition(score, -many)[-many:])
    best = score[at]
    top = np.ones(many, bool)
    for step in range(1, apart + 1):
        near = at[step:] - at[:-step] <= apart
        top[step:] &= ~near | (best[step:] > best[:-step])
        top[:-step] &= ~near | (best[:-step] >= best[step:])
    at, best = at[top], best[top]
    order = np.argsort(best)[::-1][:count]
    return at[order], best[order]


def _coherent(line: Complexes, base: Complexes, lags: Indices, count: int) -> list[tuple[int, float]]:
    """The best of these lags when the whole recording is added up coherently, at the best of some skews."""
    blocks = len(base) // BLOCK
    windows = np.lib.stride_tricks.sliding_window_view(line, BLOCK)
    sums = np.empty((len(lags), blocks), np.complex64)
    for block in range(blocks):
        part = base[block * BLOCK : (block + 1) * BLOCK]
        sums[:, block] = windows[lags + block * BLOCK] @ part.conj()
    time_s = (np.arange(blocks) - (blocks - 1) / 2) * (BLOCK / BASE_HZ)
    turns = round(SKEW * time_s[-1] / (2 * TURN_S)) if blocks > 1 else 0
    skews = np.arange(-turns, turns + 1) * (SKEW / max(turns, 1))
    turned = sums @ np.exp(2j * np.pi * CENTRE_HZ * np.outer(time_s, skews)).astype(np.complex64)
    power = np.square(np.abs(turned)).max(axis=1) / (2 * PILOT_BINS * np.square(np.abs(base)).sum())
    order = np.argsort(power)[::-1][:count]
    return [(int(lags[at]), float(power[at])) for at in order]
