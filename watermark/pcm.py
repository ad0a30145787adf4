"""Sound as lines and files carry it, int16, and as everything here computes it, float32: the one crossing.

G.711's codes stand for int16 too: `MU_LAW_VALUES` and `A_LAW_VALUES` (ITU-T G.711, tables 1 and 2).

int16 -32768 is -1.0, in both directions. An int16 over a power of two is exact in float32, so that
int16 -> float -> int16 changes no sample, however often a sound crosses.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Samples = NDArray[np.floating[Any]]

FULL_SCALE: Final = 32_768
LEAST: Final = np.float32(-32_768)
MOST: Final = np.float32(32_767)


def _mu_law() -> NDArray[np.int16]:
    codes = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (codes >> 4) & 7, (codes & 15).astype(np.int32)
    size = (((mantissa << 3) + 0x84) << exponent) - 0x84
    return np.where(codes & 0x80, -size, size).astype(np.int16)


def _a_law() -> NDArray[np.int16]:
    codes = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = ((codes >> 4) & 7).astype(np.int32), (codes & 15).astype(np.int32)
    size = np.where(
        exponent == 0, (mantissa << 4) + 8, ((mantissa << 4) + 0x108) << np.maximum(exponent - 1, 0)
    )
    return np.where(codes & 0x80, size, -size).astype(np.int16)


MU_LAW_VALUES: Final = _mu_law()
A_LAW_VALUES: Final = _a_law()
"""int16 `(256,)`: the sample of each code."""


def float_from_int16(pcm: NDArray[np.int16]) -> Floats:
    """`pcm` int16 of any shape -> float32 in [-1, 1) of that shape."""
    return pcm.astype(np.float32) * np.float32(1 / FULL_SCALE)


def int16_from_float(samples: Samples) -> NDArray[np.int16]:
    """`samples` float of any shape -> int16 of that shape, rounded to the nearest.

    What is louder than full scale is clipped; NaN becomes silence.
    """
    scaled = samples * np.float32(FULL_SCALE)
    least, most = scaled.min(initial=0.0), scaled.max(initial=0.0)
    if not (least >= LEAST and most <= MOST):  # NaN shows here too; few sounds need what is below
        if np.isnan(least):
            scaled[np.isnan(scaled)] = 0.0
        np.clip(scaled, LEAST, MOST, out=scaled)
    np.rint(scaled, out=scaled)
    return scaled.astype(np.int16)


def float_from_bytes(raw: bytes) -> Floats:
    """`raw` int16 little-endian -> float32 `(n,)` in [-1, 1). Raises `ValueError` for half a sample."""
    return float_from_int16(np.frombuffer(raw, "<i2"))


def bytes_from_float(samples: Samples) -> bytes:
    """As `int16_from_float`, in little-endian bytes."""
    return int16_from_float(samples).astype("<i2", copy=False).tobytes()
