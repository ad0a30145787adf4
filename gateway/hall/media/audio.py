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
"""Samples before them that it hears with them."""

_PIECE: Final = VAD_CONTEXT
"""Sound is kept in pieces of so many samples: a frame, a window and its context are whole ones."""
_WINDOW: Final = VAD_WINDOW // _PIECE
_RING: Final = 32
"""Pieces that are kept of a call: a window with its context, those before it, and a frame of the next one."""

AWAKE: Final = 12
"""Windows for which a call is judged after it stirred last (.38 s): a pause between two words."""
BEFORE: Final = 2
"""Windows before a call stirred that are judged after all: speech begins more softly than it goes on."""


class VoiceActivity:
    """Silero VAD (v6, 8 kHz) for up to `capacity` calls, batched, with each call's state in its row.

    The network is dear (half of a quiet hall's pass). So calls that do not stir are not judged: nobody
    speaks there. When one stirs again, the last windows are judged with the present one, and the network
    goes on from where it was.
    """

    def __init__(self, capacity: int) -> None:
        self._network = open_network(VAD_HZ)
        self._state: Floats = np.zeros((2, capacity, 128), np.float32)
        self._kept: Floats = np.zeros((capacity, _RING, _PIECE), np.float32)
        self._end: NDArray[np.intp] = np.zeros(capacity, np.intp)
        """pieces that came of each call"""
        self._due: NDArray[np.intp] = np.full(capacity, _WINDOW, np.intp)
        """the piece with which the next window is full"""
        self._awake: NDArray[np.intp] = np.full(capacity, AWAKE, np.intp)
        """windows that are judged even if nothing stirs"""
        self._stirred: NDArray[np.bool_] = np.zeros(capacity, np.bool_)
        """within the next window"""
        self._passed: NDArray[np.intp] = np.zeros(capacity, np.intp)
        """windows that were not judged since the last one that was"""
        self.judged = 0
        """windows that the network judged"""

    def reset(self, row: int) -> None:
        self._state[:, row] = 0.0
        self._kept[row] = 0.0
        self._end[row] = self._passed[row] = 0
        self._due[row] = _WINDOW
        self._awake[row] = AWAKE
        self._stirred[row] = False

    def judge(self, rows: Rows, block: Floats, stirs: NDArray[np.bool_] | None = None) -> dict[int, float]:
        """Takes `block` float32 `(B, n <= 256)` at 8 kHz, n a multiple of 32; answers row -> probability of
        speech in [0, 1] for the rows whose 32 ms window became full. `stirs`: in which calls something is to
        be heard that may be speech; the others are 0 after a while. None: in all."""
        pieces = block.shape[1] // _PIECE
        end = self._end[rows]
        self._kept[rows[:, None], (end[:, None] + np.arange(pieces)) % _RING] = block.reshape(
            -1, pieces, _PIECE
        )
        end += pieces
        self._end[rows] = end
        if stirs is None:
            self._stirred[rows] = True
        else:
            self._stirred[rows] |= stirs
        ready = rows[end >= self._due[rows]]
        if not len(ready):
            return {}
        awake = np.where(self._stirred[ready], AWAKE, self._awake[ready] - 1)
        self._awake[ready] = np.maximum(awake, 0)
        self._stirred[ready] = False
        judged = dict.fromkeys(ready.tolist(), 0.0)
        due = self._due[ready]
        self._due[ready] = due + _WINDOW
        heeded = awake > 0
        self._passed[ready[~heeded]] += 1
        ready, due = ready[heeded], due[heeded]
        if len(ready):
            passed = self._passed[ready]
            if passed.any():
                self._passed[ready] = 0
                for back in range(BEFORE, 0, -1):
                    woken = passed >= back
                    self._hear(ready[woken], due[woken] - back * _WINDOW)
            judged.update(zip(ready.tolist(), self._hear(ready, due), strict=True))
        return judged

    def _hear(self, rows: Rows, ends: Rows) -> list[float]:
        """The network's judgement of the windows that end before these pieces."""
        if not len(rows):
            return []
        heard = self._kept[rows[:, None], (ends[:, None] + np.arange(-_WINDOW - 1, 0)) % _RING]
        answer, state = self._network.judge(heard.reshape(len(rows), -1), self._state[:, rows])
        self._state[:, rows] = state
        self.judged += len(rows)
        likely: list[float] = answer.tolist()
        return likely
