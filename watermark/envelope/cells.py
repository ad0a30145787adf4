"""The envelope layer's cells: which band of the speech swells and which one sinks, and when.

A cell is 60 ms of one of 8 bands. Over the cell the band's level in decibels goes once through a sine: first
up and then down for the chip +1, first down and then up for -1; so it is as it was at both ends, and so is
its mean. Cell `i` of an even band lies at `[i, i + 1) * CELL_S` of the call's time, that of an odd band half
a cell later: at each moment all bands stand at the same height of the sine, up or down.

Chips are AES-256 in counter form under HMAC(key, purpose), as the carrier's (`carrier`), on a **line** of
their own. A call enters the line at a secret place, which is an HMAC of its payload. A call that has been
once around the line has other chips on the next **lap**: chips never repeat within a call.
"""

from __future__ import annotations

import hmac
from functools import lru_cache
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

Chips = NDArray[np.int8]
Counters = NDArray[np.int64]

HOP_S: Final = 0.01
"""The detector's frame, and the hop in which sound is marked."""
CELL_HOPS: Final = 6
CELL_S: Final = CELL_HOPS * HOP_S
HALF_CELL_HOPS: Final = CELL_HOPS // 2
"""Odd bands are so much later than even ones."""
EDGES_HZ: Final = (270, 450, 650, 900, 1200, 1550, 2000, 2600, 3400)
BANDS: Final = len(EDGES_HZ) - 1
LINE_CELLS: Final = 1 << 16
"""Cells of the line, 65.5 min: 393,216 hops or 3 * 2**17, whose FFT is cheap."""
LAPS: Final = 4
"""Laps of the line that a detector may look at, as the carrier's: 4.4 hours of one call."""

_CELLS_A_BLOCK: Final = 128 // BANDS


class Cells:
    """The chips of one key, by its secret."""

    def __init__(self, key: bytes) -> None:
        self._chips = hmac.digest(key, b"watermark|envelope", "sha256")
        self._entry = hmac.digest(key, b"watermark|envelope entry", "sha256")
        self.line: Chips = self.lap(0)
        """The chips of a call's first lap, +1 or -1, `(LINE_CELLS, BANDS)`."""

    def lap(self, lap: int) -> Chips:
        """The chips of the line on a call's `lap`-th lap, from 0: +1 or -1, int8 `(LINE_CELLS, BANDS)`.

        Raises `ValueError` where `lap` is negative.
        """
        if lap < 0:
            raise ValueError(f"lap {lap}: laps are counted from 0")
        return _lap(self._chips, lap)

    def entry(self, payload: int) -> int:
        """The cell of the line at which a call with this payload begins."""
        return _entry(self._entry, payload)

    def call(self, payload: int, cells: Counters) -> Chips:
        """Chips of these cells of a call, counted from its beginning: int8 `(len(cells), BANDS)`.

        The cell before the first, -1, is that of the odd bands for the first half cell.
        """
        places = (self.entry(payload) + cells) % LINE_CELLS
        laps = np.maximum(cells // LINE_CELLS, 0)
        first, last = int(laps.min()), int(laps.max())
        chips = np.take(self.lap(first), places, axis=0)
        for lap in range(first + 1, last + 1):
            later = laps == lap
            chips[later] = self.lap(lap)[places[later]]
        return chips


@lru_cache(maxsize=4_096)
def _entry(secret: bytes, payload: int) -> int:
    return int.from_bytes(hmac.digest(secret, payload.to_bytes(8), "sha256")[:8]) % LINE_CELLS


@lru_cache(maxsize=16)
def _lap(secret: bytes, lap: int) -> Chips:
    counters = np.empty((LINE_CELLS // _CELLS_A_BLOCK, 2), ">u8")
    counters[:, 0] = lap
    counters[:, 1] = np.arange(len(counters))
    cipher = Cipher(algorithms.AES(secret), modes.ECB())  # noqa: S305  (counters never repeat)
    drawn = np.frombuffer(cipher.encryptor().update(counters.tobytes()), np.uint8)
    chips = 1 - 2 * np.unpackbits(drawn).reshape(LINE_CELLS, BANDS).astype(np.int8)
    chips.setflags(write=False)
    return chips
