"""The embedded engine: small models that come inside Python packages, so that a first call really talks.

It has words heard (`model.ears`), judges what they mean (`model.meaning`; without its weights, `phrase_match`
takes them for phrases), decides (`dialogue`) and speaks (`mouth`); all conversations share one set of models.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

import structlog

from consent.data_dir import default_data_dir
from consent.errors import ModelFileError, ModelFileMissing
from consent.grants.grant import VoiceGrant
from consent.models.model_files import models_dir
from model.api import (
    FRAME,
    RATE_HZ,
    EarlyHearing,
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
from model.ears.ears_client import MOST_WAIT_S, Ears
from model.ears.last_words import early_hearing
from model.ears.listening import Listening
from model.ears.words_heard import Words
from model.embedded.dialogue import FILLER, Dialogue, Move, check
from model.embedded.mouth import Mouth, check_voice
from model.embedded.phrase_match import BELIEVED, match
from model.embedded.spoken_item import SpokenItem
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
ITEMS: Final = 32
"""Own items that can still be cut to what was heard."""


@dataclass(frozen=True, slots=True)
class Late:
    """What a caller said, still to be heard. `grammar` is what could be said then."""

    answer: asyncio.Task[Words]
    grammar: Sequence[str]


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
    """One caller. Implements `model.api.Conversation`, and `HearsEarly`."""

    def __init__(self, engine: EmbeddedEngine) -> None:
        self._engine = engine
        self._dialogue = Dialogue()
        self._listening = Listening(engine.ears, self._heard_early)
        self._tell: Callable[[EarlyHearing], None] | None = None
        self.knows_asides = True
        self._early: asyncio.Task[None] | None = None
        """weighs what was heard at the present utterance's latest pause"""
        self._head: asyncio.Task[AnswerHead] | None = None
        """fits itself, or is fitted"""
        self._move: Move | None = None
        self._late: Late | None = None
        self._said: OrderedDict[str, SpokenItem] = OrderedDict()
        self._tasks = Tasks()
        self._fits = Tasks()
        """not cancelled by the next configuration: a turn may wait for the head of this one"""
        self._closed = False

    async def configure(self, config: SessionConfig) -> None:
        check(config)
        self._dialogue.configure(config)
        self._tasks.cancel()
        if self._engine.heads is not None:
            fit = asyncio.to_thread(self._engine.heads.head, self._dialogue.examples())
            self._head = self._fits.short(fit, "engine.fit")
        self._tasks.short(self._learn(), "engine.learn")

    async def _learn(self) -> None:
        """What will be said is rendered before somebody waits for it; what cannot be heard is told."""
        await self._engine.tell_unsayable(self._dialogue.grammar())
        await self._engine.mouth.learn([FILLER, *self._dialogue.fixed()])

    def hear(self, pcm: Floats) -> None:
        self._listening.hear(pcm, self._dialogue.grammar())

    def clear(self) -> None:
        self._drop_early()
        self._listening.clear()

    def tell_early(self, tell: Callable[[EarlyHearing], None]) -> None:
        self._tell = tell

    def _heard_early(self, words: Words) -> None:
        self._drop_early()
        self._early = self._tasks.short(self._weigh_early(words, self._dialogue.grammar()), "engine.early")

    async def _weigh_early(self, words: Words, grammar: Sequence[str]) -> None:
        judged, _ = await self._judge(words, grammar)
        early = early_hearing(words, answered=self._dialogue.settles(judged))
        if early is not None:
            self._listening.open = early.state == "unfinished"
            if self._tell is not None:
                self._tell(early)

    def _drop_early(self) -> None:
        if self._early is not None:
            self._early.cancel()
            self._early = None

    async def commit(self) -> Understood:
        duration_s = self._listening.seconds
        self._drop_early()
        if self._late is not None:
            self._late.answer.cancel()
            self._late = None
        grammar = self._dialogue.grammar()
        answer = self._listening.finish(grammar)
        await asyncio.wait([answer], timeout=FILLER_S)
        if not answer.done() and not self._engine.ears.waiting:
            await asyncio.wait([answer], timeout=BEING_HEARD_S)
        if not answer.done():
            self._late = Late(answer, grammar)
            return Understood(duration_s)
        return await self._understand(answer.result(), grammar, duration_s)

    async def _understand(self, words: Words, grammar: Sequence[str], duration_s: float) -> Understood:
        judged, text = await self._judge(words, grammar)
        self._move = self._dialogue.next(judged, self._dialogue.now())
        confidence = round(words.confidence, 3) if text else 0.0
        return Understood(duration_s, text, confidence, judged.intent, judged.slots.as_json())

    async def _judge(self, words: Words, grammar: Sequence[str]) -> tuple[Judgement, str | None]:
        """What the words mean, and what is taken as said: the plan's phrase where they are nearly one."""
        hearing = match(words, grammar)
        if self._head is None or hearing.sure:
            return self._dialogue.judged(hearing), hearing.phrase
        head = await asyncio.shield(self._head)  # whoever stops asking does not stop the fitting
        judged = await asyncio.to_thread(head.judge, words.text, self._dialogue.now().date())
        return believed(words, judged), words.text

    async def respond(self, item_id: str, say: str | None = None) -> AsyncIterator[Output]:
        self._said[item_id] = SpokenItem()
        while len(self._said) > ITEMS:
            self._said.popitem(last=False)
        if say is not None:
            move = Move(say)
        else:
            if (late := self._late) is not None:
                if not late.answer.done():
                    async for output in self._speak(item_id, FILLER):
                        yield output
                await self._understand(await late.answer, late.grammar, 0.0)
                self._late = None
            # asked without an utterance, nothing was understood
            move, self._move = self._move or self._dialogue.not_understood(), None
        if move.text:
            self._dialogue.remember_said(move.text)
            async for output in self._speak(item_id, move.text):
                yield output
        if move.tool is not None:
            slots = {"slots": dict(move.slots)} if move.slots else {}
            yield Tool(move.tool, {"intent": move.intent, **slots})

    async def _speak(self, item_id: str, text: str) -> AsyncIterator[Output]:
        """`text` after what the item has said already."""
        spoken = self._said[item_id]
        async for piece, pcm in self._engine.mouth.speak(text):
            yield Text(" " + piece if spoken.samples else piece)
            spoken.add(piece, len(pcm))
            for at in range(0, len(pcm), FRAME):
                yield Sound(pcm[at : at + FRAME])

    async def truncate(self, item_id: str, heard_s: float) -> str:
        spoken = self._said.get(item_id)
        return "" if spoken is None else spoken.heard(round(heard_s * RATE_HZ))

    async def restore(self, item: HistoryItem) -> None:
        if item.role == "assistant" and item.text:
            self._dialogue.remember_said(item.text)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._listening.clear()
            if self._late is not None:
                self._late.answer.cancel()
            self._tasks.cancel()
            self._fits.cancel()
            self._engine.left()


def believed(words: Words, judged: Judgement) -> Judgement:
    """The judgement on words that may be misheard: nothing is sure of doubtful ones, and a yes is none."""
    if words.confidence >= BELIEVED:
        return judged
    return replace(judged, sure=False, agrees=None if judged.agrees else judged.agrees)
