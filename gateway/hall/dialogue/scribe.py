"""Writes down what callers say where their engine does not: beside the calls, never in their way.

Whoever wants a turn written hands its sound over and goes on. The turns wait in a bounded queue before the
house's ears (`model.ears`); when it is full, a turn is not written, which is counted and said once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import structlog

from gateway.hall.media.audio import HOUSE_HZ, Floats
from model.json_log import untold
from model.tasks import Tasks

log = structlog.get_logger("scribe")

AT_ONCE: Final = 2
"""Turns that the ears are asked for at a time; they have a queue of their own, for callers who wait."""
MOST: Final = 64
"""Turns that wait,"""
MOST_S: Final = 240.0
"""and seconds of sound that they hold together (23 MB)."""
WITHIN_S: Final = 20.0
"""Ears that take longer over a turn hear nothing of it."""


class WrittenWords(Protocol):
    """What somebody heard in a turn (`model.ears.words_heard.Words`)."""

    @property
    def text(self) -> str:
        """Empty when nobody spoke, or nobody could be understood."""

    @property
    def confidence(self) -> float:
        """In [0, 1]."""

    @property
    def refused(self) -> str:
        """Why there are no words."""


class WritingEars(Protocol):
    """Who hears (`model.ears.ears_client.Ears`)."""

    async def transcribe(self, pcm: Floats, language: str, *, patient: bool) -> WrittenWords:
        """The words of `pcm`, float32 24 kHz, behind everybody who is not patient."""


Told = Callable[[WrittenWords | None], None]
"""Takes what was written; None: nothing was."""


@dataclass(frozen=True, slots=True, eq=False)
class UnwrittenTurn:
    """A turn that waits to be written. `sound` is float32 24 kHz in pieces."""

    sound: tuple[Floats, ...]
    seconds: float
    language: str
    told: Told


class Scribe:
    """One hall's. Without ears nobody writes."""

    def __init__(self, ears: WritingEars | None = None) -> None:
        self._ears = ears
        self._waiting: deque[UnwrittenTurn] = deque()
        self._waiting_s = 0.0
        self._writing = 0
        self._full = False
        self._tasks = Tasks()
        self.written = 0
        """turns of which there are words"""
        self.dropped = 0
        """turns that nobody heard: too many waited"""

    @property
    def writes(self) -> bool:
        """Whether there is anybody to write."""
        return self._ears is not None

    def write(
        self, sound: Sequence[Floats], language: str, told: Told, heard: WrittenWords | None = None
    ) -> None:
        """Has a turn written; `told` is called once: by a task of the scribe's, or now if there is no room.

        `language`: the call's, as a tag or as ISO 639-1. `heard`: the words, where somebody heard them
        already; they are told now, and nobody hears the turn again.
        """
        seconds = sum(map(len, sound)) / HOUSE_HZ
        if heard is not None:
            self.written += bool(heard.text)
            told(heard if heard.text else None)
        elif self._ears is None or not seconds:
            told(None)
        elif len(self._waiting) >= MOST or self._waiting_s + seconds > MOST_S:
            self._drop()
            told(None)
        else:
            self._waiting.append(UnwrittenTurn(tuple(sound), seconds, _iso(language), told))
            self._waiting_s += seconds
            self._begin()

    def snapshot(self) -> dict[str, float]:
        """Counters for the metrics."""
        return {"turns_written": self.written, "turns_unwritten": self.dropped}

    async def close(self) -> None:
        """Writes nothing more."""
        await self._tasks.stop()

    def _drop(self) -> None:
        self.dropped += 1
        if not self._full:
            self._full = True
            remedy = "give the house more cores, or keep fewer transcripts"
            log.warning("scribe.full", waiting=len(self._waiting), dropped=self.dropped, remedy=remedy)

    def _begin(self) -> None:
        while self._ears is not None and self._waiting and self._writing < AT_ONCE:
            turn = self._waiting.popleft()
            self._waiting_s -= turn.seconds
            self._writing += 1
            self._tasks.short(self._write(self._ears, turn), "scribe.turn")
        if not self._waiting:
            self._full = False

    async def _write(self, ears: WritingEars, turn: UnwrittenTurn) -> None:
        words: WrittenWords | None = None
        try:
            async with asyncio.timeout(WITHIN_S):
                words = await ears.transcribe(np.concatenate(turn.sound), turn.language, patient=True)
            if words.refused == "busy":
                self._drop()
            self.written += bool(words.text)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # its text may hold what was said
            log.error("scribe.failed", **untold(error))
        finally:
            self._writing -= 1
            turn.told(words if words is not None and words.text else None)
            self._begin()


def _iso(language: str) -> str:
    """The language of a tag: "en" of "en-GB"."""
    return language.partition("-")[0].lower()
