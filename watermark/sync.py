"""Finding where a recording lies on a key's line, knowing nothing but the key.

The pilot occupies 800 Hz, so the whole line (66.9 min) is 3.2 million complex samples. The recording is cut
into pieces of 1.28 s; each is correlated with the whole line by FFT. Pairs of them are added coherently
(2.56 s, over which a clock error of 100 ppm costs 1 dB), and the squared magnitudes of the pairs along the
diagonal. A second sum, of single pieces with a tolerance of 40 ms, serves recordings that a jitter buffer
has stretched and cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from watermark import carrier
from watermark.carrier import BIN_HZ, FIRST_BIN, HOPS_HZ, LINE_HOPS, PILOT, PILOT_BINS
from watermark.keys import MarkKey
from watermark.whiten import NARROW_HZ

Floats = NDArray[np.float32]
Complexes = NDArray[np.complex64]
Indices = NDArray[np.int64]
Number = TypeVar("Number", np.float32, np.complex64)

BASE_HZ: Final = 800
"""Complex sample rate of the pilot: its 600 Hz and the skirts of its windows."""
CENTRE_HZ: Final = 1_100
HOP: Final = BASE_HZ // HOPS_HZ
LINE: Final = LINE_HOPS * HOP
PIECE: Final = 1_024
CHUNK: Final = 8_192
STRIDE: Final = CHUNK - PIECE
CHUNKS: Final = LINE // STRIDE
BLOCK: Final = 256
"""Samples (.32 s) over which a skew turns nothing."""
CELL: Final = 16
"""Lags (20 ms) in a cell of the tolerant search."""
LISTED: Final = 1_000
"""Places of the exact sum whose pieces are added up coherently, at some skews."""
SKEW: Final = 160e-6
"""Clock errors that are looked for."""
TURN_S: Final = 130e-6
"""What half a step of skew may shift the ends of the recording."""
EXACT: Final = 24
TOLERANT: Final = 6
"""Places handed on by each search of the whole line; a search of a part of it hands on fewer."""
FAINT: Final = 0.02
"""A piece with less than this share of the mean energy says nothing."""

assert CHUNKS * STRIDE == LINE
assert PIECE % CELL == 0
assert CENTRE_HZ % HOPS_HZ == 0
assert NARROW_HZ == 10 * BASE_HZ


@dataclass(frozen=True, slots=True)
class Place:
    """The recording may begin at `lag` (in 1/800 s) of the line; `tolerant`: within some 40 ms of it."""

    lag: int
    score: float
    tolerant: bool = False


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
    """The whole line's pilot, and its beginning once more: 26 MB a key."""
    line = pilot_line(key, 0, LINE_HOPS)
    line[:HOP] += line[LINE:]
    return np.concatenate((line[:LINE], line[:PIECE]))


@lru_cache(maxsize=6)
def _line_spectra(key: MarkKey) -> Complexes:
    """Spectra of the line's overlapping chunks, `(448, 8192)`: 29 MB a key."""
    chunks = np.lib.stride_tricks.sliding_window_view(_line(key), CHUNK)[::STRIDE]
    return np.asarray(np.fft.fft(chunks, axis=1), np.complex64)


def baseband(white: Floats) -> Complexes:
    """The pilot's band of whitened sound, complex64 at 800 Hz."""
    samples = -(-len(white) // 80) * 8
    spectrum = np.fft.fft(white, samples * 10)
    centre = CENTRE_HZ * samples // BASE_HZ
    band = spectrum[centre - samples // 2 : centre + samples // 2]
    return np.fft.ifft(np.fft.ifftshift(band)).astype(np.complex64)


def pieces(base: Complexes) -> list[tuple[int, Complexes]]:
    """(index, 1024 samples) of the pieces that hold sound; the last may be padded."""
    count = max(1, round(len(base) / PIECE))
    padded = np.zeros(count * PIECE, np.complex64)
    padded[: len(base)] = base[: len(padded)]
    cut = padded.reshape(count, PIECE)
    energy = np.square(np.abs(cut)).sum(axis=1)
    return [(int(k), cut[k]) for k in np.flatnonzero(energy > FAINT * energy.mean())]


def _correlate(spectra: Complexes, piece: Complexes) -> Complexes:
    """Correlation with the chunks at every lag, complex64 `(chunks * STRIDE,)`."""
    product = spectra * np.conj(np.fft.fft(piece, CHUNK)).astype(np.complex64)
    found = np.asarray(np.fft.ifft(product, axis=1), np.complex64)
    return found[:, :STRIDE].reshape(-1)


def _power(found: Complexes, energy: float) -> Floats:
    """Its square, with mean 1 where there is no mark."""
    power = np.square(found.real)
    power += np.square(found.imag)
    power *= np.float32(1 / (2 * PILOT_BINS * energy))
    return power


def _cells(power: Floats) -> Floats:
    """The largest in each cell; halving is twice as quick as one reduction over 16."""
    cells = power.reshape(-1, CELL)
    while cells.shape[1] > 1:
        half = cells.shape[1] // 2
        cells = np.maximum(cells[:, :half], cells[:, half:])
    return cells[:, 0]


def search(white: Floats, key: MarkKey, first: int = 0, lags: int = LINE) -> list[Place]:
    """The likeliest places of whitened 8 kHz sound on the key's line, best first.

    `first`, `lags`: where on the line it may begin, in 1/800 s; without them, anywhere.
    """
    base = baseband(white)
    parts = pieces(base)
    if not parts:
        return []
    reach = lags + PIECE * (parts[-1][0] + 1)
    from_chunk = first // STRIDE
    count = (first + reach) // STRIDE - from_chunk + 1
    spectra = _line_spectra(key)
    if count >= CHUNKS:
        from_chunk, count = 0, CHUNKS
    else:
        spectra = spectra[np.arange(from_chunk, from_chunk + count) % CHUNKS]
    tolerant = np.zeros(count * STRIDE // CELL, np.float32)
    exact = _sums(spectra, parts, tolerant)
    begin = from_chunk * STRIDE
    exacts, tolerants = (EXACT, TOLERANT) if lags >= LINE else (EXACT // 4, TOLERANT // 2)
    listed, _ = _peaks(exact, LISTED, 3)
    places = _coherent(base, key, (begin + listed) % LINE, exacts)
    places += [
        Place((begin + int(cell + 1) * CELL) % LINE, float(score), tolerant=True)
        for cell, score in zip(*_peaks(tolerant, tolerants, 2), strict=True)
    ]
    if lags < LINE:
        places = [place for place in places if (place.lag - first) % LINE <= lags]
    return places


def best_score(white: Floats, key: MarkKey) -> float:
    """The score of the best place on the whole line, -1 for silence."""
    parts = pieces(baseband(white))
    return float(_sums(_line_spectra(key), parts, None).max()) if parts else -1.0


def _sums(spectra: Complexes, parts: list[tuple[int, Complexes]], tolerant: Floats | None) -> Floats:
    """The exact sum over all lags; the tolerant one is added to `tolerant`."""
    exact = np.zeros(len(spectra) * STRIDE, np.float32)
    waiting: tuple[int, Complexes, float] | None = None  # the first half of a pair
    for index, piece in parts:
        found, energy = _correlate(spectra, piece), float(np.square(np.abs(piece)).sum())
        if tolerant is not None:
            cells = _cells(_power(found, energy))
            _add_shifted(tolerant, np.maximum(cells, np.roll(cells, -1)), PIECE // CELL * index)
        if waiting is not None and index == waiting[0] + 1:
            _add_shifted(waiting[1], found, PIECE)
            _add_shifted(exact, _power(waiting[1], energy + waiting[2]), PIECE * waiting[0])
            waiting = None
        else:
            if waiting is not None:
                _add_shifted(exact, _power(waiting[1], waiting[2]), PIECE * waiting[0])
            waiting = (index, found, energy)
    if waiting is not None:
        _add_shifted(exact, _power(waiting[1], waiting[2]), PIECE * waiting[0])
    return exact


def _add_shifted(total: NDArray[Number], part: NDArray[Number], shift: int) -> None:
    """`total[i] += part[(i + shift) % n]`."""
    shift %= len(part)
    total[: len(part) - shift] += part[shift:]
    if shift:
        total[len(part) - shift :] += part[:shift]


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


def _coherent(base: Complexes, key: MarkKey, lags: Indices, count: int) -> list[Place]:
    """The best of these lags when the whole recording is added up coherently, at the best of some skews."""
    blocks = len(base) // BLOCK
    windows = np.lib.stride_tricks.sliding_window_view(_line(key), BLOCK)
    sums = np.empty((len(lags), blocks), np.complex64)
    for block in range(blocks):
        part = base[block * BLOCK : (block + 1) * BLOCK]
        sums[:, block] = windows[(lags + block * BLOCK) % LINE] @ part.conj()
    time_s = (np.arange(blocks) - (blocks - 1) / 2) * (BLOCK / BASE_HZ)
    turns = round(SKEW * time_s[-1] / (2 * TURN_S)) if blocks > 1 else 0
    skews = np.arange(-turns, turns + 1) * (SKEW / max(turns, 1))
    turned = sums @ np.exp(2j * np.pi * CENTRE_HZ * np.outer(time_s, skews)).astype(np.complex64)
    power = _power(turned, float(np.square(np.abs(base)).sum())).max(axis=1)
    order = np.argsort(power)[::-1][:count]
    return [Place(int(lags[at]), float(power[at])) for at in order]
