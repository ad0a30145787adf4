"""A call's side of the engine: what is said, what is heard, and the connection's life.

Commands are sent in order by one task; `replies` says which reply is the next. Sound goes straight to the
playout; everything else becomes an event in the call's inbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import structlog

from gateway.dialplan import Route
from gateway.dialplan.disclosure import Disclosure
from gateway.dialplan.verbs import Converse
from gateway.hall.dialogue import memory
from gateway.hall.dialogue.briefing import briefing
from gateway.hall.dialogue.engine_life import EngineLife, EngineSilent
from gateway.hall.dialogue.memory import Memory
from gateway.hall.dialogue.outbox import Outbox, append_sound
from gateway.hall.dialogue.own_sounds import OwnSounds
from gateway.hall.dialogue.prompts import Prompts
from gateway.hall.dialogue.replies import Replies
from gateway.hall.dialogue.unanswered import Unanswered
from gateway.hall.media.audio import Floats
from gateway.hall.parts.call_line import CallLine
from gateway.hall.parts.clocks import Clocks
from gateway.hall.parts.first_sounds import FirstSounds
from gateway.hall.parts.inbox import Heard, Refused, SpeechEvent, ToolCall
from gateway.hall.parts.licence import Licence, Term
from gateway.hall.parts.playout import Item, Playout
from model import client
from model.api import EarlyHearing
from model.client import EngineClient, EngineEvent, EngineSession
from model.errors import EngineError
from model.tasks import race

log = structlog.get_logger("speech")

SILENT_FOR_S: Final = 8.0
"""An engine that was asked to speak and says nothing for this long is given up."""
CLOSE_WITHIN_S: Final = 1.0
FILLER: Final = "One moment, please."
PLAYOUT_REPORT_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Abilities:
    """What an engine does with what it hears."""

    transcribes: bool = True
    """it says what was said"""
    recalls: bool = True
    """it goes on from what was said before it was there"""
    hears_early: bool = True
    """it says at a pause what was said so far"""


class Speech:
    """One call's speech. `run` lives as long as the call; everything else may be called at any time."""

    def __init__(
        self,
        call_id: str,
        engine: EngineClient,
        playout: Playout,
        prompts: Prompts,
        lead_s: float,
        *,
        line: CallLine,
        memory: Memory,
        first_sounds: FirstSounds | None = None,
        clocks: Clocks = time,
        note: Callable[..., None] = lambda *_, **__: None,
    ) -> None:
        self._playout = playout
        self._lead_s = lead_s
        self._line = line
        self._memory = memory
        self._first_sounds = first_sounds or FirstSounds()
        self._clocks = clocks
        self._log = log.bind(call_id=call_id)
        self._numbers = itertools.count(1)
        self.own = OwnSounds(playout, prompts, line, self._number, self._log)
        self._life = EngineLife(engine, self._converse, self._fill_wait, clocks, self._log, note)
        self._outbox = Outbox(self._log)
        self._replies = self._new_replies()
        self._unanswered = Unanswered()
        self._config: dict[str, Any] = {}
        self._abilities = Abilities()
        """of the present engine, or of the one before it while there is none"""
        self.knows_asides = False
        """there is an engine, which tells early which words are nothing to stop for"""
        self.early: EarlyHearing | None = None
        """what it made of the latest pause of the present utterance"""

    # ── saying ───────────────────────────────────────────────────────────────────────────────────────

    def say(self, text: str) -> Item:
        """Says exactly `text` after whatever is asked for already; rendering starts at once."""
        return self._ask(text)

    def open(self, text: str, *, stock: bool) -> Item:
        """Says a call's first words. `stock`: in the stock voice.

        While the hall has little time, words that were rendered in advance are said at once: the caller waits
        for no engine, and those who do wait less.
        """
        at_once = stock and self._first_sounds.hurried
        said = self.own.if_rendered(text, self._remember_reply) if at_once else None
        return said or self.say(text)

    def recorded(self, text: str, then: Callable[[], object]) -> Item:
        """A recording, whose sound is put into the playout by whoever plays it. `text` is said in it, and
        remembered once all of it was heard; `then` is called at that time."""

        def heard(item: Item) -> None:
            self._remember_reply(item)
            then()

        return self.own.begin(text, heard)

    def reply(self) -> Item:
        """Has the engine answer what was committed."""
        return self._ask(None)

    @property
    def soundless_s(self) -> float | None:
        """For how long the engine has owed the first sound of what it was asked for; None: it owes none."""
        return self._replies.soundless_s

    @property
    def owes_reply(self) -> bool:
        """The caller waits for an answer, of which nothing is to be heard yet."""
        return self._replies.owed

    def _number(self) -> str:
        return f"item-{next(self._numbers)}"

    def _ask(self, say: str | None) -> Item:
        item = Item(self._number(), then=self._remember_reply)
        self._replies.ask(item, say)
        return item

    @property
    def waits(self) -> bool:
        """Something was asked for, and the caller hears nothing yet."""
        return self._replies.wanted and not self._playout.busy

    def cut(self) -> list[Item]:
        """The caller interrupts: nothing more is said, and the engine learns what was heard."""
        active, items = self._replies.active, self._replies.cut()
        if active is not None and active.say is None:
            self._answered()
        return items

    def leave(self, route: Route) -> None:
        """The call goes on as `route`: nothing that was asked for before is heard any more, however far it is
        rendered, and the present session ends with its term. What was said stays in the memory."""
        self._replies.leave()
        self._outbox = Outbox(self._log)
        self._replies = self._new_replies()
        self._unanswered = Unanswered()
        self._config = {}
        keep = route.keep
        self._memory.follow(
            keeps_sound=keep.caller_audio, keeps_words=keep.transcript, language=route.language
        )

    def _new_replies(self) -> Replies:
        return Replies(self._playout, self._line, self._outbox, self._clocks, self._first_sounds)

    # ── hearing ──────────────────────────────────────────────────────────────────────────────────────

    def append(self, sound: Floats) -> None:
        """The caller's speech, float32 24 kHz."""
        self._unanswered.append(sound)
        self._outbox.send(functools.partial(append_sound, sound))

    def commit(self, turn: int) -> None:
        """The caller's turn number `turn` is over."""
        self.early = None
        self._unanswered.commit(turn)
        self._outbox.send(lambda session: session.commit())

    @property
    def wants_words(self) -> bool:
        """The engine does not hear early: the hall may do that."""
        return not self._abilities.hears_early

    @property
    def unwritten(self) -> tuple[Floats, ...]:
        """The turn that was just committed, float32 24 kHz, where the engine does not write it down."""
        return () if self._abilities.transcribes else tuple(self._unanswered.question)

    def clear(self) -> None:
        """What was appended was nothing."""
        self.early = None
        self._unanswered.clear()
        self._outbox.send(lambda session: session.clear())

    def configure(
        self,
        verb: Converse,
        now: datetime,
        zone: str | None,
        disclosed: Disclosure | None = None,
        *,
        hold: str = "",
    ) -> None:
        """What the conversation knows; see the contract's `session.update`. `zone`: the route's, if any.

        `disclosed`: what a caller hears again who asks whether this is a machine. `hold`: what an engine
        that needs a moment says.
        """
        self._config = briefing(verb, now, zone, disclosed, hold)
        self._outbox.send(lambda session: session.update(**self._config))

    def renew(self, grant: str) -> None:
        """Tells the engine of a renewed grant."""
        self._outbox.send(lambda session: session.update(grant=grant))

    # ── the connection's life ────────────────────────────────────────────────────────────────────────

    async def run(
        self,
        licence: Licence,
        post: Callable[[SpeechEvent], None],
        fills: Callable[[], bool] = lambda: True,
        fresh: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Keeps a session with the engine until cancelled; says so by `Refused` when there can be none.

        Each of the licence's terms has a session of its own, by its own grant. `fills` says whether words may
        fill a wait: not before the caller knows that a machine speaks. `fresh` begins another term of the
        same route, for another session: one grant opens one.
        """
        await self._life.run(licence, post, fills, fresh)

    def _fill_wait(self) -> bool:
        """Says that it takes a moment, to a caller who waits; whether one does."""
        waits = self._replies.active is not None and not self._playout.busy
        if waits:
            self.own.prompt(FILLER)
        return waits

    async def _converse(
        self, session: EngineSession, post: Callable[[SpeechEvent], None], term: Term
    ) -> None:
        """One session's life: until its term is over, or an error."""
        self._replies.moved()
        outbox = self._outbox
        work = (self._read(session, post, term), self._write(session, outbox), self._report(session))
        try:
            for ended in await race(*work, term.over.wait()):
                if ended is not None and not term.over.is_set():
                    ended.result()
        finally:
            with contextlib.suppress(TimeoutError, EngineError):
                async with asyncio.timeout(CLOSE_WITHIN_S):  # a stuck engine does not say goodbye
                    if term.over.is_set():
                        await outbox.flush(session)  # what was cut, before the next one begins
                    await session.aclose()
            self._start_over()

    async def _read(self, session: EngineSession, post: Callable[[SpeechEvent], None], term: Term) -> None:
        async for event in session:
            if term.over.is_set():  # another voice's: none of it is for the call any more
                return
            self._replies.moved()
            self._abilities = Abilities(session.transcribes, session.recalls, session.knows_asides)
            self.knows_asides = session.knows_asides
            self._take(event, post)

    async def _write(self, session: EngineSession, outbox: Outbox) -> None:
        await session.update(binary=True, hearing=True, lead_s=self._lead_s, **self._config)
        if self._memory:
            await session.restore(self._memory.for_engine())
        while True:
            command = await outbox.next()
            await command(session)

    async def _report(self, session: EngineSession) -> None:
        """Tells the engine what was played, so that it keeps its lead. Raises `EngineSilent`."""
        while True:
            await asyncio.sleep(PLAYOUT_REPORT_S)
            reply = self._replies.active
            if reply is not None and not self._playout.waiting_s and self._replies.quiet_s > SILENT_FOR_S:
                raise EngineSilent("the engine did not answer in time")
            if reply is not None and reply.item_id is not None:
                await session.playout(reply.item_id, round(reply.item.heard_s * 1000))

    def _start_over(self) -> None:
        """The session is gone: what nobody heard yet is asked for again, what was begun is left as it is."""
        self.early, self.knows_asides = None, False
        self._outbox.clear()
        self._replies.lose()
        self._unanswered.start_over()
        for sound in self._unanswered.question:
            self._outbox.send(functools.partial(append_sound, sound))
        if self._unanswered.question:
            self._outbox.send(lambda session: session.commit())
        self._replies.advance()
        for sound in self._unanswered.utterance:
            self._outbox.send(functools.partial(append_sound, sound))

    def _take(self, event: EngineEvent, post: Callable[[SpeechEvent], None]) -> None:
        match event:
            case client.Audio(item_id, pcm):
                reply = self._replies.current(item_id)
                if reply is not None:
                    self._replies.put(reply, pcm)
                    if reply.say is None:
                        self._answered()
            case client.Words(item_id, delta):
                reply = self._replies.current(item_id)
                if reply is not None and not reply.item.cut:
                    reply.item.times.note_word(self._clocks.monotonic())
                    reply.item.add_words(delta)
                    self._line.show_words(reply.item, False)
            case client.Created(response_id, item_id):
                self._replies.created(response_id, item_id)
            case client.Done():
                self._done(event)
            case client.CallerWords(text, duration_s, confidence):
                said = self._memory.hear(text) if text else None
                post(Heard(self._unanswered.understood(), said, duration_s, confidence))
            case client.HeardEarly(utterance, early):
                if utterance == self._unanswered.closed:
                    self.early = early
            case client.ToolRequest(name, arguments):
                active = self._replies.active
                if active is not None and not active.item.cut:  # a caller who interrupted wants it no more
                    post(ToolCall(active.item, name, arguments))
            case client.Truncated(_, text):
                self._remember_said(text)
            case client.Failure(code, message):
                self._failed(code, message, post)

    def _failed(self, code: str, message: str, post: Callable[[SpeechEvent], None]) -> None:
        self._log.warning("engine.error", code=code, message=message)
        if code == "busy":
            post(Refused(code, message))
        elif code.startswith("grant_"):
            self._replies.drop_uncreated()

    def _done(self, done: client.Done) -> None:
        reply = self._replies.current(done.item_id)
        if reply is None:
            return
        if reply.say is None:
            self._answered()
        if done.status == "failed":
            reply.item.break_off()
            self._log.warning("engine.reply_failed", reason=done.reason)
        self._replies.finish(reply)

    def _answered(self) -> None:
        """The engine has taken the caller's question in: another one need not hear it again, but may have to
        know of it."""
        question, rate_hz = self._unanswered.answered(), self._line.rate_hz
        if not question or not rate_hz or not self._memory.keeps_sound:
            return
        if not self._abilities.transcribes:
            self._memory.add(memory.sound(np.concatenate(question), rate_hz))
        elif self._abilities.recalls and not self._memory.keeps_words:
            self._memory.tell(memory.sound(np.concatenate(question), rate_hz))

    def _remember_reply(self, item: Item) -> None:
        """All of a reply was heard; one without any sound was not."""
        if item.queued:
            self._remember_said(item.text)

    def _remember_said(self, text: str) -> None:
        if text:
            self._memory.say(text)
