"""What calls heard in the last two turns, for what has to be concealed.

It is kept as the turns made it, all calls together, and looked for only when one call needs its own.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np

from gateway.rtp.media.concealment import past_samples
from gateway.rtp.payloads.g711 import Pcm

NOBODY: Final = -1

Group = tuple[list[int], Pcm]
"""Slots, and a row of 20 ms for each."""


class LastTurns:
    """Of one line. Each call's sound is at its codec's rate."""

    __slots__ = ("_turns",)

    def __init__(self) -> None:
        self._turns: deque[list[Group]] = deque(([], []), maxlen=2)

    def note(self, groups: list[Group]) -> None:
        """What a turn brought."""
        self._turns.append(groups)

    def forget(self, slot: int) -> None:
        """Another call has the slot."""
        for turn in self._turns:
            for slots, _ in turn:
                slots[:] = [NOBODY if one == slot else one for one in slots]

    def past(self, slot: int, rate_hz: int) -> Pcm:
        """What a call heard last, `past_samples` long; zeros where nothing came."""
        frame = rate_hz // 50
        heard = [_row(turn, slot, frame) for turn in self._turns]
        return np.concatenate(heard)[-past_samples(rate_hz) :]


def _row(turn: list[Group], slot: int, frame: int) -> Pcm:
    for slots, sound in turn:
        if sound.shape[1] == frame and slot in slots:
            row: Pcm = sound[slots.index(slot)]
            return row
    return np.zeros(frame, np.int16)
