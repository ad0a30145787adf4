"""What a line has really played of what we sent it, as far back as an echo of it may come.

Hot path: no locks, no logs; it allocates the frames that it hands on.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.hall.media.audio import FRAME_S, Floats
from watermark.pcm import float_from_int16

Pcm = NDArray[np.int16]

FARTHEST_S: Final = 1.0
"""The longest way from the leg through the caller's room and back."""
FOLLOW_S: Final = 0.5
"""How much of the caller's sound is looked at once the echo is known."""
KEPT: Final = round((FARTHEST_S + FOLLOW_S) / FRAME_S) + 2
"""Ticks of what was played that are remembered."""


class PlayedSound:
    """What the line really played of what a call's leg made, tick by tick; int16 at the line's rate."""

    WAITING: Final = 10
    """Frames that may be on their way to be played; more were lost."""
    LOST: Final = 15
    """Ticks without a new frame after which those on their way were lost."""

    def __init__(self, rate_hz: int, played: int) -> None:
        """`played`: what the line's counter says before the first tick."""
        self.frame = round(rate_hz * FRAME_S)
        self.still = KEPT
        """ticks since something was played"""
        self._silence: Pcm = np.zeros(self.frame, np.int16)
        self._ticks: deque[Pcm] = deque([self._silence] * KEPT, maxlen=KEPT)
        self._coming: deque[Pcm] = deque(maxlen=self.WAITING)
        self._idle = 0
        self._played = played

    def send(self, pcm: Pcm) -> None:
        """The leg made these 20 ms, `(frame,)`; the line will play them, or lose them."""
        self._coming.append(pcm)
        self._idle = 0

    def tick(self, played: int) -> None:
        """A tick came: the line has played `played` samples in all."""
        if self.still == KEPT and played == self._played and not self._coming:
            return  # all that is kept is silence already
        frames, self._played = (played - self._played) // self.frame, played
        sound = self._silence
        for _ in range(min(frames, len(self._coming))):
            sound = self._coming.popleft()
        self._idle += 1
        if self._idle > self.LOST:
            self._coming.clear()
        self.still = 0 if sound is not self._silence else min(self.still + 1, KEPT)
        self._ticks.append(sound)

    def delayed(self, samples: int) -> Pcm:
        """What was played `samples` before the last tick's 20 ms, as many."""
        back, within = divmod(samples, self.frame)
        newest = self._ticks[-1 - back]
        if not within:
            return newest
        both = np.concatenate((self._ticks[-2 - back], newest))
        return both[self.frame - within : 2 * self.frame - within]

    def last(self, ticks: int) -> Floats:
        """The last `ticks` * 20 ms in one piece, float32."""
        kept = self._ticks
        return float_from_int16(np.concatenate([kept[at] for at in range(len(kept) - ticks, len(kept))]))
