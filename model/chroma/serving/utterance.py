"""What a caller is saying: 24 kHz pieces in, the thinker's audio tokens out while they speak.

The event loop takes pieces (`hear`) and tokens (`learn`). In between `attend` makes mel frames in a pool of
threads, so that the engine's own thread is left to the weights; one conversation has one `attend` at a time,
and in order. It is worth it when a chunk of the encoder is whole. Once one was encoded it is worth it every
half second, since a louder sound may change that chunk, which is done again while the caller still speaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import soxr
import torch
from torch import Tensor

from model.api import RATE_HZ, Floats
from model.chroma.network.hearing import EAR_HZ, AudioTower, Ear, Mel, Wanted
from model.chroma.serving.history import Turn

LOUDER_S: Final = 0.5
"""How long a sound waits that may be louder than all before it."""
SLACK_S: Final = 0.03
"""What the resampler holds back of a chunk's end, and more."""


class Utterance:
    """See the module."""

    def __init__(self, tower: AudioTower, mel: Mel, maximum: Literal["exact", "running"]) -> None:
        self.ear = Ear(tower, mel, maximum)
        self.turn: Turn | None = None
        """its place in the history, once it has one"""
        self.over = False
        self.dropped = False
        self.changed: int | None = None
        """the first chunk whose tokens the history has not seen"""
        self.samples = 0
        self._waiting: list[Floats] = []
        self._waiting_s = 0.0
        self._missing_s = self.ear.missing / EAR_HZ + SLACK_S
        self._asked = False
        self._follows = False
        """a louder sound may change what was encoded"""
        self._resampler = soxr.ResampleStream(RATE_HZ, EAR_HZ, 1, dtype="float32")

    def hear(self, pcm: Floats) -> bool:
        """More of it, float32 24 kHz; answers whether what waits became worth a look, once."""
        self.samples += len(pcm)
        self._waiting.append(pcm)
        self._waiting_s += len(pcm) / RATE_HZ
        louder = self._follows and self._waiting_s >= LOUDER_S
        if self._asked or not (louder or self._waiting_s >= self._missing_s):
            return False
        self._asked = True
        return True

    def take(self) -> Floats:
        """What waits, once."""
        taken = np.concatenate(self._waiting) if self._waiting else np.zeros(0, np.float32)
        self._waiting.clear()
        self._waiting_s, self._asked = 0.0, False
        return taken

    @torch.inference_mode()
    def attend(self, pcm: Floats, over: bool) -> Wanted | None:
        """Resamples and makes mel frames: the chunks that are whole, all of it when it is `over`; None where
        there is nothing for the encoder."""
        self.ear.push(torch.from_numpy(self._resampler.resample_chunk(pcm, last=over)))
        if over:
            self.ear.finish()
        self._missing_s = self.ear.missing / EAR_HZ + SLACK_S
        self._follows = self.ear.maximum == "exact" and self.ear.chunks > 0
        return self.ear.wanted()

    def learn(self, wanted: Wanted, heard: Sequence[Tensor]) -> None:
        """What the encoder made of what was `wanted`."""
        first = self.ear.learn(wanted, heard)
        self.changed = first if self.changed is None else min(first, self.changed)
