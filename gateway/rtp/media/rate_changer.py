"""Another rate for many calls' sound at once.

Each call owns a row (`row` below); a turn works on the rows that have sound in it. Hot path: no allocation
beyond numpy's temporaries, no locks, no logs.
"""

from __future__ import annotations

from functools import cache
from math import gcd
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.ipc.tick import FRAME_S

Floats = NDArray[np.float32]
Rows = NDArray[np.intp]

PART_S: Final = 0.005
"""What is multiplied at once. The matrix of a whole frame would be banded, and most of it zeros."""
FILTER_DELAY_S: Final = 0.003
"""Group delay of every rate change, constant for a direction."""
STOPBAND_BETA: Final = 6.2
"""Kaiser beta: about 63 dB of stopband."""


@cache
def _kernel(from_hz: int, to_hz: int) -> Floats:
    """The matrix that a rate change multiplies each `PART_S` of sound by, `(past + in, out)`, read only.

    All that change so share it.
    """
    size, made = round(from_hz * PART_S), round(to_hz * PART_S)
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

    The filter is windowed-sinc, cut at 46 % of the lower rate, applied as one matrix product for all rows:
    each 5 ms with the few ms before them, times a matrix that holds every polyphase branch.
    """

    def __init__(self, from_hz: int, to_hz: int, capacity: int) -> None:
        self.delay_s = FILTER_DELAY_S
        self._in = round(from_hz * FRAME_S)
        self._part = round(from_hz * PART_S)
        self._kernel = _kernel(from_hz, to_hz)
        self._history: Floats = np.zeros((capacity, len(self._kernel) - self._part), np.float32)

    def reset(self, row: int) -> None:
        self._history[row] = 0.0

    def change(self, rows: Rows, block: Floats) -> Floats:
        """`block` float32 `(B, from_hz * 0.02)` of the calls in `rows` -> float32 `(B, to_hz * 0.02)`."""
        whole = np.concatenate((self._history[rows], block), axis=1)
        self._history[rows] = whole[:, self._in :]
        return self._changed(whole)

    def pass_by(self, rows: Rows, block: Floats) -> None:
        """These calls' sound is not wanted at the other rate, but what comes after it may be."""
        past = self._history.shape[1]
        self._history[rows] = block[:, -past:]

    def again(self, sound: Floats) -> Floats:
        """`sound` float32 `(n + 1, from_hz * 0.02)`, frames of one call that follow each other -> the last n
        at the other rate, as `change` would have made them; it does not touch any row."""
        past = self._history.shape[1]
        return self._changed(np.concatenate((sound[:-1, -past:], sound[1:]), axis=1))

    def _changed(self, whole: Floats) -> Floats:
        """`whole` float32 `(B, past + from_hz * 0.02)`, contiguous."""
        calls, samples = whole.shape
        parts = self._in // self._part
        row, item = whole.strides
        windows: Floats = np.ndarray(
            (calls, parts, samples - self._in + self._part),
            np.float32,
            whole,
            strides=(row, self._part * item, item),
        )
        return (windows.reshape(calls * parts, -1) @ self._kernel).reshape(calls, -1)
