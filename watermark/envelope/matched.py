"""What a band's level alone says of its chips: a filter matched to a cell, over decibels every 10 ms.

For sound whose time in the call is known to the hop and which no codec has coded anew, as in the self-check.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watermark.envelope.cells import BANDS, CELL_HOPS, EDGES_HZ, HALF_CELL_HOPS

Floats = NDArray[np.float32]

RATE_HZ: Final = 8_000
_HOP: Final = 80
_FRAME: Final = 200
_SIZE: Final = 256
_FLOOR: Final = 1e-5
"""Power that is added everywhere, relative to the mean: -50 dB."""
_STEEP_DB: Final = 3.0
"""Speech's own steps, which are much larger than the layer's, count hardly more than this."""

_WINDOW: Final = (0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(_FRAME) + 0.5) / _FRAME)).astype(np.float32)
_HZ: Final = np.arange(_SIZE // 2 + 1) * (RATE_HZ / _SIZE)
_BANDS: Final = np.array([(low <= _HZ) & (high > _HZ) for low, high in pairwise(EDGES_HZ)], np.float32)
_SHAPE: Final = np.sin(2 * np.pi * np.arange(1, CELL_HOPS) / CELL_HOPS)
"""A cell's gain at its inner hops."""


def soft(sound: Floats) -> Floats:
    """`sound` float32 `(n,)` at 8 kHz -> how much each band speaks for a chip +1 of a cell that is centred at
    `10 ms * t`: float32 `(8, n // 80 + 1)`."""
    padded = np.zeros(len(sound) // _HOP * _HOP + _FRAME, np.float32)
    padded[_FRAME // 2 : _FRAME // 2 + len(sound)] = sound[: len(padded) - _FRAME // 2]
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::_HOP] * _WINDOW
    spectrum = np.fft.rfft(frames, _SIZE)
    power = _BANDS @ (np.square(spectrum.real) + np.square(spectrum.imag)).T
    mean = float(power.mean())
    if not mean > 0.0:
        return np.zeros((BANDS, len(frames)), np.float32)
    level = 10 * np.log10(power / mean + _FLOOR)
    reach = HALF_CELL_HOPS - 1
    level = np.pad(level, ((0, 0), (reach, reach)), mode="edge")
    swings = np.lib.stride_tricks.sliding_window_view(level, CELL_HOPS - 1, axis=1) @ _SHAPE
    return np.asarray(np.tanh(swings / _STEEP_DB), np.float32)
