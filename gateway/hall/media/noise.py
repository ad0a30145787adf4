"""Tells a caller from the people behind them: who speaks to us is louder than what is there all the time.

The judge of speech (`VoiceActivity`) takes babble for speech, which it is. So each call's sound is compared
with the quietest that it was in the last one to two seconds: what is hardly louder is nobody who speaks to
us, whatever the judge says. On a quiet line any gap between two words is so quiet that this never matters.

WebRTC's suppressor before the judge does the contrary of what it is for: what it leaves of babble is more
like one voice than babble was, and the judge takes it for speech more often (`benchmarks/noisy_lines.py`).

Where nothing stirs, nobody would be believed, so the judge need not be asked (`VoiceActivity.judge`).

Hot path: numpy over all calls at once; no locks, no logs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.hall.media.audio import FRAME_S, Floats, Rows

BEGINS: Final = 10 ** (9 / 10)
"""Who begins to speak to us has so many times (9 dB) the energy of the quietest that there was, …"""
GOES_ON: Final = 10 ** (5 / 10)
"""… and who goes on so many (5 dB): more, and a caller in a noise 5 dB below would be cut to pieces."""
KEEP: Final = 0.6
"""Of the energy from one tick to the next: it is that of the last 50 ms or so."""
LOOKS_BACK: Final = round(1.0 / FRAME_S)
"""Ticks of which the quietest is kept, and the quietest of as many before."""
NOTHING: Final = 1e-8
"""Energy of 20 ms that any sound has."""


class NoiseFloor:
    """What there is on each call's line when nobody speaks; a call's row is its own, as in every stage."""

    def __init__(self, capacity: int) -> None:
        self._energy: Floats = np.zeros(capacity, np.float32)
        self._quietest: Floats = np.zeros((2, capacity), np.float32)
        """of the present second, and of the one before; 0 until a second was heard"""
        self._ticks: NDArray[np.intp] = np.zeros(capacity, np.intp)

    def reset(self, row: int) -> None:
        self._energy[row] = 0.0
        self._quietest[:, row] = 0.0
        self._ticks[row] = 0

    def hear(self, rows: Rows, narrow: Floats) -> NDArray[np.bool_]:
        """Hears 20 ms of the calls in `rows`, float32 `(B, 160)` at 8 kHz; returns in which of them something
        stirs: is so loud that somebody in their turn would be believed."""
        energy = KEEP * self._energy[rows] + np.einsum("ij,ij->i", narrow, narrow) + NOTHING
        self._energy[rows] = energy
        self._quietest[0, rows] = np.minimum(self._quietest[0, rows], energy)
        self._ticks[rows] += 1
        full = rows[self._ticks[rows] % LOOKS_BACK == 0]
        if len(full):
            self._quietest[1, full] = self._quietest[0, full]
            self._quietest[0, full] = self._energy[full]
        return np.asarray(energy >= GOES_ON * self._quietest[:, rows].min(axis=0))

    def doubt(self, rows: Rows, judged: dict[int, float], speaking: Sequence[bool]) -> None:
        """Of the calls in `rows`, of which 20 ms were just heard, and which are in their turns or not
        (`speaking`): takes back what `judged` (row -> probability of speech) says of those that are hardly
        louder than their line."""
        least = np.where(speaking, GOES_ON, BEGINS) * self._quietest[:, rows].min(axis=0)
        for row in rows[self._energy[rows] < least].tolist():
            if row in judged:
                judged[row] = 0.0
