"""The last step toward the caller: gain, rate, PCM. A leg plays `MarkedFrame` or `Silence`, nothing else.

Hot path: one pass for all calls of one line rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.hall.media.audio import FRAME_S, HOUSE_HZ, Floats, Rows
from gateway.rtp.media.rate_changer import RateChanger
from watermark.frames import Frame, MarkedFrame, Silence
from watermark.pcm import int16_from_float

DUCKED: Final = 0.2
"""Gain while the caller begins to speak over us (-14 dB)."""
FULL: Final = 1.0


class Legs:
    """The legs of all calls on lines of one rate; `row` is the call's row."""

    def __init__(self, rate_hz: int, capacity: int) -> None:
        self._frame = round(HOUSE_HZ * FRAME_S)
        self._change = RateChanger(HOUSE_HZ, rate_hz, capacity)
        self._gain = np.full(capacity, FULL, np.float32)
        self._target = np.full(capacity, FULL, np.float32)
        self._silence = np.zeros(self._frame, np.float32)
        self._ramp = np.linspace(0, 1, self._frame, dtype=np.float32)[None, :]

    def reset(self, row: int) -> None:
        self._change.reset(row)
        self._gain[row] = self._target[row] = FULL

    def aim(self, row: int, gain: float) -> None:
        """The gain that the next frame ramps to."""
        self._target[row] = gain

    def softened(self, rows: Rows) -> NDArray[np.bool_]:
        """Whose last frame ended more softly than it was said."""
        return np.asarray(self._gain[rows] < FULL)

    def play(self, rows: Rows, frames: Sequence[Frame]) -> NDArray[np.int16]:
        """One 20 ms frame for each call in `rows` -> int16 `(B, rate_hz * 0.02)`.

        Raises `TypeError` for anything that is neither marked nor silence.
        """
        sound: list[Floats] = []
        for frame in frames:
            if isinstance(frame, MarkedFrame):
                sound.append(frame.samples)
            elif isinstance(frame, Silence):
                sound.append(self._silence)
            else:
                raise TypeError(f"a leg plays MarkedFrame or Silence, not {type(frame).__name__}")
        block = np.concatenate(sound).reshape(len(sound), self._frame)
        gain, target = self._gain[rows], self._target[rows]
        if not ((gain == FULL) & (target == FULL)).all():
            block *= gain[:, None] + (target - gain)[:, None] * self._ramp
            self._gain[rows] = target
        return int16_from_float(self._change.change(rows, block))
