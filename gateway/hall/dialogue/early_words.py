"""Hears callers early for an engine that does not: what is said at a pause decides how long it may last.

The house's ears are asked beside the call, as an engine that hears early asks them (`model.ears.listening`),
and never in its way: a turn that they told nothing of ends by the clock, and until they tell of another one
the clock also decides what cuts our voice. The words stay in here, but for a plan that keeps transcripts:
then they go with the turn that they are of, which nobody need hear once more.

What goes on over our voice is heard before it pauses, too: people behind the caller hold the judge of speech
as the caller does, and no recogniser finds words in what several of them say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from gateway.hall.media.audio import Floats
from gateway.hall.media.turns import TurnEvent, Turns
from model.api import EarlyHearing
from model.ears.ears_client import Ears
from model.ears.last_words import early_hearing
from model.ears.listening import Listening
from model.ears.words_heard import Words
from model.tasks import Tasks

BUSY_S: Final = 0.3
"""Whoever would wait longer than this for the ears has no words in time: the clock decides what cuts us."""
OVER_US_S: Final = 0.48
"""So much speech over our voice, and the ears are asked whether there are words in it; not every caller's
first half second has some. `benchmarks/noisy_lines.py` measures it."""
AGAIN_S: Final = 0.3
"""They are asked again after so much more speech, while there are none."""


def told_by(words: Words) -> EarlyHearing | None:
    """What words say that were heard at a pause; None when nobody could hear.

    No plan is known here, so nothing is a sure answer; but a whole question waits for one as that does.
    """
    early = early_hearing(words)
    if early is not None and early.state == "plain" and not early.aside and words.text.rstrip().endswith("?"):
        return replace(early, state="answered")
    return early


class _Questions:
    """The house's ears, as `Listening` uses them, and how many of its questions they have not answered."""

    def __init__(self, ears: Ears) -> None:
        self._ears = ears
        self.unanswered = 0

    @property
    def wait_s(self) -> float:
        return self._ears.wait_s

    @property
    def waiting(self) -> int:
        return self._ears.waiting

    async def transcribe(
        self, pcm: Floats, language: str | None = "en", *, phrases: Sequence[str] = ()
    ) -> Words:
        self.unanswered += 1
        try:
            return await self._ears.transcribe(pcm, language, phrases=phrases)
        finally:
            self.unanswered -= 1


class EarlyWords:
    """One conversation's, in `language` (ISO 639-1). `keeps`: the plan keeps words."""

    def __init__(self, ears: Ears, language: str, *, keeps: bool) -> None:
        self._ears = _Questions(ears)
        self._keeps = keeps
        self._listening = Listening(self._ears, self._heard, language)
        self._tasks = Tasks()
        self._words: Words | None = None
        self._open: list[Floats] = []
        """what is said over our voice, as long as it may be nothing"""
        self._open_asked = False
        self._ask_at_s = OVER_US_S
        self._deaf = False
        """the ears were late when they were asked last, or could not hear"""
        self.early: EarlyHearing | None = None
        """what the latest pause of the present turn says"""
        self.wordless_s = 0.0
        """so much of the present turn's sound holds no words"""

    @property
    def knows_asides(self) -> bool:
        """It will tell, in time, which words are nothing to stop for."""
        return not self._deaf and self._ears.wait_s <= BUSY_S

    def hear(self, sound: Floats | None, event: TurnEvent | None, turns: Turns) -> Words | None:
        """More of the caller's turn, float32 24 kHz, and what it has come to.

        Returns the words of a turn that is over, where they are kept and nothing was said after them. On the
        hot path: the sound is looked at after the pass.
        """
        loop = asyncio.get_running_loop()
        if sound is not None:
            loop.call_soon(self._listening.hear, sound)
            if turns.is_open:
                self._hear_over_us(sound, turns.speech_s)
        if event is not TurnEvent.END and event is not TurnEvent.TRIFLE:
            return None
        told, words = self.early, self._words
        self._deaf = self._deaf or self._ears.unanswered > 0
        self.forget()
        return words if told is not None and turns.covered_by(told) else None

    def forget(self) -> None:
        """What the caller began to say is over, or nothing."""
        self.early = self._words = None
        self.wordless_s = 0.0
        self._open, self._open_asked, self._ask_at_s = [], False, OVER_US_S
        self._tasks.cancel()
        asyncio.get_running_loop().call_soon(self._listening.clear)

    def _heard(self, words: Words) -> None:
        self.early = told_by(words)
        self._deaf = self.early is None
        self._words = words if self._keeps and self.early is not None else None
        self._listening.open = self.early is not None and self.early.state == "unfinished"

    def _hear_over_us(self, sound: Floats, speech_s: float) -> None:
        self._open.append(sound)
        if speech_s >= self._ask_at_s and not self._open_asked and self.knows_asides:
            self._open_asked, self._ask_at_s = True, speech_s + AGAIN_S
            self._tasks.short(self._look_for_words(self._open.copy()), "call.over_us")

    async def _look_for_words(self, sound: list[Floats]) -> None:
        words = await self._ears.transcribe(np.concatenate(sound), self._listening.language)
        self._open_asked = False
        early = early_hearing(words)
        self._deaf = early is None
        self.wordless_s = words.sounded_s if early is not None and early.aside and not words.text else 0.0
