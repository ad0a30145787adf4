"""What is understood of an utterance, at a pause and at its end, is judged once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from model.api import RATE_HZ, EarlyHearing, Floats, Understood
from model.ears.comprehension import Comprehension
from model.ears.ears_client import Ears
from model.ears.listening import QUIET_S, Listening
from model.ears.words_heard import Words

HOUSE_TIME = True

PHRASES = ("when are you open",)
JUDGED_S = 0.2


class Sentences(Ears):
    """Ears that hear one sentence after the other."""

    def __init__(self, *sentences: str) -> None:
        self._sentences = list(sentences)

    @property
    def waiting(self) -> int:
        return 0

    async def transcribe(
        self, pcm: Floats, language: str | None = "en", *, phrases: Sequence[str] = (), patient: bool = False
    ) -> Words:
        return Words(self._sentences.pop(0), "en", 0.9, len(pcm) / RATE_HZ)


class Mind:
    """Notes what it judges and what it takes; a question is settled by its mark."""

    def __init__(self, *sentences: str) -> None:
        self.judged: list[str] = []
        self.took: list[str] = []
        self.told: list[EarlyHearing] = []
        ears = Sentences(*sentences)
        self.comprehension = Comprehension(
            lambda on_words: Listening(ears, on_words),
            self._judge,
            lambda text: text.endswith("?"),
            self._take,
            wait_s=1.0,
        )
        self.comprehension.tell_early(self.told.append)

    async def _judge(self, words: Words, _: Sequence[str]) -> str:
        self.judged.append(words.text)
        await asyncio.sleep(JUDGED_S)
        return words.text

    def _take(self, words: Words, text: str, duration_s: float) -> Understood:
        self.took.append(text)
        return Understood(duration_s, text, words.confidence)

    async def hears(self, seconds: float, level: float) -> None:
        sound = np.random.default_rng(1).normal(0, level, round(seconds * RATE_HZ)).astype(np.float32)
        for at in range(0, len(sound), RATE_HZ // 50):
            self.comprehension.hear(sound[at : at + RATE_HZ // 50], PHRASES)
            await asyncio.sleep(0.02)


SPEECH, QUIET = (0.8, 0.1), (QUIET_S + 0.04, 0.001)


@pytest.mark.parametrize("later_s", [0.0, JUDGED_S])
async def test_the_words_of_the_last_pause_are_judged_once(later_s: float) -> None:
    mind = Mind("When are you open?")
    await mind.hears(*SPEECH)
    await mind.hears(*QUIET)
    await asyncio.sleep(later_s)
    understood = await mind.comprehension.commit(PHRASES)
    assert understood.text == "When are you open?"
    assert (mind.judged, mind.took) == (["When are you open?"], ["When are you open?"])


async def test_who_speaks_on_is_judged_anew_and_taken_once() -> None:
    mind = Mind("When are", "When are you open?")
    await mind.hears(*SPEECH)
    await mind.hears(*QUIET)
    await asyncio.sleep(JUDGED_S)
    await mind.hears(*SPEECH)
    await mind.hears(2 * JUDGED_S, 0.001)
    assert [early.state for early in mind.told] == ["plain", "answered"]
    assert (await mind.comprehension.commit(PHRASES)).text == "When are you open?"
    assert (len(mind.judged), mind.took) == (2, ["When are you open?"])


async def test_words_that_mean_something_else_by_now_are_judged_anew() -> None:
    mind = Mind("When are you open?")
    await mind.hears(*SPEECH)
    await mind.hears(2 * JUDGED_S, 0.001)
    mind.comprehension.reconsider()
    await mind.comprehension.commit(PHRASES)
    assert len(mind.judged) == 2


async def test_an_utterance_that_was_nothing_is_not_told() -> None:
    mind = Mind("When are you open?")
    await mind.hears(*SPEECH)
    await mind.hears(*QUIET)
    mind.comprehension.clear()
    await asyncio.sleep(1.0)
    assert (mind.told, mind.took) == ([], [])
    assert (await mind.comprehension.heard_late()).text is None
