"""Batched sound for many calls at once: changing the rate, and hearing whether somebody speaks.

Each call owns a row (`row` below) in every stage; a stage works on the rows that have sound in this turn.
Hot path: no allocation beyond numpy's temporaries, no locks, no logs.
"""

from __future__ import annotations

from functools import cache
from math import gcd
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consent.silero.network import open_network

Floats = NDArray[np.float32]
Rows = NDArray[np.intp]

HOUSE_HZ: Final = 24_000
FRAME_S: Final = 0.02
FILTER_DELAY_S: Final = 0.003
"""Group delay of every rate change, constant for a direction."""
STOPBAND_BETA: Final = 6.2
"""Kaiser beta: about 63 dB of stopband."""


@cache
def _kernel(from_hz: int, to_hz: int) -> Floats:
    """The banded matrix of a rate change, `(past + in, out)`, read only.

    All that change so share it: one takes tens of milliseconds to make, and up to 2.4 MB.
    """
    size, made = round(from_hz * FRAME_S), round(to_hz * FRAME_S)
    half = FILTER_DELAY_S * from_hz
    past = int(np.ceil(2 * half))
    step = gcd(from_hz, to_hz)
    cutoff = 0.46 * min(from_hz, to_hz) / from_hz  # cycles per input sample
    # output m stands at input position m * from/to - half, counted from the block's first sample
    positions = np.arange(made) * (from_hz // step) / (to_hz // step) - half
    taps = np.arange(-past, size)[:, None] - positions[None, :]
    window = np.i0(STOPBAND_BETA * np.sqrt(np.clip(1 - (taps / half) ** 2, 0, None))) / np.i0(STOPBAND_BETA)
    kernel = 2 * cutoff * np.sinc(2 * cutoff * taps) * np.where(np.abs(taps) <= half, window, 0.0)
    kernel /= kernel.sum(axis=0, keepdims=True)  # unit gain at 0 Hz in every branch
    found: Floats = np.ascontiguousarray(kernel, np.float32)
    found.setflags(write=False)
    return found


class RateChanger:
    """A linear-phase FIR from one rate to another for up to `capacity` calls, 20 ms at a time.

    The filter is windowed-sinc, cut at 46 % of the lower rate, applied as one matrix product for all rows: a
    20 ms block with the few ms before it, times a banded matrix that holds every polyphase branch.
    """

    def __init__(self, from_hz: int, to_hz: int, capacity: int) -> None:
        self.delay_s = FILTER_DELAY_S
        self._in = round(from_hz * FRAME_S)
        self._kernel = _kernel(from_hz, to_hz)
        self._history: Floats = np.zeros((capacity, len(self._kernel) - self._in), np.float32)

    def reset(self, row: int) -> None:
        self._history[row] = 0.0

    def change(self, rows: Rows, block: Floats) -> Floats:
        """`block` float32 `(B, from_hz * 0.02)` of the calls in `rows` -> float32 `(B, to_hz * 0.02)`."""
        whole = np.concatenate((self._history[rows], block), axis=1)
        self._history[rows] = whole[:, self._in :]
        return whole @ self._kernel


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
