"""Conversations on fewer pages than all could use: who is admitted goes on, and says what it says alone."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from model.chroma.network.cache import PAGE
from model.chroma.network.weights import Chroma
from model.chroma.serving import engine_settings
from model.chroma.serving.admission import Capacity
from model.chroma.serving.conversation import ChromaConversation
from model.errors import EngineBusy
from tests.model.chroma.serving.test_conversation import Opener, answer, engine_of, noise, opened, say

__all__ = ["opened"]

SHARED = {"conversations": 4, "context": 8 * PAGE, "promised": 3 * PAGE}


async def test_a_conversation_holds_what_it_uses_and_no_more(toy_model: Chroma, opened: Opener) -> None:
    engine = engine_of(toy_model, **SHARED)
    pages = engine.slots.thinker.pages
    assert pages.count == 4 * 3 + 5, "the promise of each, and what one can use besides"
    conversation = await opened(engine, "a")
    await say(conversation, noise(0.7))
    await conversation.commit()
    await answer(conversation, "one")
    slot = conversation._slot
    assert len(pages.held[slot]) == -(-engine.slots.thinker.lengths[slot] // PAGE)
    assert sum(map(len, pages.held)) == len(pages.held[slot])
    await conversation.close()
    assert not any(pages.held)
    assert pages.left == pages.count
    await engine.close()


async def test_a_long_call_forgets_sooner_where_others_need_the_memory(
    toy_model: Chroma, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone it has all of its context; beside others it has what they leave, and its promise for sure."""
    monkeypatch.setattr(Capacity, "late", lambda *_: None)  # a toy's frame has 2 ms
    engine = engine_of(toy_model, **SHARED)
    thinker = engine.slots.thinker

    async def talk(one: ChromaConversation, turns: int) -> int:
        """How many turns it forgot; it is answered each time."""
        forgot = 0
        for item in range(turns):
            await say(one, noise(2.0))
            await one.commit()
            heard = await answer(one, f"item {item}")
            assert len(heard.sound)
            forgot += heard.forgot
        return forgot

    first, second = [await opened(engine, "a") for _ in range(2)]
    await talk(first, 6)
    assert thinker.lengths[first._slot] > 5 * PAGE
    await talk(second, 6)
    had = len(first._history)
    third = await opened(engine, "a")
    assert thinker.pages.left < 3, "there was enough for one who comes, and is not for another"
    assert await talk(first, 1) > 1, "so it forgets more than a turn for the one that it hears"
    assert len(first._history) < had
    fourth = await opened(engine, "a")
    for one in (first, second, third, fourth):
        await talk(one, 1)
        assert thinker.allowed(one._slot) >= 3 * PAGE
    for one in (first, second, third, fourth):
        await one.close()
    await engine.close()


async def test_shared_memory_changes_nothing_of_what_is_said(toy_model: Chroma, opened: Opener) -> None:
    found = []
    for settings in ({**SHARED, "promised": SHARED["context"]}, SHARED):
        engine = engine_of(toy_model, **settings)
        talkers = [await opened(engine, "a") for _ in range(4)]
        for talker in talkers:
            await say(talker, noise(0.8))
            await talker.commit()
        found.append(await asyncio.gather(*(answer(talker, "one") for talker in talkers)))
        for talker in talkers:
            await talker.close()
        await engine.close()
    for own, shared in zip(*found, strict=True):
        assert own.text == shared.text
        np.testing.assert_allclose(own.sound, shared.sound, atol=1e-5)


async def test_a_conversation_that_could_not_say_its_longest_answer_is_refused(
    toy_model: Chroma, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its voice takes more than voices are thought to take, and the first two used that up."""
    monkeypatch.setattr(engine_settings, "VOICE", 0)
    engine = engine_of(toy_model, **SHARED)
    backbone = engine.slots.backbone
    first = await opened(engine, "a")
    assert backbone.limit(first._slot) >= first._voice.positions + engine_settings.reply_positions(
        engine.reply_frames
    )
    taken = backbone.pages.left
    backbone.pages.claims[2] = taken  # as if others had voices as long
    with pytest.raises(EngineBusy, match="memory: open conversations hold"):
        await opened(engine, "a")
    assert engine.free == 3
    assert 'refused_total{reason="memory"} 1.0' in await engine.metrics()
    backbone.pages.claims[2] = 0
    second = await opened(engine, "a")
    await first.close()
    await second.close()
    await engine.close()
