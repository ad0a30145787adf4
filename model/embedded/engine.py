"""The embedded engine: small models that come inside Python packages, so that a first call really talks.

It has words heard (`model.ears`), judges what they mean (`model.meaning`; without its weights, `phrase_match`
takes them for phrases), decides (`dialogue`) and speaks (`mouth`); all conversations share one set of models.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final, Self

import structlog

from consent.data_dir import default_data_dir
from consent.errors import ModelFileError, ModelFileMissing
from consent.grants.grant import VoiceGrant
from consent.models.model_files import models_dir
from model.api import (
    EarlyHearing,
    Floats,
    HistoryItem,
    Limits,
    Output,
    Reference,
    SessionConfig,
    Tool,
    Understood,
)
from model.ears.comprehension import Comprehension
from model.ears.ears_client import MOST_WAIT_S, Ears
from model.ears.listening import Listening
from model.ears.words_heard import Words
from model.embedded.dialogue import FILLER, Dialogue, Move, check, is_nod
from model.embedded.mouth import Mouth, check_voice
from model.embedded.phrase_match import BELIEVED, match
from model.embedded.spoken_item import SpokenItems
from model.errors import EngineBusy
from model.meaning.embedder import WEIGHTS
from model.meaning.head import AnswerHead, Judgement
from model.meaning.heads import Heads
from model.tasks import Tasks

log = structlog.get_logger("engine")

FILLER_S: Final = 0.5
"""A caller who was not heard so long after the end of a turn, because others are, is told to wait;"""
BEING_HEARD_S: Final = 2.0
"""whom nobody keeps from being heard, only so much later."""


@dataclass(frozen=True, slots=True)
class JudgedWords:
    """What words mean, and what is taken as said: the plan's phrase where they are nearly one."""

    judgement: Judgement
    text: str | None = field(repr=False)


def load_heads(environ: Mapping[str, str]) -> Heads | None:
    """What judges meaning; None, and said so, where its weights are not to be had."""
    data_dir = Path(environ.get("VOICEGATE_DATA_DIR") or default_data_dir())
    named = environ.get("VOICEGATE_MODELS")
    remedy = f"voicegate models get {WEIGHTS.name}; until then only a plan's phrases are understood"
    try:
        return Heads.load(models_dir(data_dir, Path(named) if named else None))
    except ModelFileMissing as error:
        log.warning("meaning.no_weights", error=str(error), remedy=remedy)
    except ModelFileError as error:
        log.error("meaning.weights_refused", error=str(error), remedy=remedy)
    return None


class EmbeddedEngine:
    """Weights, and a count of who uses them."""

    def __init__(self, mouth: Mouth, ears: Ears, conversations: int, heads: Heads | None = None) -> None:
        """Without `heads` only a plan's phrases are understood."""
        self.mouth = mouth
        self.ears = ears
        self.heads = heads
        self._open = 0
        self._known: set[str] = set()
        """phrases that were looked up"""
        self.limits = Limits(conversations=conversations, transcribes=True, recalls=False)

    @classmethod
    async def load(cls, conversations: int = 64) -> Self:
        """Loads the models (about a second). Raises `EarsError` when nobody hears."""
        mouth, ears, heads = await asyncio.gather(
            asyncio.to_thread(Mouth), Ears.of_this_house(), asyncio.to_thread(load_heads, os.environ)
        )
        return cls(mouth, ears, conversations, heads)

    async def open(self, grant: VoiceGrant, reference: Reference) -> EmbeddedConversation:
        """A conversation; it speaks only in the voice that its package carries.

        Raises `EngineBusy`, and `EngineError` for a voice that it does not have.
        """
        check_voice(grant, reference, "embedded")
        if self._open >= self.limits.conversations:
            raise EngineBusy(f"{self._open} conversations are all that this engine takes")
        if self.ears.wait_s > MOST_WAIT_S:
            raise EngineBusy(
                f"callers wait {self.ears.wait_s:.1f} s to be heard; one more would make it longer"
            )
        self._open += 1
        return EmbeddedConversation(self)

    async def tell_unsayable(self, phrases: Sequence[str]) -> None:
        """Logs, once each, the phrases that no caller will be heard saying."""
        fresh = [phrase for phrase in phrases if phrase not in self._known]
        self._known.update(fresh)
        if fresh and (unheard := await self.ears.unsayable(fresh)):
            log.warning("phrases.unsayable", phrases=unheard, remedy="use words of an English dictionary")

    def left(self) -> None:
        self._open -= 1

    def forget(self, voice_hash: str) -> None:
        """It keeps nothing of a voice but its own."""

    async def metrics(self) -> str:
        """How busy its ears are."""
        return self.ears.metrics()

    async def close(self) -> None:
        self.mouth.close()
        await self.ears.close()


class EmbeddedConversation:
    """One caller. Implements `model.api.Conversation`, `HearsEarly` and `HearsLate`."""

    def __init__(self, engine: EmbeddedEngine) -> None:
        self._engine = engine
        self._dialogue = Dialogue()
        self._comprehension = Comprehension(
            partial(Listening, engine.ears),
            self._judge,
            lambda judged: self._dialogue.settles(judged.judgement),
            self._take,
            wait_s=FILLER_S,
            alone_s=BEING_HEARD_S,
        )
        self.knows_asides = True
        self._head: asyncio.Task[AnswerHead] | None = None
        """fits itself, or is fitted"""
        self._move: Move | None = None
        self._said = SpokenItems()
        self._tasks = Tasks()
        self._fits = Tasks()
        """not cancelled by the next configuration: a turn may wait for the head of this one"""
        self._closed = False

    async def configure(self, config: SessionConfig) -> None:
        check(config)
        self._dialogue.configure(config)
        self._tasks.cancel()
        self._comprehension.reconsider()
        if self._engine.heads is not None:
            fit = asyncio.to_thread(self._engine.heads.head, self._dialogue.examples())
            self._head = self._fits.short(fit, "engine.fit")
        self._tasks.short(self._learn(), "engine.learn")

    async def _learn(self) -> None:
        """What will be said is rendered before somebody waits for it; what cannot be heard is told."""
        await self._engine.tell_unsayable(self._dialogue.grammar())
        await self._engine.mouth.learn([FILLER, *self._dialogue.fixed()])

    def hear(self, pcm: Floats) -> None:
        self._comprehension.hear(pcm, self._dialogue.grammar())

    def clear(self) -> None:
        self._comprehension.clear()

    def tell_early(self, tell: Callable[[EarlyHearing], None]) -> None:
        self._comprehension.tell_early(tell)

    async def heard_late(self) -> Understood:
        return await self._comprehension.heard_late()

    async def commit(self) -> Understood:
        return await self._comprehension.commit(self._dialogue.grammar())

    def _take(self, words: Words, judged: JudgedWords, duration_s: float) -> Understood:
        judgement, text = judged.judgement, judged.text
        self._move = self._dialogue.next(judgement, self._dialogue.now(), nods=is_nod(words.text))
        confidence = round(words.confidence, 3) if text else 0.0
        return Understood(duration_s, text, confidence, judgement.intent, judgement.slots.as_json())

    async def _judge(self, words: Words, grammar: Sequence[str]) -> JudgedWords:
        hearing = match(words, grammar)
        if self._head is None or hearing.sure:
            return JudgedWords(self._dialogue.judged(hearing), hearing.phrase)
        head = await asyncio.shield(self._head)  # whoever stops asking does not stop the fitting
        today = self._dialogue.now().date()
        judged = await asyncio.to_thread(head.judge, words.text, today, words.confidence)
        return JudgedWords(believed(words, judged), words.text)

    async def respond(self, item_id: str, say: str | None = None) -> AsyncIterator[Output]:
        spoken, mouth = self._said.begin(item_id), self._engine.mouth
        if say is not None:
            move = Move(say)
        else:
            if self._comprehension.is_late:
                async for output in spoken.say(mouth, FILLER):
                    yield output
                await self._comprehension.heard_late()
            # asked without an utterance, nothing was understood
            move, self._move = self._move or self._dialogue.not_understood(), None
        if move.text:
            self._dialogue.remember_said(move.text)
            async for output in spoken.say(mouth, move.text):
                yield output
        if move.tool is not None:
            slots = {"slots": dict(move.slots)} if move.slots else {}
            yield Tool(move.tool, {"intent": move.intent, **slots})

    async def truncate(self, item_id: str, heard_s: float) -> str:
        heard = self._said.heard(item_id, heard_s)
        if heard != self._said.whole(item_id):
            self._dialogue.remember_cut()
        return heard

    async def restore(self, item: HistoryItem) -> None:
        if item.role == "assistant" and item.text:
            self._dialogue.remember_said(item.text)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._comprehension.close()
            self._tasks.cancel()
            self._fits.cancel()
            self._engine.left()


def believed(words: Words, judged: Judgement) -> Judgement:
    """The judgement on words that may be misheard: nothing is sure of doubtful ones, and a yes is none."""
    if words.confidence >= BELIEVED:
        return judged
    return replace(judged, sure=False, agrees=None if judged.agrees else judged.agrees)
