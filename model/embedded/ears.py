"""The embedded engine's hearing: utterances in, phrases out, none of the work in the event loop.

Recognisers hold the interpreter's lock while they decode, so they live in processes of their own. A
conversation's `Listening` does not wait for the end of a turn: whenever the caller falls silent it has what
was said so far understood, and when the turn is then declared over the answer is there already.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Final

import numpy as np
import structlog

from model.api import RATE_HZ, Floats
from model.embedded.evidence import NOTHING, Hearing, weigh
from model.embedded.recogniser import LONGEST_S, Recogniser
from model.errors import EngineError
from model.tasks import Tasks
from watermark.pcm import bytes_from_float, float_from_bytes

log = structlog.get_logger("ears")

MOST_PROCESSES: Final = 4
FRAME: Final = RATE_HZ // 50
QUIET_S: Final = 0.1
"""Of silence after speech, and what was said is understood before the turn is known to be over."""
LOUD: Final = 0.05
"""A frame this far (-26 dB) below the loudest so far is silence,"""
ABOVE_FLOOR: Final = 1.8
"""as is one that is no louder than this many times the quietest."""
EARLY: Final = 8
"""Early answers per utterance; who pauses more often waits at the end."""

_recogniser: Recogniser
"""A worker process's own; `_begin` makes it, and the engine's process has none."""


def _begin() -> None:
    """A worker's first act."""
    global _recogniser
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the engine, which then ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _recogniser = Recogniser()


def _end_with_parent() -> None:
    """A killed engine leaves no worker behind: its end of this pipe closes with it."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101  # for mypy: only a worker runs this
    wait([parent.sentinel])
    os._exit(0)


def _hear(raw: bytes, phrases: tuple[str, ...]) -> Hearing:
    found = _recogniser.align(float_from_bytes(raw), phrases)
    return NOTHING if found is None else weigh(found)


def _unsayable(phrases: tuple[str, ...]) -> list[str]:
    return [phrase for phrase in phrases if not _recogniser.sayable(phrase)]


class Ears:
    """Recognisers for all conversations, at most one per core."""

    def __init__(self) -> None:
        self._processes = max(1, min(MOST_PROCESSES, os.cpu_count() or 1))
        self._pool = self._start()

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self._processes, mp_context=multiprocessing.get_context("spawn"), initializer=_begin
        )

    async def ready(self) -> None:
        """Returns when a recogniser has its model. Raises `EngineError` when it cannot have it."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._pool, _unsayable, ())
        except BrokenProcessPool:
            raise EngineError("the recogniser did not start: is pocketsphinx installed whole?") from None

    async def unsayable(self, phrases: Sequence[str]) -> list[str]:
        """Those of `phrases` with a word that is not in the dictionary: nobody will be heard saying them."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, _unsayable, tuple(phrases))
        except BrokenProcessPool:  # the next `understand` starts them again
            return []

    async def understand(self, pcm: Floats, phrases: Sequence[str]) -> Hearing:
        """Which of `phrases` (lower case words) `pcm` (float32 24 kHz) says."""
        if not phrases or len(pcm) > LONGEST_S * RATE_HZ:
            return NOTHING
        raw = bytes_from_float(pcm)
        pool = self._pool
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, _hear, raw, tuple(phrases))
        except BrokenProcessPool:
            log.error("ears.lost", remedy="the recognisers are started again; this utterance is lost")
            if self._pool is pool:
                self._pool = self._start()
            return NOTHING

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


@dataclass(slots=True, eq=False)
class Early:
    """An answer that was asked for before the end of the turn."""

    samples: int
    """of the utterance that it covers"""
    phrases: tuple[str, ...]
    answer: asyncio.Task[Hearing]


class Listening:
    """One conversation's utterance while it arrives."""

    def __init__(self, ears: Ears) -> None:
        self._ears = ears
        self._tasks = Tasks()
        self._sound: list[Floats] = []
        self._samples = 0
        self._loud_until = 0
        """samples up to the end of the last frame that was not silence"""
        self._loudest = 0.0
        self._floor = 1.0
        self._early: Early | None = None
        self._asked = 0

    @property
    def seconds(self) -> float:
        return self._samples / RATE_HZ

    def hear(self, pcm: Floats, phrases: Sequence[str]) -> None:
        """The utterance goes on with `pcm`; `phrases` may be said now."""
        for at in range(0, len(pcm), FRAME):
            frame = pcm[at : at + FRAME]
            level = float(np.sqrt(np.mean(frame**2)))
            self._loudest = max(self._loudest, level)
            self._floor = min(self._floor, max(level, 1e-5))
            if level > max(LOUD * self._loudest, min(ABOVE_FLOOR * self._floor, 0.3 * self._loudest)):
                self._loud_until = self._samples + at + len(frame)
        self._sound.append(pcm)
        self._samples += len(pcm)
        quiet = self._samples - self._loud_until
        if self._early is not None and self._early.samples < self._loud_until:
            self._drop()
        if quiet >= QUIET_S * RATE_HZ and self._loud_until and self._early is None and self._asked < EARLY:
            self._asked += 1
            answer = self._tasks.short(
                self._ears.understand(np.concatenate(self._sound), phrases), "ears.early"
            )
            self._early = Early(self._samples, tuple(phrases), answer)

    async def finish(self, phrases: Sequence[str]) -> Hearing:
        """What the utterance said; the next one may begin while this is awaited."""
        early, self._early = self._early, None
        sound = self._sound
        self.clear()
        if early is not None and early.phrases == tuple(phrases):
            return await early.answer
        return await self._ears.understand(np.concatenate(sound), phrases) if sound else NOTHING

    def clear(self) -> None:
        """The utterance was nothing, or is over."""
        self._drop()
        self._sound = []
        self._samples = self._loud_until = self._asked = 0
        self._loudest, self._floor = 0.0, 1.0

    def _drop(self) -> None:
        if self._early is not None:
            self._early.answer.cancel()
            self._early = None
