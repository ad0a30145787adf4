"""An engine without weights: what it says is scripted, what it is told is noted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import numpy as np

from consent.grants.grant import VoiceGrant
from model.api import (
    FRAME,
    EarlyHearing,
    Floats,
    Forgot,
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
from model.errors import EngineBusy, EngineError, ProtocolError


@dataclass(eq=False)
class ScriptedConversation:
    """Answers `words`, each with `frames_a_word` frames of sound that is `level` throughout."""

    engine: ScriptedEngine
    level: float
    words: list[str] = field(default_factory=lambda: ["one", " two", " three"])
    frames_a_word: int = 2
    tool: Tool | None = None
    forgot: int = 0
    """turns that the next reply says are no longer known"""
    fails: Exception | None = None
    hold: asyncio.Event | None = None
    """a commit waits for it"""
    late: asyncio.Future[Understood] | None = None
    """a commit does not wait for it: its words are late"""
    config: SessionConfig = field(default_factory=SessionConfig)
    heard: list[Floats] = field(default_factory=list)
    utterances: list[Floats] = field(default_factory=list)
    restored: list[HistoryItem] = field(default_factory=list)
    truncated: list[tuple[str, float]] = field(default_factory=list)
    frames_made: int = 0
    ended: int = 0
    """replies whose iterator was closed or ran out"""
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    knows_asides: bool = True
    hears: Callable[[EarlyHearing], None] = lambda _: None
    """tells what it heard early"""

    def tell_early(self, tell: Callable[[EarlyHearing], None]) -> None:
        self.hears = tell

    async def configure(self, config: SessionConfig) -> None:
        if config.instructions == "nonsense":
            raise ProtocolError("session.instructions make no sense", "session.instructions")
        self.config = config

    def hear(self, pcm: Floats) -> None:
        self.heard.append(pcm)

    def clear(self) -> None:
        self.heard.clear()

    async def commit(self) -> Understood:
        sound = np.concatenate(self.heard)
        self.heard.clear()
        if self.hold is not None:
            await self.hold.wait()
        self.utterances.append(sound)
        if self.late is not None:
            return Understood(len(sound) / 24_000, late=True)
        return Understood(len(sound) / 24_000, "hello", 0.5)

    async def heard_late(self) -> Understood:
        return await self.late if self.late is not None else Understood(0.0)

    async def respond(self, item_id: str, say: str | None = None) -> AsyncIterator[Output]:
        try:
            if self.forgot:
                yield Forgot(self.forgot)
            for word in [say] if say is not None else self.words:
                yield Text(word)
                for _ in range(self.frames_a_word):
                    self.frames_made += 1
                    yield Sound(np.full(FRAME, self.level, np.float32))
            if self.fails is not None:
                raise self.fails
            if self.tool is not None:
                yield self.tool
        finally:
            self.ended += 1

    async def truncate(self, item_id: str, heard_s: float) -> str:
        self.truncated.append((item_id, heard_s))
        return f"{heard_s:g} s"

    async def restore(self, item: HistoryItem) -> None:
        self.restored.append(item)

    async def close(self) -> None:
        if not self.closed.is_set():
            self.closed.set()
            self.engine.taken -= 1


class ScriptedEngine:
    """`conversations[k]` is the k-th that was opened."""

    def __init__(self, slots: int = 4) -> None:
        self.limits = Limits(conversations=slots, transcribes=True)
        self.conversations: list[ScriptedConversation] = []
        self.taken = 0
        self.refuses: EngineError | None = None
        self.forgotten: list[str] = []

    async def open(self, grant: VoiceGrant, reference: Reference) -> ScriptedConversation:
        if self.refuses is not None:
            raise self.refuses
        if self.taken >= self.limits.conversations:
            raise EngineBusy(f"{self.taken} conversations are all that this engine takes")
        self.taken += 1
        self.conversations.append(ScriptedConversation(self, 0.1 * (len(self.conversations) + 1)))
        return self.conversations[-1]

    def forget(self, voice_hash: str) -> None:
        self.forgotten.append(voice_hash)

    async def metrics(self) -> str:
        return f"scripted_taken {self.taken}\n"

    async def close(self) -> None:
        pass
