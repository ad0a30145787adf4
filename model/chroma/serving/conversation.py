"""One caller's conversation with Chroma: a slot, a voice, a history. Implements `model.api.Conversation`.

The thinker is fed while the caller speaks and, once the utterance is over, as far as the opening of the
answer, so that a reply begins with its first frame. What the caller says during a reply is encoded at once
but enters the history after the answer, cut to what was heard of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog
import torch
from torch import Tensor

from model.api import RATE_HZ, Floats, Forgot, HistoryItem, Output, SessionConfig, Sound, Text, Understood
from model.chroma.network.sampling import Sampling
from model.chroma.network.upload import uploaded
from model.chroma.network.weights import Chroma
from model.chroma.serving import voices
from model.chroma.serving.chat import Chat, Words, whole_words
from model.chroma.serving.conductor import Conductor
from model.chroma.serving.history import History, Piece, Turn
from model.chroma.serving.meters import Meters
from model.chroma.serving.reply import Reply
from model.chroma.serving.slots import Slots
from model.chroma.serving.utterance import Utterance
from model.chroma.serving.voices import Voice
from model.errors import EngineBusy, EngineError
from model.tasks import Tasks

PREFILL: Final = 256
"""Positions fed at once, so that a long history does not hold up other callers' frames."""
ITEMS: Final = 32
"""Own items that can still be cut to what was heard."""
WORD_FRAMES: Final = 2
"""A word comes in with every second frame."""


@dataclass(slots=True, eq=False)
class Answer:
    """An own item: its words as they came, the frames of its sound."""

    turn: Turn
    words: list[int]
    frames: int = 0
    whole: bool = False
    """the sound came to its own end"""


class Host(Protocol):
    """The engine, as one of its conversations sees it."""

    model: Chroma
    chat: Chat
    slots: Slots
    conductor: Conductor
    meters: Meters
    answer_room: int
    reply_frames: int

    @property
    def text_lead_s(self) -> float:
        """How far an answer's text runs ahead of its sound, in seconds."""

    def utterance(self) -> Utterance:
        """An utterance that begins."""

    async def release(self, slot: int, voice: Voice) -> None:
        """The conversation is over: its slot is free, and it does not use its voice any more."""


class ChromaConversation:
    def __init__(self, engine: Host, slot: int, voice: Voice, sampling: Sampling, call_id: str) -> None:
        self._engine = engine
        self._slot = slot
        self._voice = voice
        self._history = History(engine.chat, "")
        self._utterance: Utterance | None = None
        self._held: list[Utterance] = []
        """utterances that were over while a reply was under way"""
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._answering = False
        self._feeding = asyncio.Lock()
        self._tasks = Tasks()
        self._sampling = sampling
        self._replies = 0
        self._forgot = 0
        """turns that were dropped since the last reply said so"""
        self._closed = False
        self._pressed = 0
        """how many wait for the thinker's memory"""
        self._ended: float | None = None
        """when the utterance ended that is to be answered"""
        self._log = structlog.get_logger("chroma").bind(call_id=call_id, slot=slot)

    # ── hearing ──────────────────────────────────────────────────────────────────────────────────────

    async def configure(self, config: SessionConfig) -> None:
        """Instructions and facts become the system prompt; answers are for engines that match phrases."""
        facts = "".join(f"\n{name}: {value}" for name, value in config.facts.items())
        self._history.instruct(config.instructions + facts)

    def hear(self, pcm: Floats) -> None:
        if self._utterance is None:
            self._utterance = self._engine.utterance()
        if self._utterance.hear(pcm):
            # the end of the utterance asks for what memory did not hold once more
            self._tasks.short(self._digest(self._utterance), "chroma.digest", told=(EngineBusy,))

    @contextlib.contextmanager
    def _pressing(self) -> Iterator[None]:
        """Somebody waits: what is done for this conversation goes first."""
        self._pressed += 1
        try:
            yield
        finally:
            self._pressed -= 1

    def _is_pressed(self) -> bool:
        return self._pressed > 0

    async def _listen(self, utterance: Utterance, over: bool, pcm: Floats | None = None) -> None:
        """Encodes what waits, or `pcm`, as far as it fills chunks; all of it when it is `over`."""
        conductor = self._engine.conductor
        taken = utterance.take() if pcm is None else pcm
        wanted = await conductor.aside(lambda: utterance.attend(taken, over))
        if wanted is not None:
            utterance.learn(wanted, await conductor.hear(wanted.mels, self._is_pressed))

    async def _digest(self, utterance: Utterance, over: bool = False) -> None:
        """Encodes what came, and feeds it unless a reply is under way."""
        async with self._feeding:
            if utterance.over:  # its end came before this was its turn, and took all of it
                return
            await self._listen(utterance, over)
            utterance.over = over
            if utterance.dropped or self._closed:
                return
            if self._answering:
                if over:
                    self._held.append(utterance)
                return
            self._place(utterance)
            await self._feed(opening=over)

    def _place(self, utterance: Utterance) -> None:
        """The utterance as far as it was heard into the history."""
        chat, history = self._engine.chat, self._history
        sound = utterance.ear.heard()
        if not len(sound):
            return
        turn = utterance.turn
        if turn is None:
            turn = utterance.turn = Turn("user", [*chat.user_open, *chat.sound_open])
            history.append(turn)
        elif utterance.changed is not None:
            first = utterance.ear.before(utterance.changed)
            history.changed(history.start(turn) + len(turn.before) + first)
        turn.sound, utterance.changed = sound, None
        if utterance.over:
            turn.after = [*chat.sound_close, *chat.user_close]

    async def commit(self) -> Understood:
        utterance, self._utterance = self._utterance, None
        if utterance is None:
            return Understood(0.0)
        self._ended = None if self._answering else time.perf_counter()
        with self._pressing():
            await self._digest(utterance, over=True)
        return Understood(utterance.samples / RATE_HZ)

    def clear(self) -> None:
        utterance, self._utterance = self._utterance, None
        if utterance is not None:
            utterance.dropped = True
            self._withdraw(utterance)

    def _withdraw(self, utterance: Utterance) -> None:
        if utterance.turn is not None and utterance.turn in self._history.turns:
            self._history.remove(utterance.turn)
        utterance.turn = None

    async def restore(self, item: HistoryItem) -> None:
        chat = self._engine.chat
        if item.pcm is not None and item.role == "user":
            utterance = self._engine.utterance()
            with self._pressing():
                await self._listen(utterance, over=True, pcm=item.pcm)
            utterance.over = True
            self._place(utterance)
        elif item.text and item.role == "system":
            self._history.append(Turn("system", chat.system(item.text)))
        elif item.text:
            own = item.role == "assistant"
            before, after = (
                (chat.answer_open, chat.answer_close) if own else (chat.user_open, chat.user_close)
            )
            words = chat.encode(item.text)
            self._history.append(Turn(item.role, list(before), words, after=list(after)))

    # ── the thinker's memory ─────────────────────────────────────────────────────────────────────────

    async def _feed(self, *, opening: bool) -> None:
        """Feeds the thinker what it does not know yet. Raises `EngineError` when it cannot hold it."""
        engine, history, slot = self._engine, self._history, self._slot
        if opening and history.told:
            return
        cache = engine.slots.thinker
        allowed = cache.allowed(slot)
        room = min(engine.answer_room, allowed // 4)
        if dropped := history.drop_oldest(allowed - room):
            self._forgot += dropped
            self._log.info("context.full", turns_dropped=dropped, positions=allowed)
        words = max(room, engine.reply_frames // WORD_FRAMES + 1)
        if len(history) > allowed - room or not cache.claim(slot, min(allowed, len(history) + words)):
            raise EngineError(f"{len(history)} positions are more than a context of {allowed} takes by now")
        at, pieces = history.pending(opening=opening)

        parts: deque[Tensor] = deque()

        def fresh() -> tuple[int, Tensor]:
            if not parts:
                parts.extend(torch.split(self._embed(pieces), PREFILL))
            cache.cut(slot, at)
            return slot, parts.popleft()

        end = at + sum(map(len, pieces))
        while at < end:
            size = min(PREFILL, end - at)
            await engine.conductor.prefill(size, fresh, self._is_pressed)
            at += size
        history.fed(at)

    def _embed(self, pieces: list[Piece]) -> Tensor:
        """All of it in three launches: ids to the device, their embeddings, and with the sound in order."""
        model = self._engine.model
        written = [piece for piece in pieces if isinstance(piece, list)]
        ids = uploaded([word for piece in written for word in piece], model.device)
        words = iter(torch.split(model.thinker.embed(ids), [len(piece) for piece in written]))
        return torch.cat([next(words) if isinstance(piece, list) else piece for piece in pieces])

    def _place_held(self) -> None:
        """Utterances that were over during a reply take their place after it."""
        held, self._held = self._held, []
        for utterance in held:
            self._place(utterance)

    async def _settle(self) -> None:
        """After a reply: what was said meanwhile takes its place, and is fed. The end of the answer alone is
        fed with what comes next."""
        async with self._feeding:
            if self._answering or self._closed:
                return
            turns = len(self._history.turns)
            self._place_held()
            if self._utterance is not None:
                self._place(self._utterance)
            if len(self._history.turns) > turns:
                await self._feed(opening=not self._history.listening)

    # ── speaking ─────────────────────────────────────────────────────────────────────────────────────

    async def respond(self, item_id: str, say: str | None = None) -> AsyncIterator[Output]:
        chat, engine = self._engine.chat, self._engine
        answer = Answer(Turn("assistant", list(chat.answer_open)), [])
        self._answering = True
        asked: float | None = time.perf_counter()
        ended, self._ended = None if say else self._ended, None
        try:
            with self._pressing():
                async with self._feeding:
                    self._place_held()
                    if self._utterance is not None:  # not over yet: its place is after this answer
                        self._withdraw(self._utterance)
                    self._history.append(answer.turn)
                    await self._feed(opening=True)
            self._answers[item_id] = answer
            while len(self._answers) > ITEMS:
                self._answers.popitem(last=False)
            self._replies += 1
            script = None if say is None else [*chat.encode(say), chat.im_end]
            reply = Reply(self._slot, engine.reply_frames, script)
            words = Words(chat)
            if self._forgot:
                yield Forgot(self._forgot)
                self._forgot = 0
            playing = engine.conductor.perform(reply, self._stand_by)
            async with contextlib.aclosing(playing) as frames:  # type: ignore[type-var]
                async for frame in frames:
                    if asked is not None:
                        engine.meters.first(asked, ended, time.perf_counter())
                        asked = None
                    if frame.word is not None:
                        answer.words.append(frame.word)
                        if text := words.add(frame.word):
                            yield Text(text)
                    if frame.pcm is not None:
                        answer.frames += 1
                        yield Sound(frame.pcm)
            answer.whole = reply.end == "sound"
            if reply.end != "sound":
                self._log.info("reply.limit", limit=reply.end, frames=reply.frames)
        finally:
            self._answered(answer)

    def _stand_by(self) -> None:
        """The slot before a reply: the voice's prompt in the backbone, a codec without a past."""
        slots = self._engine.slots
        voices.lend(self._voice, slots, self._slot)
        # a seed for each reply: how far a cancelled one was drawn ahead must not show in the next
        seed = self._sampling.seed + self._replies
        slots.sample(self._slot, replace(self._sampling, seed=seed))

    def _answered(self, answer: Answer) -> None:
        """The reply is over, or was cancelled at any point: its words go into the history."""
        self._answering = False
        if answer.turn in self._history.turns:
            self._history.close(answer.turn, answer.words, fed=max(0, len(answer.words) - 1))
        if not self._closed:
            self._tasks.short(self._settle(), "chroma.settle", told=(EngineBusy,))

    async def truncate(self, item_id: str, heard_s: float) -> str:
        answer = self._answers.get(item_id)
        if answer is None:
            return ""
        chat = self._engine.chat
        spoken = [word for word in answer.words if word != chat.im_end]
        kept = spoken[: whole_words(chat, spoken, self._heard_words(answer, len(spoken), heard_s))]
        answer.words = kept
        if answer.turn in self._history.turns:
            self._history.close(answer.turn, kept, fed=len(kept))
            if not self._answering and not self._closed:
                self._tasks.short(self._settle(), "chroma.settle", told=(EngineBusy,))
        return chat.decode(kept).strip()

    def _heard_words(self, answer: Answer, words: int, heard_s: float) -> int:
        """How many of an answer's words were heard in that time.

        A word counts once both its frames were played, less the lead that text has over sound; and where the
        sound is whole, not more than its share of the words.
        """
        frame_s = self._engine.model.config.frame_s
        frames = max(0, int(heard_s / frame_s + 1e-6))
        if answer.whole and frames >= answer.frames:
            return words
        lead = self._engine.text_lead_s / frame_s
        heard = max(0, int((frames - lead) / WORD_FRAMES))
        if answer.whole:
            heard = min(heard, words * frames // max(1, answer.frames))
        return min(words, heard)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._tasks.stop()
        await self._engine.release(self._slot, self._voice)
