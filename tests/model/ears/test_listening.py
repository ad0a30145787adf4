"""An utterance is understood while the caller is silent, before anybody says that it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from model.api import RATE_HZ, Floats
from model.ears.ears_client import Ears
from model.ears.listening import EARLY, LATE_S, LONGER_S, OPEN_EARLY, QUIET_S, Listening
from model.ears.words_heard import NO_WORDS, Words

HOUSE_TIME = True

PHRASES = ["good morning"]
CHUNK = RATE_HZ // 50


class Notes(Ears):
    """Ears that note how much they were given, and answer that."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.takes_s = 0.0
        self.others = 0

    @property
    def waiting(self) -> int:
        return self.others

    async def transcribe(
        self,
        pcm: Floats,
        language: str | None = "en",
        *,
        phrases: Sequence[str] = (),
        patient: bool = False,
    ) -> Words:
        self.asked.append(len(pcm))
        await asyncio.sleep(self.takes_s)
        return said(len(pcm))


def said(samples: int) -> Words:
    return Words(f"{samples} samples", "en", 1.0, samples / RATE_HZ)


def sound(seconds: float, amplitude: float, seed: int = 1) -> Floats:
    noise = np.random.default_rng(seed).normal(0, amplitude, round(seconds * RATE_HZ))
    return noise.astype(np.float32)


async def hear(listening: Listening, *parts: Floats) -> None:
    for part in parts:
        for at in range(0, len(part), CHUNK):
            listening.hear(part[at : at + CHUNK], PHRASES)
            await asyncio.sleep(0)


SPEECH, LINE = sound(0.8, 0.1), sound(0.3, 0.001)


@pytest.fixture
def notes() -> Notes:
    return Notes()


async def test_the_answer_is_there_when_the_turn_is_over(notes: Notes) -> None:
    listening = Listening(notes)
    await hear(listening, LINE, SPEECH, sound(QUIET_S + 0.02, 0.001))
    (asked,) = notes.asked
    await hear(listening, sound(0.2, 0.001))
    assert await listening.finish(PHRASES) == said(asked)
    assert notes.asked == [asked]


async def test_speech_after_a_pause_asks_anew(notes: Notes) -> None:
    listening = Listening(notes)
    await hear(listening, LINE, SPEECH, LINE, SPEECH, LINE)
    whole = await listening.finish(PHRASES)
    assert len(notes.asked) == 2
    assert whole == said(notes.asked[1])
    assert notes.asked[1] > 2 * len(SPEECH)


async def test_each_early_answer_wants_a_longer_silence(notes: Notes) -> None:
    listening = Listening(notes)
    stop = sound(QUIET_S + 0.02, 0.001)
    await hear(listening, SPEECH, stop, SPEECH, stop, SPEECH, stop)
    assert len(notes.asked) == 1
    await hear(listening, SPEECH, sound(QUIET_S + LONGER_S + 0.02, 0.001))
    assert len(notes.asked) == 2


async def test_without_a_pause_the_answer_is_sought_at_the_end(notes: Notes) -> None:
    listening = Listening(notes)
    await hear(listening, LINE, SPEECH)
    assert notes.asked == []
    await listening.finish(PHRASES)
    assert notes.asked == [len(LINE) + len(SPEECH)]


async def test_another_grammar_asks_anew(notes: Notes) -> None:
    listening = Listening(notes)
    await hear(listening, SPEECH, LINE)
    await listening.finish([*PHRASES, "yes"])
    assert len(notes.asked) == 2


async def test_utterances_do_not_run_into_each_other(notes: Notes) -> None:
    listening = Listening(notes)
    await hear(listening, SPEECH, LINE)
    listening.clear()
    assert listening.seconds == 0
    assert await listening.finish(PHRASES) is NO_WORDS
    await hear(listening, SPEECH)
    await listening.finish(PHRASES)
    assert notes.asked[-1] == len(SPEECH)


async def test_a_stammering_caller_is_not_sought_for_at_every_pause(notes: Notes) -> None:
    listening = Listening(notes)
    await hear(listening, *[part for _ in range(3 * EARLY) for part in (SPEECH, LINE)])
    assert len(notes.asked) == EARLY
    await listening.finish(PHRASES)
    assert len(notes.asked) == EARLY + 1


async def test_noise_of_a_bad_line_is_silence_all_the_same(notes: Notes) -> None:
    """20 dB below the speech: heard apart by the quietest it was."""
    listening = Listening(notes)
    await hear(listening, sound(0.3, 0.01), SPEECH, sound(0.3, 0.01))
    assert len(notes.asked) == 1


async def test_what_is_heard_early_is_told_unless_speech_goes_on(notes: Notes) -> None:
    told: list[Words] = []
    listening = Listening(notes, told.append)
    await hear(listening, SPEECH, LINE)
    assert told == [said(notes.asked[0])]
    notes.takes_s = 3600.0
    await hear(listening, SPEECH, LINE, SPEECH)
    assert len(notes.asked) == 2
    listening.clear()
    assert len(told) == 1


async def test_a_late_answer_is_not_waited_for_when_there_is_a_part_of_it(notes: Notes) -> None:
    listening = Listening(notes)
    await hear(listening, SPEECH, LINE)
    notes.takes_s, notes.others = 3600.0, 1
    await hear(listening, SPEECH, LINE)
    before = asyncio.get_running_loop().time()
    assert await listening.finish(PHRASES) == said(notes.asked[0])
    assert asyncio.get_running_loop().time() - before == pytest.approx(LATE_S)


async def test_a_late_answer_is_waited_for_when_nobody_else_waits(notes: Notes) -> None:
    listening = Listening(notes)
    await hear(listening, SPEECH, LINE)
    notes.takes_s = 2.0
    await hear(listening, SPEECH, LINE)
    assert await listening.finish(PHRASES) == said(notes.asked[1])


async def test_a_late_answer_is_waited_for_when_nothing_was_heard_before(notes: Notes) -> None:
    listening = Listening(notes)
    notes.takes_s = 2.0
    await hear(listening, SPEECH, LINE)
    assert await listening.finish(PHRASES) == said(notes.asked[0])


async def test_who_has_more_to_say_is_heard_at_longer_pauses_and_more_often(notes: Notes) -> None:
    def more(_: Words) -> None:
        listening.open = True

    short, long = sound(0.17, 0.001), sound(0.3, 0.001)
    listening = Listening(notes, more)
    await hear(listening, SPEECH, short)
    assert len(notes.asked) == 1
    await hear(listening, SPEECH, short, SPEECH, short, SPEECH)
    assert len(notes.asked) == 1
    await hear(listening, *[part for _ in range(3 * OPEN_EARLY) for part in (SPEECH, long)])
    assert len(notes.asked) == OPEN_EARLY
    listening.clear()
    await hear(listening, SPEECH, short)
    assert len(notes.asked) == OPEN_EARLY + 1, "an utterance of its own"
