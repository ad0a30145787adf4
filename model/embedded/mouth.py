"""The embedded engine's voice: hibari (24 kHz, its one voice in the package), a sentence at a time.

Synthesis runs in a small thread pool; sentences said before are kept, so that a greeting costs nothing the
second time. The 0.3 s of silence that the synthesizer puts before each sentence is cut to a breath.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from model.api import RATE_HZ, Floats

LEAD_IN_S: Final = 0.02
PAUSE_S: Final = 0.18
"""Silence kept after a sentence."""
FLOOR: Final = 0.004
"""Below this amplitude it is silence (-48 dB)."""
KEPT_S: Final = 600.0
"""Sound of sentences that are remembered."""

_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+")


def sentences(text: str) -> list[str]:
    """`text` in the pieces that are synthesized one after another."""
    return [piece for piece in _SENTENCE.split(text.strip()) if piece]


def trim(pcm: Floats) -> Floats:
    """`pcm` with its silence at both ends cut to `LEAD_IN_S` and `PAUSE_S`, float32 at 24 kHz."""
    loud = np.flatnonzero(np.abs(pcm) > FLOOR)
    if not len(loud):
        return pcm[:0]
    start = max(0, int(loud[0]) - round(LEAD_IN_S * RATE_HZ))
    end = min(len(pcm), int(loud[-1]) + round(PAUSE_S * RATE_HZ))
    piece = pcm[start:end].copy()
    ramp = np.linspace(0, 1, round(0.005 * RATE_HZ), dtype=np.float32)
    piece[: len(ramp)] *= ramp
    return piece


class Mouth:
    """One set of weights for all conversations."""

    def __init__(self) -> None:
        from hibari import Hibari  # half a second of imports, only where it speaks

        self._synthesize = Hibari(threads=1)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="mouth")
        self._kept: OrderedDict[str, Floats] = OrderedDict()
        self._kept_samples = 0
        self._synthesize("Ready.")  # the first run allocates

    async def speak(self, text: str) -> AsyncIterator[tuple[str, Floats]]:
        """(sentence, its sound float32 24 kHz), one by one as they are ready."""
        loop = asyncio.get_running_loop()
        for sentence in sentences(text):
            sound = self._kept.get(sentence)
            if sound is None:
                sound = await loop.run_in_executor(self._pool, self._render, sentence)
                self._keep(sentence, sound)
            yield sentence, sound

    def _render(self, sentence: str) -> Floats:
        return trim(np.asarray(self._synthesize(sentence, seed=0), np.float32))

    def _keep(self, sentence: str, sound: Floats) -> None:
        self._kept[sentence] = sound
        self._kept_samples += len(sound)
        while self._kept_samples > KEPT_S * RATE_HZ:
            _, dropped = self._kept.popitem(last=False)
            self._kept_samples -= len(dropped)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
