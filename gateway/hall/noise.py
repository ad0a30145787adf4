"""Tells a caller from the people behind them, by what WebRTC's noise suppressor leaves of the sound.

The judge of speech (`VoiceActivity`) takes babble for speech, which it is. What the suppressor takes away is
what has been there all the time; so where it takes most of a window away, nobody speaks *to us*, whatever
the judge says of it. The judge itself hears the sound as it came: what the suppressor leaves of babble is
more like one voice than babble was, and the judge takes it for speech more often
(`benchmarks/noisy_lines.py`). Nor does anybody else hear what it leaves: recognisers hear worse through it.

The suppressor (`pywebrtc-audio`) holds the interpreter's lock for .02 ms a call, so it listens after the
20 ms pass, when the lines have their answers; its word is good for the next pass.

Hot path: no locks, no logs.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from pywebrtc_audio import NoiseSuppressor

from gateway.hall.audio import VAD_HZ, Floats, RateChanger, Rows

SUPPRESSOR_HZ: Final = 16_000
"""The lowest rate that it takes."""
PIECE: Final = SUPPRESSOR_HZ // 100
"""Samples that it takes at once (10 ms)."""
LEVEL: Final = 1
"""Of its four strengths: 12 dB at most."""
LEAST: Final = 10 ** (-5 / 10)
"""Less than this share of the energy left (-5 dB), and the sound is noise."""
KEEP: Final = 0.6
"""Of the energies from one tick to the next: they are those of the last 50 ms or so."""
NOTHING: Final = 1e-8
"""Energy of 20 ms that counts as silence, of which the suppressor takes nothing."""


class NoiseStage:
    """What the suppressor makes of each call's sound; a call's row is its own, as in every stage."""

    def __init__(self, capacity: int) -> None:
        self._up = RateChanger(VAD_HZ, SUPPRESSOR_HZ, capacity)
        self._suppressors: list[NoiseSuppressor | None] = [None] * capacity
        self._came: Floats = np.full(capacity, NOTHING, np.float32)
        self._left: Floats = np.full(capacity, NOTHING, np.float32)

    def reset(self, row: int) -> None:
        self._up.reset(row)
        self._suppressors[row] = None
        self._came[row] = self._left[row] = NOTHING

    def hear(self, rows: Rows, narrow: Floats) -> None:
        """20 ms of the calls in `rows`, float32 `(B, 160)` at 8 kHz."""
        sound = self._up.change(rows, narrow)
        left = np.empty(len(rows), np.float32)
        for at, row in enumerate(rows.tolist()):
            suppressor = self._suppressors[row]
            if suppressor is None:
                suppressor = self._suppressors[row] = NoiseSuppressor(SUPPRESSOR_HZ, 1, LEVEL)
            first, second = (suppressor.process(sound[at, k : k + PIECE]) for k in (0, PIECE))
            left[at] = np.dot(first, first) + np.dot(second, second)
        self._came[rows] = KEEP * self._came[rows] + np.einsum("ij,ij->i", sound, sound) + NOTHING
        self._left[rows] = KEEP * self._left[rows] + left + NOTHING

    def doubt(self, rows: Rows, judged: dict[int, float]) -> None:
        """Takes back what `judged` (row -> probability of speech) says of rows whose sound is noise."""
        for row in rows[self._left[rows] < LEAST * self._came[rows]].tolist():
            if row in judged:
                judged[row] = 0.0
