"""The envelope layer's cells: which band of the speech swells and which one sinks, and when.

A cell is 60 ms of one of 8 bands. Over the cell the band's level in decibels goes once through a sine: first
up and then down for the chip +1, first down and then up for -1; so it is as it was at both ends, and so is
its mean. Cell `i` of an even band lies at `[i, i + 1) * CELL_S` of the call's time, that of an odd band half
a cell later: at each moment all bands stand at the same height of the sine, up or down.

Chips are AES-256 in counter form under HMAC(key, purpose), as the carrier's (`carrier`), on a **line** of
their own. A call enters the line at a secret place, which is an HMAC of its payload. A call that has been
once around the line has other chips on the next **lap**: chips never repeat within a call.

Even bands carry the **line's** chips, which all calls have in common that pass a place: they say where a
recording lies. Odd bands carry the **call's** own, whose counter is (payload, place): they say which call
it is. Over voices and codecs the two halves are heard about equally well.
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
Payloads = NDArray[np.uint64]
Bytes = NDArray[np.uint8]

HOP_S: Final = 0.01
"""The detector's frame, and the hop in which sound is marked."""
CELL_HOPS: Final = 6
CELL_S: Final = CELL_HOPS * HOP_S
HALF_CELL_HOPS: Final = CELL_HOPS // 2
"""Odd bands are so much later than even ones."""
EDGES_HZ: Final = (270, 450, 650, 900, 1200, 1550, 2000, 2600, 3400)
BANDS: Final = len(EDGES_HZ) - 1
LINE_BANDS: Final = slice(0, BANDS, 2)
CALL_BANDS: Final = slice(1, BANDS, 2)
HALF_BANDS: Final = BANDS // 2
LINE_CELLS: Final = 1 << 16
"""Cells of the line, 65.5 min: 393,216 hops or 3 * 2**17, whose FFT is cheap."""
LAPS: Final = 4
"""Laps of the line that a detector may look at, as the carrier's: 4.4 hours of one call."""

CELLS_A_BLOCK: Final = 128 // HALF_BANDS
"""Cells whose chips of one half are one block of the cipher."""
LINE_BLOCKS: Final = LINE_CELLS // CELLS_A_BLOCK
_PAIRS: Final = 1 - 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(
    np.int8
).reshape(256, 2, HALF_BANDS)
"""The chips of two cells for each byte."""


class Cells:
    """The chips of one key, by its secret."""

    def __init__(self, key: bytes) -> None:
        self._chips = hmac.digest(key, b"watermark|envelope", "sha256")
        self._entry = hmac.digest(key, b"watermark|envelope entry", "sha256")
        call = hmac.digest(key, b"watermark|envelope call", "sha256")
        self._call = Cipher(algorithms.AES(call), modes.ECB())  # noqa: S305  (counters never repeat)
        self.line: Chips = self.lap(0)
        """The line's chips on a call's first lap, +1 or -1, `(LINE_CELLS, HALF_BANDS)`."""

    def lap(self, lap: int) -> Chips:
        """The line's chips on a call's `lap`-th lap, from 0: +1 or -1, int8 `(LINE_CELLS, HALF_BANDS)`.

        Raises `ValueError` where `lap` is negative.
        """
        if lap < 0:
            raise ValueError(f"lap {lap}: laps are counted from 0")
        return _lap(self._chips, lap)

    def entry(self, payload: int) -> int:
        """The cell of the line at which a call with this payload begins."""
        return int.from_bytes(hmac.digest(self._entry, payload.to_bytes(8), "sha256")[:8]) % LINE_CELLS

    def drawn(self, payloads: Payloads | int, blocks: Counters) -> Bytes:
        """The calls' own chips in these blocks of `CELLS_A_BLOCK` cells, which are counted along the line and
        on from lap to lap: uint8 `(len(payloads), 16 * len(blocks))`, a bit for each band of each cell, the
        first one highest, 1 for the chip -1.
        """
        calls = np.reshape(np.asarray(payloads, np.uint64), (-1, 1))
        counters = np.empty((len(calls), len(blocks), 2), ">u8")
        counters[..., 0] = calls
        counters[..., 1] = blocks
        chips = np.frombuffer(self._call.encryptor().update(counters.tobytes()), np.uint8)
        return chips.reshape(len(calls), 16 * len(blocks))

    def call(self, payload: int, cells: Counters) -> Chips:
        """Chips of these cells of a call, counted from its beginning: int8 `(len(cells), BANDS)`.

        The cell before the first, -1, is that of the odd bands for the first half cell.
        """
        places = (self.entry(payload) + cells) % LINE_CELLS
        laps = np.maximum(cells // LINE_CELLS, 0)
        first, last = int(laps.min()), int(laps.max())
        chips = np.empty((len(cells), BANDS), np.int8)
        chips[:, LINE_BANDS] = np.take(self.lap(first), places, axis=0)
        for lap in range(first + 1, last + 1):
            later = laps == lap
            chips[later, LINE_BANDS] = self.lap(lap)[places[later]]
        drawn = self.drawn(payload, laps * LINE_BLOCKS + places // CELLS_A_BLOCK).reshape(-1, 16)
        pairs = drawn[np.arange(len(cells)), places % CELLS_A_BLOCK // 2]
        chips[:, CALL_BANDS] = _PAIRS[pairs, places & 1]
        return chips


@lru_cache(maxsize=16)
def _lap(secret: bytes, lap: int) -> Chips:
    counters = np.empty((LINE_BLOCKS, 2), ">u8")
    counters[:, 0] = lap
    counters[:, 1] = np.arange(len(counters))
    cipher = Cipher(algorithms.AES(secret), modes.ECB())  # noqa: S305  (counters never repeat)
    drawn = np.frombuffer(cipher.encryptor().update(counters.tobytes()), np.uint8)
    chips = 1 - 2 * np.unpackbits(drawn).reshape(LINE_CELLS, HALF_BANDS).astype(np.int8)
    chips.setflags(write=False)
    return chips
