"""What the envelope layer's network looks at: how loud each part of the band is, every 10 ms.

Frame `t` is 25 ms of sound about the time `10 ms * t`; its power is taken in 16 sub-bands, two for each
band of `cells`. In decibels, with floors: what lies 50 dB below the recording's mean, or 40 dB below the
sub-band's, says nothing. A sub-band gives two inputs: its level against its own mean of 310 ms, in which a
cell shows, and its level against the recording, which says how much to believe it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from watermark.envelope.cells import BANDS, EDGES_HZ

Floats = NDArray[np.float32]

RATE_HZ: Final = 8_000
HOP: Final = 80
FRAME: Final = 200
SIZE: Final = 256
SUB_BANDS: Final = 2 * BANDS
AT_ONCE: Final = 64
"""Frames whose spectra are made at once: more would not fit into what the C library keeps, and fetching fresh
pages from the system costs ten times what the spectra do."""
INPUTS: Final = 2 * SUB_BANDS
WHOLE_FLOOR: Final = 1e-5
"""Power that is added everywhere, relative to the recording's mean."""
OWN_FLOOR: Final = 1e-4
"""The same, relative to the sub-band's."""
AROUND: Final = 15
"""Frames to either side over which a sub-band's own mean is taken."""
SWING_DB: Final = 10.0
LEVEL_DB: Final = (-40.0, 15.0)
LEVEL_SCALE_DB: Final = 20.0

_WINDOW: Final = (0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(FRAME) + 0.5) / FRAME)).astype(np.float32)


def _triangles() -> Floats:
    """`(129, 16)`: each sub-band rises from the centre of the one below and falls to that of the one
    above."""
    low, high = np.array(EDGES_HZ[:-1], float), np.array(EDGES_HZ[1:], float)
    centres = np.stack((low + (high - low) / 4, high - (high - low) / 4), axis=1).ravel()
    edges = np.concatenate(([2 * centres[0] - centres[1]], centres, [2 * centres[-1] - centres[-2]]))
    hz = np.fft.rfftfreq(SIZE, 1 / RATE_HZ)
    columns = [np.interp(hz, edges[at : at + 3], (0.0, 1.0, 0.0)) for at in range(SUB_BANDS)]
    return np.stack(columns, axis=1).astype(np.float32)


_TRIANGLES: Final = _triangles()


def power(sound: Floats) -> Floats:
    """`sound` float32 `(n,)` at 8 kHz -> its power in each frame and sub-band, float32 `(n // 80 + 1,
    16)`."""
    padded = np.zeros(len(sound) // HOP * HOP + FRAME, np.float32)
    padded[FRAME // 2 : FRAME // 2 + len(sound)] = sound[: len(padded) - FRAME // 2]
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    powers = np.empty((len(frames), SUB_BANDS), np.float32)
    windowed = np.zeros((AT_ONCE, SIZE), np.float32)
    for at in range(0, len(frames), AT_ONCE):
        some = frames[at : at + AT_ONCE]
        np.multiply(some, _WINDOW, out=windowed[: len(some), :FRAME])
        spectrum = np.fft.rfft(windowed[: len(some)])
        square = np.square(spectrum.real)
        square += np.square(spectrum.imag)
        np.matmul(square, _TRIANGLES, out=powers[at : at + AT_ONCE])
    return powers


def inputs(powers: Floats) -> Floats:
    """`power`'s result `(frames, 16)` -> what the network takes, float32 `(32, frames)`; zeros for
    silence."""
    whole = float(powers.mean())
    if not whole > 0.0:
        return np.zeros((INPUTS, len(powers)), np.float32)
    floored = powers / whole + (WHOLE_FLOOR + OWN_FLOOR * powers.mean(axis=0) / whole)
    level: Floats = 10 * np.log10(floored.T)
    out = np.empty((INPUTS, len(powers)), np.float32)
    np.tanh((level - around(level)) / SWING_DB, out=out[:SUB_BANDS])
    np.clip(level, *LEVEL_DB, out=out[SUB_BANDS:])
    out[SUB_BANDS:] /= LEVEL_SCALE_DB
    return out


def around(level: Floats) -> Floats:
    """The mean of the 31 frames about each, of fewer at the ends: `(..., frames)`."""
    frames = level.shape[-1]
    sums = np.zeros((*level.shape[:-1], frames + 1))
    np.cumsum(level, axis=-1, out=sums[..., 1:])
    at = np.arange(frames)
    first, last = np.maximum(at - AROUND, 0), np.minimum(at + AROUND + 1, frames)
    return np.asarray((sums[..., last] - sums[..., first]) / (last - first), np.float32)
