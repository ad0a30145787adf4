"""Turns are written down in a bounded queue beside the calls."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np
import pytest
from structlog.testing import capture_logs

from gateway.hall.dialogue.scribe import AT_ONCE, MOST, MOST_S, WITHIN_S, Scribe, WrittenWords
from gateway.hall.media.audio import HOUSE_HZ, Floats

HOUSE_TIME = True


@dataclass
class Heard:
    """As `model.ears.words_heard.Words`."""

    text: str
    confidence: float = 0.8
    refused: str = ""


@dataclass
class Ears:
    """Who hears: `texts` in turn, each after `takes_s`."""

    texts: list[str] = field(default_factory=list)
    takes_s: float = 0.2
    fails: Exception | None = None
    refuses: str = ""
    asked: list[tuple[int, str, bool]] = field(default_factory=list)
    """samples, language, patient"""
    at_once: int = 0
    most_at_once: int = 0

    async def transcribe(self, pcm: Floats, language: str, *, patient: bool) -> WrittenWords:
        self.asked.append((len(pcm), language, patient))
        text = self.texts.pop(0) if self.texts else ""
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self.at_once -= 1
        if self.fails is not None:
            raise self.fails
        return Heard("", 0.0, self.refuses) if self.refuses else Heard(text)


def sound(seconds: float) -> tuple[Floats, ...]:
    half = np.zeros(round(seconds * HOUSE_HZ / 2), np.float32)
    return half, half


async def test_a_turn_is_written() -> None:
    ears = Ears(["good morning"])
    scribe = Scribe(ears)
    told: list[WrittenWords | None] = []
    scribe.write(sound(2.0), "en-GB", told.append)
    assert told == [], "nobody waits for it"
    await asyncio.sleep(0.3)
    assert told == [Heard("good morning")]
    assert ears.asked == [(48_000, "en", True)], "whole, in its language, behind those who wait"
    assert scribe.snapshot() == {"turns_written": 1, "turns_unwritten": 0}


async def test_without_ears_nothing_is_written() -> None:
    scribe = Scribe()
    told: list[WrittenWords | None] = []
    scribe.write(sound(2.0), "en", told.append)
    assert told == [None]
    assert not scribe.writes


async def test_what_holds_no_words_is_told_as_nothing() -> None:
    ears = Ears([""])
    scribe = Scribe(ears)
    told: list[WrittenWords | None] = []
    scribe.write(sound(1.0), "en", told.append)
    await asyncio.sleep(0.3)
    assert told == [None]
    assert scribe.snapshot() == {"turns_written": 0, "turns_unwritten": 0}


async def test_they_are_written_in_order_a_few_at_a_time() -> None:
    ears = Ears([str(number) for number in range(10)])
    scribe = Scribe(ears)
    told: list[WrittenWords | None] = []
    for _ in range(10):
        scribe.write(sound(1.0), "en", told.append)
    await asyncio.sleep(2.0)
    assert [words.text for words in told if words is not None] == [str(number) for number in range(10)]
    assert ears.most_at_once == AT_ONCE


@pytest.mark.parametrize("seconds", [0.5, 30.0])
async def test_a_full_queue_drops_turns_counts_them_and_says_so_once(seconds: float) -> None:
    ears = Ears(["x"] * 1_000)
    scribe = Scribe(ears)
    told: list[WrittenWords | None] = []
    room = AT_ONCE + min(MOST, int(MOST_S / seconds))
    with capture_logs() as logs:
        for _ in range(room + 5):
            scribe.write(sound(seconds), "en", told.append)
    assert told == [None] * 5
    assert scribe.dropped == 5
    assert [line["event"] for line in logs] == ["scribe.full"]
    await asyncio.sleep(60.0)
    assert len(told) == room + 5
    assert scribe.written == room
    with capture_logs() as logs:
        for _ in range(room + 1):
            scribe.write(sound(seconds), "en", told.append)
    assert [line["event"] for line in logs] == ["scribe.full"], "and once more when it is full again"


async def test_busy_ears_are_a_turn_dropped() -> None:
    ears = Ears(refuses="busy")
    scribe = Scribe(ears)
    told: list[WrittenWords | None] = []
    scribe.write(sound(1.0), "en", told.append)
    await asyncio.sleep(0.3)
    assert (told, scribe.dropped) == ([None], 1)


async def test_ears_that_say_nothing_are_given_up() -> None:
    ears = Ears(["late"], takes_s=1_000.0)
    scribe = Scribe(ears)
    told: list[WrittenWords | None] = []
    scribe.write(sound(1.0), "en", told.append)
    await asyncio.sleep(WITHIN_S - 0.5)
    assert told == []
    await asyncio.sleep(1.0)
    assert told == [None]


async def test_an_error_of_the_ears_is_logged_without_its_text() -> None:
    ears = Ears(fails=ValueError("cannot read 'zyzzyva'"))
    scribe = Scribe(ears)
    told: list[WrittenWords | None] = []
    with capture_logs() as logs:
        scribe.write(sound(1.0), "en", told.append)
        await asyncio.sleep(0.3)
    assert told == [None]
    (line,) = logs
    assert (line["event"], line["error"]) == ("scribe.failed", "ValueError")
    assert "transcribe" in line["where"]
    assert "zyzzyva" not in repr(logs)
    ears.fails = None
    ears.texts = ["again"]
    scribe.write(sound(1.0), "en", told.append)
    await asyncio.sleep(0.3)
    assert told == [None, Heard("again")]
