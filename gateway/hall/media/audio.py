"""Batched sound for many calls at once: hearing whether somebody speaks.

Each call owns a row (`row` below) in every stage; a stage works on the rows that have sound in this turn.
Hot path: no allocation beyond numpy's temporaries, no locks, no logs.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from consent.silero.network import open_network

Floats = NDArray[np.float32]
Rows = NDArray[np.intp]

HOUSE_HZ: Final = 24_000
FRAME_S: Final = 0.02

VAD_HZ: Final = 8_000
VAD_WINDOW: Final = 256
"""Samples at 8 kHz that Silero judges at once (32 ms)."""
VAD_CONTEXT: Final = 32


class VoiceActivity:
    """Silero VAD (v6, ONNX, 8 kHz) for up to `capacity` calls, batched, with each call's state in its row."""

    def __init__(self, capacity: int) -> None:
        self._session = open_network()
        self._rate = np.array(VAD_HZ, np.int64)
        self._state: Floats = np.zeros((2, capacity, 128), np.float32)
        self._context: Floats = np.zeros((capacity, VAD_CONTEXT), np.float32)
        self._waiting: Floats = np.zeros((capacity, VAD_WINDOW * 2), np.float32)
        self._filled: NDArray[np.intp] = np.zeros(capacity, np.intp)

    def reset(self, row: int) -> None:
        self._state[:, row] = 0.0
        self._context[row] = 0.0
        self._filled[row] = 0

    def judge(self, rows: Rows, block: Floats) -> dict[int, float]:
        """Takes `block` float32 `(B, n <= 256)` at 8 kHz; answers row -> probability of speech in [0, 1] for
        the rows whose 32 ms window became full."""
        n = block.shape[1]
        filled = self._filled[rows]
        at = filled[:, None] + np.arange(n)[None, :]
        self._waiting[rows[:, None], at] = block
        filled = filled + n
        self._filled[rows] = filled
        ready = rows[filled >= VAD_WINDOW]
        if not len(ready):
            return {}
        window = self._waiting[ready, :VAD_WINDOW]
        heard = np.concatenate((self._context[ready], window), axis=1)
        output, state = self._session.run(
            None, {"input": heard, "state": self._state[:, ready], "sr": self._rate}
        )
        self._state[:, ready] = state
        self._context[ready] = window[:, -VAD_CONTEXT:]
        self._waiting[ready, :VAD_WINDOW] = self._waiting[ready, VAD_WINDOW:]
        self._filled[ready] -= VAD_WINDOW
        return dict(zip(ready.tolist(), output[:, 0].tolist(), strict=True))
