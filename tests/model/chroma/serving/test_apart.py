"""The golden checkpoint in a process of its own says what it says here, and is as new after whoever left."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from consent.grants.grant import VoiceGrant, hash_voice
from model import engines
from model.api import (
    RATE_HZ,
    Conversation,
    Engine,
    Floats,
    HistoryItem,
    Output,
    Reference,
    SessionConfig,
    Sound,
    Text,
)
from model.proxy import EngineProxy
from tests.model.chroma.serving.test_conversation import noise
from tests.model.conftest import Grants

CLIP = noise(1.0, 9)
WORDS = "The words of the clip."
SLOTS = 2


def never() -> None:
    raise AssertionError("it died")


async def opened(engine: Engine, grant: VoiceGrant) -> Conversation:
    voice_hash = hash_voice(CLIP.tobytes(), WORDS)  # as an office that keeps this clip names it
    reference = Reference("heart", voice_hash, CLIP, WORDS, stock=True)
    return await engine.open(dataclasses.replace(grant, voice_hash=voice_hash), reference)


async def reply(conversation: Conversation, item: str, say: str | None, outputs: int) -> list[Output]:
    """A reply's first outputs."""
    found: list[Output] = []
    async with contextlib.aclosing(conversation.respond(item, say)) as saying:  # type: ignore[type-var]
        async for output in saying:
            found.append(output)
            if len(found) == outputs:
                break
    return found


async def call(engine: Engine, grant: VoiceGrant) -> list[tuple[str, Floats]]:
    """Disclosure, a turn whose reply is interrupted, one after it: words and sound of each."""
    conversation = await opened(engine, grant)
    await conversation.configure(SessionConfig(instructions="Be brief."))
    await conversation.restore(HistoryItem("user", "hello"))
    said = []
    for number, (seconds, say, outputs) in enumerate(
        [(0.0, "I am a machine", 99), (1.3, None, 7), (2.2, None, 99)]
    ):
        pcm = noise(seconds, number)
        for at in range(0, len(pcm), 2400):
            conversation.hear(pcm[at : at + 2400])
        if len(pcm):
            assert (await conversation.commit()).duration_s == pytest.approx(len(pcm) / RATE_HZ)
        found = await reply(conversation, f"item {number}", say, outputs)
        text = "".join(output.delta for output in found if isinstance(output, Text))
        said.append((text, np.concatenate([output.pcm for output in found if isinstance(output, Sound)])))
        if outputs < 99:
            said.append((await conversation.truncate(f"item {number}", 0.2), np.zeros(0, np.float32)))
    await conversation.close()
    return said


async def test_apart_is_together(golden: Path, grants: Grants, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "VOICEGATE_CHROMA": str(golden),
        "VOICEGATE_CHROMA_DEVICE": "cpu",
        "VOICEGATE_CHROMA_CONTEXT": "512",
        "VOICEGATE_CHROMA_REPLY_S": "0.64",
        "VOICEGATE_ENGINE_CALLS": str(SLOTS),
        "OMP_NUM_THREADS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    grant = grants.issue()
    here = await engines.chroma()
    expected = await call(here, grant)
    await here.close()
    apart = await EngineProxy.start("model.engines:chroma", never)
    try:
        for _ in range(2):
            found = await call(apart, grant)
            assert [text for text, _ in found] == [text for text, _ in expected]
            for (_, pcm), (_, same) in zip(found, expected, strict=True):
                np.testing.assert_array_equal(pcm, same)
            for outputs in range(6):  # between the two calls others come, and leave at all points
                left = await opened(apart, grant)
                left.hear(noise(0.6, 5))
                if outputs:
                    assert len(await reply(left, "item", None, outputs)) == outputs
                await left.close()
            for free in [await opened(apart, grant) for _ in range(SLOTS)]:
                await free.close()
        assert "voicegate_chroma_" in await apart.metrics()
    finally:
        await apart.close()
