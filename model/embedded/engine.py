"""The embedded engine: small models that come inside Python packages, so that a first call really talks.

It hears phrases (`ears`), decides (`dialogue`) and speaks (`mouth`); all conversations share one set of
models.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Final, Self

import numpy as np

from consent.grant import VoiceGrant
from model.api import (
    FRAME,
    RATE_HZ,
    Floats,
    HistoryItem,
    Limits,
    Output,
    Reference,
    SessionConfig,
    Sound,
    Text,
    Tool,
    Understood,
)
from model.embedded.dialogue import Dialogue, Move
from model.embedded.ears import Ears
from model.embedded.mouth import Mouth
from model.errors import EngineBusy, EngineError

OWN_VOICE: Final = "heart"
ITEMS: Final = 32
"""Own items that can still be cut to what was heard."""


class EmbeddedEngine:
    """Weights, and a count of who uses them."""

    def __init__(self, mouth: Mouth, ears: Ears, conversations: int) -> None:
        self.mouth = mouth
        self.ears = ears
        self._open = 0
        self.limits = Limits(conversations=conversations, transcribes=True)

    @classmethod
    async def load(cls, conversations: int = 64) -> Self:
        """Loads the models (about a second)."""
        mouth, ears = await asyncio.gather(asyncio.to_thread(Mouth), asyncio.to_thread(Ears))
        return cls(mouth, ears, conversations)

    async def open(self, grant: VoiceGrant, reference: Reference) -> EmbeddedConversation:
        """A conversation; it speaks only in the voice that its package carries.

        Raises `EngineBusy`, and `EngineError` for a voice that it does not have.
        """
        if grant.voice != OWN_VOICE or not reference.stock:
            raise EngineError(
                f"the embedded engine speaks only as {OWN_VOICE!r}, not as {grant.voice!r}; "
                "a registered voice needs VOICEGATE_ENGINE=chroma"
            )
        if self._open >= self.limits.conversations:
            raise EngineBusy(f"{self._open} conversations are all that this engine takes")
        self._open += 1
        return EmbeddedConversation(self)

    def left(self) -> None:
        self._open -= 1

    async def close(self) -> None:
        self.mouth.close()
        self.ears.close()


class EmbeddedConversation:
    """One caller. Implements `model.api.Conversation`."""

    def __init__(self, engine: EmbeddedEngine) -> None:
        self._engine = engine
        self._dialogue = Dialogue()
        self._sound: list[Floats] = []
        self._move: Move | None = None
        self._said: OrderedDict[str, list[tuple[str, int]]] = OrderedDict()
        """item -> its sentences, each with the samples up to its end"""
        self._closed = False

    async def configure(self, config: SessionConfig) -> None:
        self._dialogue.config = config

    def hear(self, pcm: Floats) -> None:
        self._sound.append(pcm)

    def clear(self) -> None:
        self._sound.clear()

    async def commit(self) -> Understood:
        sound = np.concatenate(self._sound) if self._sound else np.zeros(0, np.float32)
        self._sound.clear()
        hearing = await self._engine.ears.understand(sound, self._dialogue.grammar())
        self._move = self._dialogue.next(hearing, datetime.now().astimezone())
        return Understood(len(sound) / RATE_HZ, hearing.phrase, round(hearing.confidence, 3))

    async def respond(self, item_id: str, say: str | None = None) -> AsyncIterator[Output]:
        move, self._move = (self._move, None) if say is None else (Move(say), self._move)
        if move is None:
            return
        spoken = self._said[item_id] = []
        while len(self._said) > ITEMS:
            self._said.popitem(last=False)
        samples = 0
        if move.text:
            async for sentence, pcm in self._engine.mouth.speak(move.text):
                samples += len(pcm)
                spoken.append((sentence, samples))
                yield Text(sentence if len(spoken) == 1 else " " + sentence)
                for at in range(0, len(pcm), FRAME):
                    yield Sound(pcm[at : at + FRAME])
        if say is None and move.text:
            self._dialogue.last_said = move.text
        if move.tool is not None:
            yield Tool(move.tool, {"intent": move.intent})

    def truncate(self, item_id: str, heard_s: float) -> str:
        """Whole sentences that were heard, and of the one cut as many words as its share of time."""
        heard, kept, start = round(heard_s * RATE_HZ), [], 0
        for sentence, end in self._said.get(item_id, []):
            if end <= heard:
                kept.append(sentence)
            elif heard > start:
                words = sentence.split()
                kept.append(" ".join(words[: int(len(words) * (heard - start) / (end - start))]))
            start = end
        return " ".join(kept).strip()

    async def restore(self, item: HistoryItem) -> None:
        if item.role == "assistant" and item.text:
            self._dialogue.last_said = item.text

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._engine.left()
