"""The cascade: the house's ears, any OpenAI-compatible chat server, the house's mouth. No GPU here."""

from __future__ import annotations

from collections.abc import Callable

from consent.grants.grant import VoiceGrant
from model.api import Limits, Reference
from model.cascade.chat_server import ChatServer
from model.cascade.chat_settings import ChatSettings
from model.cascade.talk import CascadeConversation, SpeakingMouth, UtteranceEar
from model.embedded.mouth import check_voice
from model.errors import EngineBusy


class CascadeEngine:
    """One chat server and one mouth for all conversations. `listen` makes each conversation's ear."""

    def __init__(
        self,
        settings: ChatSettings,
        mouth: SpeakingMouth,
        listen: Callable[[], UtteranceEar],
        conversations: int,
    ) -> None:
        self.server = ChatServer(settings)
        self._mouth = mouth
        self._listen = listen
        self._open = 0
        self.limits = Limits(conversations=conversations, transcribes=True)

    async def open(self, grant: VoiceGrant, reference: Reference) -> CascadeConversation:
        """A conversation; it speaks only in the voice that its package carries.

        Raises `EngineBusy`, and `EngineError` for a voice that it does not have.
        """
        check_voice(grant, reference, "cascade")
        if self._open >= self.limits.conversations:
            raise EngineBusy(f"{self._open} conversations are all that this engine takes")
        self._open += 1
        return CascadeConversation(self.server, self._mouth, self._listen(), grant.call_id, self._left)

    def _left(self) -> None:
        self._open -= 1

    def forget(self, voice_hash: str) -> None:
        """It keeps nothing of a voice but its own."""

    async def metrics(self) -> str:
        return self.server.meters.text()

    async def close(self) -> None:
        await self.server.close()
