"""The cascade: the house's ears, any OpenAI-compatible chat server, the house's mouth. No GPU here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

from consent.grants.grant import VoiceGrant
from model.api import Limits, Reference
from model.cascade.chat_server import ChatServer
from model.cascade.chat_settings import ChatSettings
from model.cascade.talk import CascadeConversation
from model.ears.ears_client import MOST_WAIT_S, Ears
from model.ears.listening import Listening
from model.ears.words_heard import Words
from model.embedded.mouth import Mouth, check_voice
from model.embedded.spoken_item import SpeakingMouth
from model.errors import EngineBusy


class CascadeEngine:
    """One chat server, the house's ears and one mouth for all conversations."""

    def __init__(
        self,
        settings: ChatSettings,
        mouth: SpeakingMouth,
        ears: Ears,
        conversations: int,
    ) -> None:
        self.server = ChatServer(settings)
        self._mouth = mouth
        self._ears = ears
        self._open = 0
        self.limits = Limits(conversations=conversations, transcribes=True)

    @classmethod
    async def load(cls, settings: ChatSettings, conversations: int = 64) -> Self:
        """Loads the models (about a second); the chat server is not asked. Raises `EarsError`."""
        mouth, ears = await asyncio.gather(asyncio.to_thread(Mouth), Ears.of_this_house())
        return cls(settings, mouth, ears, conversations)

    async def open(self, grant: VoiceGrant, reference: Reference) -> CascadeConversation:
        """A conversation; it speaks only in the voice that its package carries.

        Raises `EngineBusy`, and `EngineError` for a voice that it does not have.
        """
        check_voice(grant, reference, "cascade")
        if self._open >= self.limits.conversations:
            raise EngineBusy(f"{self._open} conversations are all that this engine takes")
        if self._ears.wait_s > MOST_WAIT_S:
            raise EngineBusy(f"callers wait {self._ears.wait_s:.1f} s to be heard; one more is too many")
        self._open += 1
        language = grant.scope.language.partition("-")[0]

        def listen(on_words: Callable[[Words], None]) -> Listening:
            return Listening(self._ears, on_words, language)

        return CascadeConversation(
            self.server, self._mouth, listen, grant.call_id, self._left, language=language
        )

    def _left(self) -> None:
        self._open -= 1

    def forget(self, voice_hash: str) -> None:
        """It keeps nothing of a voice but its own."""

    async def metrics(self) -> str:
        """What the chat server was asked and did, and how busy the ears are."""
        return self.server.meters.text() + self._ears.metrics()

    async def close(self) -> None:
        self._mouth.close()
        await self.server.close()
        await self._ears.close()
