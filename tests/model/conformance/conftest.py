"""Each engine, ready for the same questions: the embedded one, the cascade on a scripted chat server, Chroma
on a checkpoint of drawn weights."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consent.grants.grant import VoiceGrant
from model.api import RATE_HZ, Conversation, Engine, Floats, Reference
from model.cascade.chat_settings import ChatSettings
from model.cascade.engine import CascadeEngine
from model.ears.ears_client import Ears
from model.ears.words_heard import Words
from model.embedded.engine import EmbeddedEngine
from model.embedded.mouth import Mouth
from tests.model.cascade.chat_script import chat_script, says
from tests.model.conftest import Grants
from tests.model.embedded import conftest as parts

ears_socket, mouth = parts.ears_socket, parts.mouth
"""Fixtures of this package, too."""
ENGINES = ("embedded", "cascade", "chroma")
CONVERSATIONS = 2


@dataclass
class Subject:
    """An engine for `CONVERSATIONS` conversations, each by a grant of its own for the stock voice."""

    name: str
    engine: Engine
    grants: Grants
    tell: Callable[[str], None] = lambda _: None
    """what the next utterance will be heard as, where sound alone does not say so"""
    hold: Callable[[float], None] = lambda _: None
    """ears of an engine that transcribes hear each utterance so many seconds late, as others wait"""
    calls: int = field(default=0)

    def grant(self) -> VoiceGrant:
        self.calls += 1
        return self.grants.issue(f"call-{self.calls}")

    async def fetch(self, grant: VoiceGrant) -> Reference:
        """The voice, as a front would hand it out."""
        voice = self.grants.office.reference(grant.token, grant.voice_hash)
        return Reference(voice.voice, voice.voice_hash, voice.pcm, voice.text, voice.stock)

    async def open(self) -> Conversation:
        """A conversation of a call of its own."""
        grant = self.grant()
        return await self.engine.open(grant, await self.fetch(grant))

    @contextlib.asynccontextmanager
    async def talk(self) -> AsyncIterator[Conversation]:
        conversation = await self.open()
        try:
            yield conversation
        finally:
            await conversation.close()


class HeldEars(Ears):
    """The house's ears behind others who wait, once they are held."""

    held_s = 0.0

    def hold(self, seconds: float) -> None:
        self.held_s = seconds

    @property
    def waiting(self) -> int:
        return int(self.held_s > 0)

    async def transcribe(self, pcm: Floats, language: str | None = "en", **named: Any) -> Words:
        await asyncio.sleep(self.held_s)
        return await super().transcribe(pcm, language, **named)


class ToldEars:
    """The house's ears, as far as an engine needs them; each utterance is heard as the next of `words`."""

    wait_s = 0.0
    held_s = 0.0

    def __init__(self, words: list[str]) -> None:
        self._words = words

    def hold(self, seconds: float) -> None:
        self.held_s = seconds

    @property
    def waiting(self) -> int:
        return int(self.held_s > 0)

    async def transcribe(self, pcm: Floats, language: str | None, **_: Any) -> Words:
        await asyncio.sleep(self.held_s)
        return Words(self._words.pop(0) if self._words else "", language or "", 0.9, len(pcm) / RATE_HZ)

    def metrics(self) -> str:
        return ""

    async def close(self) -> None:
        pass


class LentMouth:
    """Another engine's mouth, which stays open."""

    def __init__(self, mouth: Mouth) -> None:
        self.speak, self.learn = mouth.speak, mouth.learn

    def close(self) -> None:
        pass


def noise(seconds: float, seed: int = 0) -> Floats:
    """Something that sounds."""
    return (0.2 * np.random.default_rng(seed).standard_normal(round(seconds * RATE_HZ))).astype(np.float32)


@pytest.fixture(scope="package")
def grants() -> Iterator[Grants]:
    """A consent office that has a clip of the stock voice, as one with Chroma has."""
    with tempfile.TemporaryDirectory(prefix="vgt-") as folder:
        grants = Grants(Path(folder))
        grants.office.stock.keep_clip(noise(0.05, 99), "The words of the clip.")
        yield grants
        grants.office.close()


@pytest.fixture(params=ENGINES)
async def subject(
    request: pytest.FixtureRequest, grants: Grants, mouth: Mouth, ears_socket: Path
) -> AsyncIterator[Subject]:
    """One engine after the other. Each is opened by a grant of its own call."""
    if request.param == "embedded":
        ears = HeldEars(ears_socket)
        await ears.ready()
        yield Subject("embedded", EmbeddedEngine(mouth, ears, CONVERSATIONS), grants, hold=ears.hold)
        await ears.close()
    elif request.param == "cascade":
        words: list[str] = []
        async with chat_script(says("We are open from nine. Is there anything else?")) as script:
            settings = ChatSettings(script.url, "m")
            told = ToldEars(words)
            engine = CascadeEngine(settings, LentMouth(mouth), told, CONVERSATIONS)  # type: ignore[arg-type]
            yield Subject("cascade", engine, grants, words.append, told.hold)
            await engine.close()
    else:
        chroma = chroma_engine()
        yield Subject("chroma", chroma, grants)
        await chroma.close()


def chroma_engine() -> Engine:
    """Chroma with drawn weights: each frame is 2 ms, and no word has a meaning."""
    from tests.model.chroma.serving.test_conversation import FRAME_S, engine_of

    return engine_of(drawn(), conversations=CONVERSATIONS, context=2_000, reply_s=80 * FRAME_S)


@functools.cache
def drawn() -> Any:
    """The weights, which no engine changes."""
    import torch

    from tests.model.chroma import toy

    return toy.model(dtype=torch.float64)
