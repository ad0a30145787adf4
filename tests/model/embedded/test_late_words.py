"""Ears that are busy: who is heard late is told to wait, and who would be one too many is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest

from consent.grants.grant import VoiceGrant
from model.api import RATE_HZ, Floats, Reference, SessionConfig, Sound, Text, Understood
from model.ears.ears_client import MOST_WAIT_S, Ears
from model.ears.words_heard import Words
from model.embedded.dialogue import FILLER
from model.embedded.engine import (
    BEING_HEARD_S,
    FILLER_S,
    EmbeddedConversation,
    EmbeddedEngine,
)
from model.errors import EngineBusy
from tests.model.conftest import Grants

HOUSE_TIME = True

ANSWER = {"intent": "hours", "ask": ["when are you open"], "say": "From nine to six."}


class SlowEars(Ears):
    """Ears that hear one sentence in everything, after a while."""

    def __init__(self) -> None:
        self.takes_s = 0.0
        self.waits_s = 0.0
        self.others = 0

    @property
    def waiting(self) -> int:
        return self.others

    @property
    def wait_s(self) -> float:
        return self.waits_s

    async def transcribe(
        self, pcm: Floats, language: str | None = "en", *, phrases: Sequence[str] = (), patient: bool = False
    ) -> Words:
        await asyncio.sleep(self.takes_s)
        return Words("When are you open?", "en", 0.9, len(pcm) / RATE_HZ)

    async def unsayable(self, phrases: Sequence[str]) -> list[str]:
        return []


class QuietMouth:
    """Says nothing, a tenth of a second for each text."""

    async def speak(self, text: str) -> AsyncIterator[tuple[str, Floats]]:
        yield text, np.zeros(RATE_HZ // 10, np.float32)

    async def learn(self, texts: Sequence[str]) -> None:
        pass


@pytest.fixture
def ears() -> SlowEars:
    return SlowEars()


@pytest.fixture
async def conversation(ears: SlowEars, grants: Grants) -> EmbeddedConversation:
    grant: VoiceGrant = grants.issue()
    engine = EmbeddedEngine(QuietMouth(), ears, conversations=8)  # type: ignore[arg-type]
    conversation = await engine.open(grant, Reference(grant.voice, grant.voice_hash, None, "", stock=True))
    await conversation.configure(SessionConfig(answers=(ANSWER,)))
    return conversation


async def turn(conversation: EmbeddedConversation) -> tuple[Understood, float]:
    """Somebody speaks; what was understood, and how long that took."""
    conversation.hear(np.random.default_rng(1).normal(0, 0.1, RATE_HZ).astype(np.float32))
    before = asyncio.get_running_loop().time()
    understood = await conversation.commit()
    return understood, asyncio.get_running_loop().time() - before


async def reply(conversation: EmbeddedConversation) -> list[str]:
    outputs: list[Any] = [output async for output in conversation.respond("item-1")]
    assert any(isinstance(output, Sound) for output in outputs)
    return [output.delta for output in outputs if isinstance(output, Text)]


async def test_who_is_heard_in_time_is_answered(conversation: EmbeddedConversation, ears: SlowEars) -> None:
    ears.takes_s = FILLER_S - 0.1
    understood, took_s = await turn(conversation)
    assert (understood.text, took_s) == ("when are you open", pytest.approx(FILLER_S - 0.1))
    assert await reply(conversation) == ["From nine to six."]


async def test_who_is_heard_late_is_told_to_wait(conversation: EmbeddedConversation, ears: SlowEars) -> None:
    ears.takes_s, ears.others = 3.0, 1
    understood, took_s = await turn(conversation)
    assert (understood.text, took_s) == (None, pytest.approx(FILLER_S))
    assert await reply(conversation) == [FILLER, " From nine to six."]
    assert await conversation.truncate("item-1", 0.1) == FILLER


async def test_late_words_are_told_when_they_are_there(
    conversation: EmbeddedConversation, ears: SlowEars
) -> None:
    ears.takes_s, ears.others = 3.0, 1
    understood, _ = await turn(conversation)
    assert understood.late
    outputs = conversation.respond("item-1")
    await anext(outputs)
    await outputs.aclose()  # type: ignore[attr-defined]  # the caller speaks into "One moment, please."
    late = await conversation.heard_late()
    assert (late.text, late.intent, late.duration_s) == ("when are you open", "hours", 1.0)
    assert await reply(conversation) == ["From nine to six."]


async def test_late_words_that_nobody_waits_for_any_more_are_none(
    conversation: EmbeddedConversation, ears: SlowEars
) -> None:
    ears.takes_s, ears.others = 3600.0, 1
    await turn(conversation)
    late = asyncio.ensure_future(conversation.heard_late())
    await asyncio.sleep(0)
    ears.takes_s = 0.0
    understood, _ = await turn(conversation)
    assert (understood.text, understood.late) == ("when are you open", False)
    assert (await late).text is None


async def test_whom_nobody_keeps_from_being_heard_is_told_to_wait_later(
    conversation: EmbeddedConversation, ears: SlowEars
) -> None:
    ears.takes_s = FILLER_S + BEING_HEARD_S - 0.1
    assert (await turn(conversation))[0].text == "when are you open"
    assert await reply(conversation) == ["From nine to six."]
    ears.takes_s = FILLER_S + BEING_HEARD_S + 1.0
    understood, took_s = await turn(conversation)
    assert (understood.text, took_s) == (None, pytest.approx(FILLER_S + BEING_HEARD_S))
    assert await reply(conversation) == [FILLER, " From nine to six."]


async def test_who_asks_again_meanwhile_is_answered_once(
    conversation: EmbeddedConversation, ears: SlowEars
) -> None:
    ears.takes_s, ears.others = 3600.0, 1
    await turn(conversation)
    ears.takes_s = 0.0
    understood, _ = await turn(conversation)
    assert understood.text == "when are you open"
    assert await reply(conversation) == ["From nine to six."]


async def test_who_would_wait_too_long_is_not_let_in(
    conversation: EmbeddedConversation, ears: SlowEars, grants: Grants
) -> None:
    engine = conversation._engine
    grant = grants.issue()
    ears.waits_s = MOST_WAIT_S + 0.1
    with pytest.raises(EngineBusy, match=r"callers wait 1\.0 s to be heard"):
        await engine.open(grant, Reference(grant.voice, grant.voice_hash, None, "", stock=True))
    ears.waits_s = MOST_WAIT_S
    await engine.open(grant, Reference(grant.voice, grant.voice_hash, None, "", stock=True))
