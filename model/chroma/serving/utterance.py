"""What a caller is saying: 24 kHz pieces in, the thinker's audio tokens out while they speak."""

from __future__ import annotations

from typing import Literal

import numpy as np
import soxr
import torch

from model.api import RATE_HZ, Floats
from model.chroma.network.hearing import EAR_HZ, AudioTower, Ear, Mel
from model.chroma.serving.history import Turn


class Utterance:
    """`hear` on the event loop, `listen` in the conductor's thread."""

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
        self._resampler = soxr.ResampleStream(RATE_HZ, EAR_HZ, 1, dtype="float32")

    def hear(self, pcm: Floats) -> None:
        """More of it, float32 24 kHz."""
        self.samples += len(pcm)
        self._waiting.append(pcm)

    @property
    def waiting_s(self) -> float:
        return sum(map(len, self._waiting)) / RATE_HZ

    def take(self) -> Floats:
        """What waits, once."""
        taken = np.concatenate(self._waiting) if self._waiting else np.zeros(0, np.float32)
        self._waiting.clear()
        return taken

    def listen(self, pcm: Floats, over: bool) -> None:
        """Resamples, encodes the chunks that are whole; all of it when it is `over`."""
        self.ear.push(torch.from_numpy(self._resampler.resample_chunk(pcm, last=over)))
        if over:
            self.ear.finish()
        first = self.ear.listen()
        if first is not None:
            self.changed = first if self.changed is None else min(first, self.changed)
