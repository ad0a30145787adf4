"""What `model.api` asks of every engine, tried on every engine."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest

from model.api import FRAME, RATE_HZ, Conversation, Floats, HistoryItem, SessionConfig, Sound, Text
from model.errors import EngineBusy
from tests.model.conformance.conftest import CONVERSATIONS, Subject, noise
from tests.needs import HANGS_S

TEXT = "Good day to you. We open at nine."
PLAN = SessionConfig(
    instructions="Answer in one sentence.",
    tools=({"type": "function", "name": "hang_up"},),
    facts={"hours": "nine to five"},
    phrases={"unsure": "Did you ask about {about}?", "not_understood": ["Pardon?"], "hold": "One moment."},
)


@dataclass
class Said:
    """A reply as it came."""

    text: str = ""
    sound: list[Floats] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return sum(map(len, self.sound)) / RATE_HZ


async def reply(conversation: Conversation, item: str, say: str | None = None, sounds: int = 1 << 30) -> Said:
    """All of a reply, or up to so many pieces of its sound."""
    said = Said()
    outputs = conversation.respond(item, say)
    async with asyncio.timeout(HANGS_S):
        async for output in outputs:
            if isinstance(output, Text):
                said.text += output.delta
            elif isinstance(output, Sound):
                said.sound.append(output.pcm)
                if len(said.sound) >= sounds:
                    break
        await outputs.aclose()  # type: ignore[attr-defined]
    return said


async def asked(subject: Subject, conversation: Conversation, seconds: float = 0.5) -> None:
    """The caller says something that is worth an answer."""
    subject.tell("when do you open")
    pcm = noise(seconds)
    for at in range(0, len(pcm), FRAME):
        conversation.hear(pcm[at : at + FRAME])
        await asyncio.sleep(0)
    await conversation.commit()


async def test_what_is_to_be_said_is_said_word_for_word(subject: Subject) -> None:
    async with subject.talk() as conversation:
        await conversation.configure(PLAN)
        for k in range(2):
            said = await reply(conversation, f"item{k}", TEXT)
            assert said.text.strip() == TEXT
            assert said.sound


async def test_sound_comes_in_frames(subject: Subject) -> None:
    async with subject.talk() as conversation:
        said = await reply(conversation, "item", TEXT)
        for pcm in said.sound:
            assert (pcm.dtype, pcm.ndim) == (np.float32, 1)
            assert 0 < len(pcm) <= FRAME
            assert np.all(np.isfinite(pcm))
            if subject.name != "chroma":  # drawn weights know no loudness; the server clips whatever comes
                assert np.max(np.abs(pcm)) <= 1.0


async def test_an_utterance_is_understood_and_answered(subject: Subject) -> None:
    async with subject.talk() as conversation:
        await conversation.configure(PLAN)
        subject.tell("when do you open")
        pcm = noise(0.6)
        for at in range(0, len(pcm), FRAME):
            conversation.hear(pcm[at : at + FRAME])
        understood = await conversation.commit()
        assert understood.duration_s == pytest.approx(0.6)
        assert understood.confidence is None or 0 <= understood.confidence <= 1
        if not subject.engine.limits.transcribes:
            assert understood.text is None
        said = await reply(conversation, "item")
        assert said.sound


async def test_an_utterance_that_was_nothing_leaves_nothing(subject: Subject) -> None:
    async with subject.talk() as conversation:
        conversation.hear(noise(0.6))
        await asyncio.sleep(0)
        conversation.clear()
        conversation.clear()
        subject.tell("hello")
        conversation.hear(noise(0.2))
        assert (await conversation.commit()).duration_s == pytest.approx(0.2)


async def test_hearing_returns_at_once_whatever_is_under_way(subject: Subject) -> None:
    async with subject.talk() as conversation:
        await asked(subject, conversation)
        outputs = conversation.respond("item")
        await anext(outputs)
        conversation.hear(noise(0.3))
        subject.tell("and when do you close")
        await outputs.aclose()  # type: ignore[attr-defined]
        await conversation.truncate("item", 0.0)
        assert (await conversation.commit()).duration_s == pytest.approx(0.3)
        assert (await reply(conversation, "next")).sound


async def test_a_closed_reply_is_over_and_the_next_one_is_whole(subject: Subject) -> None:
    async with subject.talk() as conversation:
        await reply(conversation, "first", TEXT, sounds=1)
        said = await reply(conversation, "second", TEXT)
        assert said.text.strip() == TEXT


async def test_a_reply_is_cut_to_what_was_heard(subject: Subject) -> None:
    async with subject.talk() as conversation:
        said = await reply(conversation, "item", TEXT)
        shares = [await conversation.truncate("item", said.seconds * k / 8) for k in range(9, -1, -1)]
        assert shares[-1] == ""
        assert shares[0] in TEXT
        assert len(shares[0]) > len(TEXT) / 2
        assert all(longer.startswith(shorter) for longer, shorter in itertools.pairwise(shares))
        assert all(TEXT.startswith(kept) and not kept.endswith(" ") for kept in shares)
        assert len(set(shares)) > 2
        whole = {*itertools.accumulate(TEXT.split(), "{} {}".format)}
        assert set(shares) <= whole | {""}, "whole words"


async def test_a_reply_that_was_closed_can_be_cut_too(subject: Subject) -> None:
    async with subject.talk() as conversation:
        said = await reply(conversation, "item", TEXT, sounds=3)
        kept = await conversation.truncate("item", said.seconds)
        assert TEXT.startswith(kept)
        assert len(kept) < len(TEXT)
        assert await conversation.truncate("item", 0.0) == ""


async def test_an_unknown_item_has_no_words(subject: Subject) -> None:
    async with subject.talk() as conversation:
        assert await conversation.truncate("nobody's", 1.0) == ""


async def test_what_is_restored_is_taken_without_a_word(subject: Subject) -> None:
    async with subject.talk() as conversation:
        await conversation.configure(PLAN)
        for item in (
            HistoryItem("assistant", text="Hello."),
            HistoryItem("user", text="when do you open"),
            HistoryItem("assistant", text="At nine."),
            HistoryItem("system", text="The caller was put through once."),
            HistoryItem("user", pcm=noise(0.3)),
            HistoryItem("user"),
        ):
            subject.tell("is that so")
            await conversation.restore(item)
        await asked(subject, conversation)
        assert (await reply(conversation, "item")).sound


async def test_a_plan_may_change_between_replies(subject: Subject) -> None:
    async with subject.talk() as conversation:
        await conversation.configure(PLAN)
        await asked(subject, conversation)
        assert (await reply(conversation, "one")).sound
        await conversation.configure(SessionConfig(instructions="Answer in two sentences."))
        await asked(subject, conversation)
        assert (await reply(conversation, "two")).sound


async def test_as_many_conversations_as_it_says_and_each_is_free_again(subject: Subject) -> None:
    assert subject.engine.limits.conversations == CONVERSATIONS
    open_ = [await subject.open() for _ in range(CONVERSATIONS)]
    with pytest.raises(EngineBusy):
        await subject.open()
    for conversation in open_:
        await conversation.close()
        await conversation.close()
    async with subject.talk() as conversation:
        assert (await reply(conversation, "item", TEXT)).text.strip() == TEXT


async def test_conversations_do_not_hear_each_other(subject: Subject) -> None:
    other = "Something else is said here."
    async with subject.talk() as one, subject.talk() as two:
        first, second = await asyncio.gather(reply(one, "item", TEXT), reply(two, "item", other))
        assert (first.text.strip(), second.text.strip()) == (TEXT, other)
        assert await two.truncate("item", 0.0) == ""
        assert await one.truncate("item", first.seconds) != ""


async def test_a_conversation_may_be_closed_in_the_middle_of_everything(subject: Subject) -> None:
    conversation = await subject.open()
    await asked(subject, conversation)
    outputs = conversation.respond("item")
    await anext(outputs)
    conversation.hear(noise(0.2))
    await outputs.aclose()  # type: ignore[attr-defined]
    await conversation.close()
    async with subject.talk() as again:
        assert (await reply(again, "item", TEXT)).text.strip() == TEXT


async def test_it_forgets_a_voice_and_says_what_it_measures(subject: Subject) -> None:
    subject.engine.forget("0" * 64)
    text = await subject.engine.metrics()
    assert text == "" or text.endswith("\n")
    for line in text.splitlines():
        assert line.startswith(("#", "voicegate_")), line
