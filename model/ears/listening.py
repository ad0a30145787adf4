"""One conversation's utterance while it arrives: what was said is known when the turn is declared over.

Whenever the caller falls silent, what was said so far is sent to be heard. Who goes on speaking is heard
again at the next silence, and what was sent before is taken back: if nobody has begun with it, it has cost
nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from model.api import RATE_HZ, Floats
from model.ears.words_heard import NO_WORDS, Words
from model.tasks import Tasks

FRAME: Final = RATE_HZ // 50
QUIET_S: Final = 0.1
"""Of silence after speech, and what was said is heard before the turn is known to be over."""
LONGER_S: Final = 0.06
"""Each further early answer wants so much more silence: who pauses often is not heard at every stop."""
LOUD: Final = 0.05
"""A frame this far (-26 dB) below the loudest so far is silence,"""
ABOVE_FLOOR: Final = 1.8
"""as is one that is no louder than this many times the quietest."""
EARLY: Final = 4
"""Early answers per utterance; who pauses more often waits at the end."""
OPEN_QUIET_S: Final = 0.22
"""While the words so far ask for more, each early answer wants so much silence: who dictates a number stops
after each digit, and longer after some."""
OPEN_EARLY: Final = 8
"""Early answers per utterance then."""
LATE_S: Final = 0.45
"""An answer is late that comes longer than this after the end of the turn: while others wait too, what was
heard before a pause will do then."""


@dataclass(slots=True, eq=False)
class Early:
    """An answer that was asked for before the end of the turn."""

    samples: int
    """of the utterance that it covers"""
    phrases: tuple[str, ...]
    answer: asyncio.Task[Words]


class AnsweringEars(Protocol):
    """Who hears the words (`model.ears.ears_client.Ears`)."""

    @property
    def waiting(self) -> int:
        """How many questions are not answered yet."""

    async def transcribe(
        self, pcm: Floats, language: str | None = "en", *, phrases: Sequence[str] = ()
    ) -> Words:
        """The words of `pcm`, float32 24 kHz, of which these phrases may be said."""


class Listening:
    """One conversation's hearing. `on_words` is told each time what the utterance said so far."""

    def __init__(
        self,
        ears: AnsweringEars,
        on_words: Callable[[Words], None] = lambda _: None,
        language: str | None = "en",
    ) -> None:
        self._ears = ears
        self._on_words = on_words
        self.language = language
        self._tasks = Tasks()
        self._sound: list[Floats] = []
        self._samples = 0
        self._loud_until = 0
        """samples up to the end of the last frame that was not silence"""
        self._loudest = 0.0
        self._floor = 1.0
        self._early: Early | None = None
        self._asked = 0
        self.open = False
        """the words so far ask for more; who is told of them says so"""
        self._partial: Words | None = None
        """what was heard up to a pause after which the caller went on"""

    @property
    def seconds(self) -> float:
        return self._samples / RATE_HZ

    @property
    def others_wait(self) -> bool:
        """Other callers wait to be heard, too."""
        return self._ears.waiting > 0

    def hear(self, pcm: Floats, phrases: Sequence[str] = ()) -> None:
        """The utterance goes on with `pcm` (float32 24 kHz); `phrases` may be said now."""
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
        enough_s, most = (
            (OPEN_QUIET_S, OPEN_EARLY) if self.open else (QUIET_S + LONGER_S * self._asked, EARLY)
        )
        if quiet >= enough_s * RATE_HZ and self._loud_until and self._early is None and self._asked < most:
            self._asked += 1
            answer = self._tasks.short(
                self._hear_early(np.concatenate(self._sound), tuple(phrases)), "ears.early"
            )
            self._early = Early(self._samples, tuple(phrases), answer)

    def finish(self, phrases: Sequence[str] = ()) -> asyncio.Task[Words]:
        """What the utterance said; the next one may begin at once.

        When the ears are so busy that the answer is late, what was heard before the last pause is taken.
        """
        early, self._early = self._early, None
        sound, partial = self._sound, self._partial
        self.clear()
        if early is not None and early.phrases == tuple(phrases):
            answer = early.answer
        else:
            whole = np.concatenate(sound) if sound else None
            answer = self._tasks.short(self._transcribe(whole, phrases), "ears.last")
        return self._tasks.short(self._in_time(answer, partial), "ears.finish")

    def clear(self) -> None:
        """The utterance was nothing, or is over."""
        self._drop()
        self._sound = []
        self._samples = self._loud_until = self._asked = 0
        self.open = False
        self._loudest, self._floor = 0.0, 1.0
        self._partial = None

    async def _transcribe(self, pcm: Floats | None, phrases: Sequence[str]) -> Words:
        if pcm is None:
            return NO_WORDS
        return await self._ears.transcribe(pcm, self.language, phrases=phrases)

    async def _hear_early(self, pcm: Floats, phrases: Sequence[str]) -> Words:
        words = await self._transcribe(pcm, phrases)
        if self._early is not None and self._early.answer is asyncio.current_task():
            self._on_words(words)
        return words

    async def _in_time(self, answer: asyncio.Task[Words], partial: Words | None) -> Words:
        """The answer; when others keep the ears from it, what was heard before it, if that is something."""
        try:
            if partial is not None and partial.text:
                done, _ = await asyncio.wait([answer], timeout=LATE_S)
                if not done and self.others_wait:
                    return partial
            return await answer
        finally:
            answer.cancel()

    def _drop(self) -> None:
        if self._early is not None:
            answer = self._early.answer
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self._partial = answer.result()
            answer.cancel()
            self._early = None
