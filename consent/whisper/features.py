"""Whisper's input: 80 logarithmic mel bands of 25 ms every 10 ms, as OpenAI's code has them.

Radford and others, "Robust Speech Recognition via Large-Scale Weak Supervision" (2022), §2.2. The bands are
Slaney's: linear below 1 kHz, logarithmic above, each of one area.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

RATE_HZ: Final = 16_000
WINDOW: Final = 400
HOP: Final = 160
BANDS: Final = 80
RANGE: Final = 8.0
"""What is so many decades below the loudest is raised to there."""


def log_mel(pcm_16k: Floats, frames: int) -> Floats:
    """float32 `(n,)` at 16 kHz -> float32 `(80, frames)`; zeros stand where the sound is over.

    The zeros are put beside the finished bands. Silence put beside the sound would be another input, on which
    these models hear far worse through a window that is shorter than their own 30 s.
    """
    padded = np.pad(pcm_16k, (0, HOP))
    padded = np.pad(padded, WINDOW // 2, mode="reflect" if len(padded) > WINDOW // 2 else "constant")
    pieces = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:-1][:frames]
    spectrum = np.fft.rfft(pieces * _hann(), axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    bands = np.log10(np.maximum(_filters() @ power.T, 1e-10))
    bands = (np.maximum(bands, bands.max(initial=-10.0) - RANGE) + 4.0) / 4.0
    out = np.zeros((BANDS, frames), np.float32)
    out[:, : bands.shape[1]] = bands
    return out


@lru_cache(maxsize=1)
def _hann() -> Floats:
    return np.hanning(WINDOW + 1)[:-1].astype(np.float32)


@lru_cache(maxsize=1)
def _filters() -> Floats:
    """`(80, 201)`: what each band takes of each frequency."""
    edges = _hz(np.linspace(0.0, _mel(RATE_HZ / 2), BANDS + 2))
    ramps = edges[:, None] - np.fft.rfftfreq(WINDOW, 1 / RATE_HZ)[None, :]
    widths = np.diff(edges)[:, None]
    triangles = np.maximum(0.0, np.minimum(-ramps[:-2] / widths[:-1], ramps[2:] / widths[1:]))
    triangles *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return triangles.astype(np.float32)


def _mel(hz: float) -> float:
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * float(np.log(hz / 1000) / np.log(6.4))


def _hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = mel * 200 / 3
    return np.where(mel < 15, linear, 1000 * np.exp(np.log(6.4) / 27 * (mel - 15)))
