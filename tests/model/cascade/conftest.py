"""Conversations with a scripted chat server: an ear that is told what it heard, an even mouth."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model.api import RATE_HZ, Floats, Output, SessionConfig, Sound, Text, Tool
from model.cascade.chat_server import ChatServer
from model.cascade.chat_settings import ChatSettings
from model.cascade.talk import CascadeConversation
from model.ears.words_heard import Words
from model.embedded.mouth import pieces
from tests.model.cascade.chat_script import ChatScript, Script, chat_script

WORD_S = 0.25
"""How long the test's mouth takes to say a word."""


@dataclass
class ToldEar:
    """Hears `words`, whatever sounds."""

    words: list[str] = field(default_factory=list)
    seconds: float = 0.0
    open: bool = False
    held: asyncio.Event = field(default_factory=asyncio.Event)
    """set: nothing holds it up"""

    def __post_init__(self) -> None:
        self.held.set()

    def listen(self, on_words: Callable[[Words], None]) -> ToldEar:
        self.pause = on_words
        return self

    @property
    def others_wait(self) -> bool:
        return not self.held.is_set()

    def hear(self, pcm: Floats, phrases: Sequence[str] = ()) -> None:
        self.seconds += len(pcm) / RATE_HZ

    def finish(self, phrases: Sequence[str] = ()) -> asyncio.Task[Words]:
        self.seconds = 0.0
        return asyncio.get_running_loop().create_task(self._finish())

    async def _finish(self) -> Words:
        await self.held.wait()
        return Words(self.words.pop(0) if self.words else "", "en", 0.9, 0.1)

    def clear(self) -> None:
        self.seconds = 0.0


class EvenMouth:
    """Each word takes `WORD_S`."""

    def __init__(self) -> None:
        self.learnt: list[str] = []

    async def speak(self, text: str) -> AsyncIterator[tuple[str, Floats]]:
        for piece in pieces(text):
            yield piece, np.full(round(WORD_S * RATE_HZ) * len(piece.split()), 0.1, np.float32)

    async def learn(self, texts: Iterable[str]) -> None:
        self.learnt += texts

    def close(self) -> None:
        pass


@dataclass
class Answered:
    """All of a reply."""

    text: str = ""
    seconds: float = 0.0
    tools: list[Tool] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)

    def take(self, output: Output) -> None:
        self.outputs.append(output)
        if isinstance(output, Text):
            self.text += output.delta
        elif isinstance(output, Sound):
            self.seconds = round(self.seconds + len(output.pcm) / RATE_HZ, 6)
        elif isinstance(output, Tool):
            self.tools.append(output)


@dataclass
class Caller:
    """A conversation and who has it."""

    script: ChatScript
    server: ChatServer
    conversation: CascadeConversation
    ear: ToldEar
    mouth: EvenMouth
    items: int = 0

    async def says(self, text: str) -> None:
        self.ear.words.append(text)
        self.conversation.hear(np.zeros(2_400, np.float32))
        await self.conversation.commit()

    async def hears(self, say: str | None = None) -> Answered:
        self.items += 1
        answered = Answered()
        async for output in self.conversation.respond(f"item{self.items}", say):
            answered.take(output)
        return answered

    async def asks(self, text: str) -> Answered:
        await self.says(text)
        return await self.hears()

    def count(self, name: str, **labels: str) -> float:
        """One of the metrics."""
        wanted = "voicegate_cascade_" + name
        if labels:
            wanted += "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}"
        lines = [line.rsplit(" ", 1) for line in self.server.meters.text().splitlines()]
        return next((float(value) for key, value in lines if key == wanted), 0.0)


TOOLS = ({"type": "function", "name": "hang_up"}, {"type": "function", "name": "transfer"})
CONFIG = SessionConfig(instructions="You answer for the bicycle workshop.", tools=TOOLS)


@contextlib.asynccontextmanager
async def calling(*scripts: Script, config: SessionConfig = CONFIG, **settings: Any) -> AsyncIterator[Caller]:
    """A caller whose engine asks a server with these scripts."""
    async with chat_script(*scripts) as script:
        given = ChatSettings(script.url, "m", **settings)
        server, ear, mouth = ChatServer(given), ToldEar(), EvenMouth()
        conversation = CascadeConversation(server, mouth, ear.listen, "call-1")
        await conversation.configure(config)
        try:
            yield Caller(script, server, conversation, ear, mouth)
        finally:
            await conversation.close()
            await server.close()
