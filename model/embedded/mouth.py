"""The embedded engine's voice: hibari (24 kHz, its one voice in the package), a piece of text at a time.

A piece is a sentence; a long first one is cut at a comma, so that its sound comes early. What was said before
is kept, so that it costs nothing the second time. The 0.3 s of silence that the synthesizer puts around each
piece is cut to a breath.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from consent.grants.grant import VoiceGrant
from model.api import RATE_HZ, Floats, Reference
from model.errors import EngineError
from model.tasks import Tasks

OWN_VOICE: Final = "heart"
LEAD_IN_S: Final = 0.02
PAUSE_S: Final = 0.18
"""Silence kept after a sentence,"""
BREATH_S: Final = 0.06
"""and after a clause."""
FLOOR: Final = 0.004
"""Below this amplitude it is silence (-48 dB)."""
KEPT_S: Final = 300.0
"""Sound that is remembered (29 MB)."""
LONG: Final = 60
"""Characters of a first sentence that is not cut (some 40 ms of rendering)."""
SHORT: Final = 12
"""Characters that a cut leaves on either side at least."""

_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+")
_CLAUSE: Final = re.compile(r"(?<=[,;:])\s+")


def check_voice(grant: VoiceGrant, reference: Reference, engine: str) -> None:
    """Raises `EngineError` when the grant is for a voice that this mouth does not have."""
    if grant.voice != OWN_VOICE or not reference.stock:
        raise EngineError(
            f"the {engine} engine speaks only as {OWN_VOICE!r}, not as {grant.voice!r}; "
            "a registered voice needs VOICEGATE_ENGINE=chroma"
        )


def pieces(text: str) -> list[str]:
    """`text` in the pieces that are synthesized one after another."""
    found = [piece for piece in _SENTENCE.split(text.strip()) if piece]
    if found and len(found[0]) > LONG:
        first = found[0]
        cuts = [m for m in _CLAUSE.finditer(first) if SHORT <= m.start() <= len(first) - SHORT]
        if cuts:
            found[:1] = [first[: cuts[0].start()], first[cuts[0].end() :]]
    return found


def trim(pcm: Floats, pause_s: float = PAUSE_S) -> Floats:
    """`pcm` with its silence at both ends cut to `LEAD_IN_S` and `pause_s`, float32 at 24 kHz."""
    loud = np.flatnonzero(np.abs(pcm) > FLOOR)
    if not len(loud):
        return pcm[:0]
    start = max(0, int(loud[0]) - round(LEAD_IN_S * RATE_HZ))
    end = min(len(pcm), int(loud[-1]) + round(pause_s * RATE_HZ))
    piece = pcm[start:end].copy()
    ramp = np.linspace(0, 1, min(len(piece), round(0.005 * RATE_HZ)), dtype=np.float32)
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
        self._tasks = Tasks()
        self._rendering: dict[str, asyncio.Task[Floats]] = {}
        self._synthesize("Ready.")  # the first run allocates

    async def speak(self, text: str) -> AsyncIterator[tuple[str, Floats]]:
        """(piece of `text`, its sound float32 24 kHz), one by one as they are ready."""
        for piece in pieces(text):
            yield piece, await self._sound(piece)

    async def learn(self, texts: Iterable[str]) -> None:
        """Renders `texts` one piece after another, so that whoever speaks now waits for one at most."""
        for text in texts:
            for piece in pieces(text):
                await self._sound(piece)

    async def _sound(self, piece: str) -> Floats:
        sound = self._kept.get(piece)
        if sound is not None:
            self._kept.move_to_end(piece)
            return sound
        rendering = self._rendering.get(piece)
        if rendering is None:
            # a task of its own: whoever asked first may be interrupted, others wait for the same piece
            rendering = self._rendering[piece] = self._tasks.short(self._render(piece), "mouth.render")
        return await asyncio.shield(rendering)

    async def _render(self, piece: str) -> Floats:
        try:
            sound = await asyncio.get_running_loop().run_in_executor(self._pool, self._synthesized, piece)
        finally:
            del self._rendering[piece]
        self._kept[piece] = sound
        self._kept_samples += len(sound)
        while self._kept_samples > KEPT_S * RATE_HZ:
            _, dropped = self._kept.popitem(last=False)
            self._kept_samples -= len(dropped)
        return sound

    def _synthesized(self, piece: str) -> Floats:
        sound = np.asarray(self._synthesize(piece, seed=0), np.float32)
        return trim(sound, PAUSE_S if piece[-1] in ".!?" else BREATH_S)

    def close(self) -> None:
        self._tasks.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)
