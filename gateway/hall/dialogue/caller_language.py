"""Which language a caller speaks: the ears are asked once enough was said, and again where that did not do.

Silence does not count, nor does what turns out to be a cough. Short utterances are heard together, so that
nobody is judged by a "hello".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from gateway.hall.media.audio import HOUSE_HZ, Floats
from gateway.hall.media.turns import TurnEvent
from gateway.hall.parts.inbox import LanguageHeard
from model.ears.ears_client import Ears
from model.tasks import Tasks

ENOUGH_S: Final = 1.5
"""Of speech, before the ears are asked; benchmarks/languages.py measures how often they are right then."""
MORE_S: Final = 3.0
"""Of speech, before they are asked again within the same utterance; else the end of the next one will do."""

MOST_S: Final = 12.0
"""Of sound; who has not said enough by then said nothing, and is listened to anew."""


class CallerLanguage:
    """One conversation's. Speaks up by `post`, once; an empty language means that it could not be told."""

    def __init__(self, ears: Ears, among: Sequence[str], post: Callable[[LanguageHeard], None]) -> None:
        self._ears = ears
        self._among = tuple(among)
        self._post = post
        self._tasks = Tasks()
        self._sound: list[Floats] = []
        self._ended = 0
        """pieces of sound in the utterances that are over"""
        self._ended_s = 0.0
        """speech in these"""
        self._utterances = 0
        self._asked_in: int | None = None
        """the utterance in which the ears were asked last"""
        self._asking = False
        self._settled = False

    def hear(self, sound: Floats | None, event: TurnEvent | None, speech_s: float) -> None:
        """More of the caller's turn, float32 24 kHz, and what it has come to.

        `speech_s`: speech in this turn so far. On the hot path.
        """
        if self._settled:
            return
        if sound is not None:
            self._sound.append(sound)
        if event is TurnEvent.TRIFLE:
            del self._sound[self._ended :]
            return
        spoken_s = self._ended_s + speech_s
        if not self._asking and self._enough(spoken_s, event):
            last, self._asking = self._asked_in is not None, True
            self._asked_in = self._utterances
            self._tasks.short(self._ask(self._sound.copy(), last), "call.language")
        if event is TurnEvent.END:
            self._utterances += 1
            self._ended, self._ended_s = len(self._sound), spoken_s
            if spoken_s < ENOUGH_S and sum(map(len, self._sound)) > MOST_S * HOUSE_HZ:
                self._sound, self._ended, self._ended_s = [], 0, 0.0

    def _enough(self, spoken_s: float, event: TurnEvent | None) -> bool:
        """Whether the ears are asked now."""
        if self._asked_in is None:
            return spoken_s >= ENOUGH_S
        return spoken_s >= MORE_S or (event is TurnEvent.END and self._utterances > self._asked_in)

    async def _ask(self, sound: Sequence[Floats], last: bool) -> None:
        language, chance = await self._ears.language(np.concatenate(sound), self._among)
        self._asking = False
        if language in self._among or last:  # "a stranger" is too often wrong of so little speech
            self._settle()
            self._post(LanguageHeard(language, chance))

    def _settle(self) -> None:
        self._settled = True
        self._sound = []

    def close(self) -> None:
        """Nobody wants to know any more."""
        self._settle()
        self._tasks.cancel()
