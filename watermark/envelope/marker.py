"""The envelope layer of many calls: each band of the speech swells and sinks by its chips (`cells`).

A band's gain over half a cell is half a sine, whose peak is `+envelope_db` or `-envelope_db`. Eight band-pass
biquads of peak gain 1 (no phase at their centres) would each have their own gain; but at each moment all
bands stand at the same height of the sine, so **one** filter does for all of them: the sum of the eight,
each with its peak gain. `y = x + |sin(2 pi t / CELL_S)| * (filter of this half cell * x)`. There are 256
such filters; their spectra are in a table. A filter's memory of 10 ms, where the narrowest biquad has fallen
by 49 dB, lets a hop be filtered with the one before it in one FFT of 20 ms: no delay, no look-ahead, and at
the borders of half cells, where filters change, the sine is zero.

Hot path (`EnvelopeBank.mark`): numpy over all calls, no locks, no logs; each call's samples are the same
alone and in a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watermark.envelope.cells import BANDS, EDGES_HZ, HALF_CELL_HOPS, LAPS, Cells
from watermark.keys import MarkKey

Floats = NDArray[np.float32]
Complexes = NDArray[np.complex64]
Rows = NDArray[np.intp] | slice

_EVEN: Final = slice(0, BANDS, 2)
_ODD: Final = slice(1, BANDS, 2)


@dataclass(frozen=True, slots=True)
class Filters:
    """What the layer does at one rate and depth, with `hop` samples in 10 ms.

    `spectra`: complex64 `(256, hop + 1)`, the filter for each set of bands that swell, the first band in the
    highest bit; `heights`: float32 `(3, hop)`, half a sine over the hops of half a cell.
    """

    spectra: Complexes
    heights: Floats

    @classmethod
    @lru_cache(maxsize=8)
    def at(cls, rate_hz: int, hop: int, envelope_db: float) -> Filters:
        """For a rate, its samples in 10 ms, and a depth in dB."""
        bands = np.fft.rfft([_impulse(band, rate_hz, hop) for band in range(BANDS)], 2 * hop)
        swells = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
        gains = np.where(swells, 10 ** (envelope_db / 20) - 1, 10 ** (-envelope_db / 20) - 1)
        at = (np.arange(HALF_CELL_HOPS * hop) + 0.5) / (HALF_CELL_HOPS * hop)
        return cls(
            (gains @ bands).astype(np.complex64),
            np.sin(np.pi * at).astype(np.float32).reshape(HALF_CELL_HOPS, hop),
        )


def _impulse(band: int, rate_hz: int, length: int) -> NDArray[np.float64]:
    """The first samples of a band's impulse response: a band-pass biquad of peak gain 1 (R. Bristow-Johnson,
    Audio EQ Cookbook: BPF with constant 0 dB peak gain, width between the edges in octaves)."""
    low, high = EDGES_HZ[band : band + 2]
    omega = 2 * np.pi * np.sqrt(low * high) / rate_hz
    alpha = np.sin(omega) * np.sinh(np.log(2) / 2 * np.log2(high / low) * omega / np.sin(omega))
    heard = np.zeros(length + 2)  # the two samples before the first are 0
    for n, driven in enumerate([alpha, 0.0, -alpha] + [0.0] * (length - 3), start=2):
        heard[n] = (driven + 2 * np.cos(omega) * heard[n - 1] - (1 - alpha) * heard[n - 2]) / (1 + alpha)
    return heard[2:]


def swelling(cells: Cells, payload: int, hops: NDArray[np.int64]) -> NDArray[np.intp]:
    """Which bands swell in these hops of a call, which follow each other: a byte for each, the first band in
    the highest bit; the others sink."""
    halves = np.arange(hops[0] // HALF_CELL_HOPS, hops[-1] // HALF_CELL_HOPS + 1)
    first = int(halves[0] - 1) // 2
    chips = cells.call(payload, np.arange(first, int(halves[-1]) // 2 + 1))
    up = chips > 0
    later = (halves & 1).astype(np.bool_)[:, None]  # even bands are in a cell's second half, odd in its first
    bits = np.empty((len(halves), BANDS), np.bool_)
    bits[:, _EVEN] = up[halves // 2 - first, _EVEN] ^ later
    bits[:, _ODD] = up[(halves - 1) // 2 - first, _ODD] ^ ~later
    swells: NDArray[np.intp] = np.packbits(bits, axis=1)[hops // HALF_CELL_HOPS - halves[0], 0].astype(
        np.intp
    )
    return swells


class EnvelopeBank:
    """The envelope layer in the slots of a `MarkerBank`, which says whose sound comes and at which hop."""

    def __init__(self, key: MarkKey, rate_hz: int, hop: int, slots: int, ahead: int) -> None:
        self._cells = Cells(key.secret)
        for lap in range(LAPS):
            self._cells.lap(lap)  # drawn now, not in the tick of a call's second hour
        self._filters = Filters.at(rate_hz, hop, key.envelope_db)
        self._hop = hop
        self._ahead = np.arange(ahead)
        self._before: Floats = np.zeros((slots, hop), np.float32)
        self._swelling = np.zeros((slots, ahead), np.intp)
        self._phases = np.zeros((slots, ahead), np.intp)  # hops since the half cell began

    def grow(self) -> None:
        """Twice as many slots."""
        self._before = np.concatenate((self._before, np.zeros_like(self._before)))
        self._swelling = np.concatenate((self._swelling, np.zeros_like(self._swelling)))
        self._phases = np.concatenate((self._phases, np.zeros_like(self._phases)))

    def hush(self, rows: Rows | int) -> None:
        """What came before is silence: a new call, or one that rested."""
        self._before[rows] = 0.0

    def draw(self, slot: int, payload: int, first: int) -> None:
        """The call's next `ahead` hops begin at its hop `first`."""
        hops = first + self._ahead
        self._swelling[slot] = swelling(self._cells, payload, hops)
        self._phases[slot] = hops % HALF_CELL_HOPS

    def mark(self, rows: Rows, drawn: tuple[Rows, Rows], pcm: Floats) -> Floats:
        """`pcm` float32 `(B, n)` in whole hops -> the same with the layer. `drawn`: where those hops are
        among what `draw` drew."""
        hop, (calls, samples) = self._hop, pcm.shape
        count = samples // hop
        sound = np.concatenate((self._before[rows], pcm), axis=1).reshape(calls, count + 1, hop)
        frames: Floats = np.ndarray((calls, count, 2 * hop), np.float32, sound, strides=sound.strides)
        spectrum = np.fft.rfft(frames, out=np.empty((calls, count, hop + 1), np.complex64))
        np.multiply(spectrum, self._filters.spectra[self._swelling[drawn]], out=spectrum)
        change = np.fft.irfft(spectrum, 2 * hop)[:, :, hop:]  # in the first half the filter wraps around
        marked: Floats = self._filters.heights[self._phases[drawn]]
        marked *= change
        marked += pcm.reshape(calls, count, hop)
        self._before[rows] = sound[:, -1]
        return marked.reshape(calls, samples)
