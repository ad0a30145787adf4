"""A call's side of the engine: what is said, what is heard, and the connection's life.

Commands are sent in order by one task; replies are one at a time, as the protocol has it, so a text that is
to be said while another is being rendered waits for it here. Sound goes straight to the playout; everything
else becomes an event in the call's inbox.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import structlog

from gateway.dialplan_verbs import Converse, fill
from gateway.errors import VoicegateError
from gateway.hall.audio import HOUSE_HZ, Floats
from gateway.hall.playout import Item, Playout
from gateway.hall.prompts import Prompts
from model import client
from model.client import EngineClient, EngineEvent, EngineSession
from model.errors import EngineBusy, EngineError

log = structlog.get_logger("speech")

RECONNECT_FOR_S: Final = 6.0
"""How long a lost engine may take to come back before the call says farewell."""
FILLER_AFTER_S: Final = 0.7
FILLER: Final = "One moment, please."
PLAYOUT_REPORT_S: Final = 0.2
RETRY_S: Final = 0.1
OUTBOX: Final = 1024
"""Commands that may wait for the engine (a minute of speech is 750)."""

Command = Callable[[EngineSession], Awaitable[None]]


class EngineLost(VoicegateError):
    """The engine is gone and did not come back in time."""


@dataclass(frozen=True, slots=True)
class Said:
    """Words of ours whose sound is queued. `text` is all of the item's words so far."""

    item: Item
    text: str
    final: bool


@dataclass(frozen=True, slots=True)
class Heard:
    """What the engine understood; `text` is None when it does not transcribe."""

    text: str | None
    duration_s: float
    confidence: float | None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The engine wants something done."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The engine will not: `code` is "busy" or the contract's other words."""

    code: str
    message: str


SpeechEvent = Said | Heard | ToolCall | Refused


@dataclass(slots=True, eq=False)
class _Reply:
    """A response that was asked for; ids come with `response.created`."""

    item: Item
    say: str | None
    response_id: str | None = None
    item_id: str | None = None
    text: str = ""


class Speech:
    """One call's speech. `run` lives as long as the call; everything else may be called at any time."""

    def __init__(
        self, call_id: str, engine: EngineClient, playout: Playout, prompts: Prompts, lead_s: float
    ) -> None:
        self._engine = engine
        self._playout = playout
        self._prompts = prompts
        self._lead_s = lead_s
        self._log = log.bind(call_id=call_id)
        self._numbers = itertools.count(1)
        self._outbox: asyncio.Queue[Command] = asyncio.Queue(OUTBOX)
        self._asked: deque[_Reply] = deque()
        self._active: _Reply | None = None
        self._recent: deque[_Reply] = deque(maxlen=8)
        self._config: dict[str, Any] = {}
        self._history: deque[dict[str, Any]] = deque(maxlen=64)
        self.remember: Callable[[dict[str, Any]], None] = lambda _: None
        """told each item of the history, for other halls and engines"""

    # ── saying ───────────────────────────────────────────────────────────────────────────────────────

    def say(self, text: str) -> Item:
        """Says exactly `text` after whatever is asked for already; rendering starts at once."""
        return self._ask(text)

    def reply(self) -> Item:
        """Has the engine answer what was committed."""
        return self._ask(None)

    def _ask(self, say: str | None) -> Item:
        item = Item(f"item-{next(self._numbers)}")
        self._asked.append(_Reply(item, say))
        self._advance()
        return item

    def _advance(self) -> None:
        """The next reply in line, once the one before is rendered: the protocol has one at a time."""
        if self._active is None and self._asked:
            reply = self._active = self._asked.popleft()
            self._recent.append(reply)
            self._send(lambda session: session.respond(say=reply.say))

    def _send(self, command: Command) -> None:
        try:
            self._outbox.put_nowait(command)
        except asyncio.QueueFull:
            self._log.error("engine.outbox_full")

    def _own(self, sound: Floats) -> Item:
        item = Item(f"item-{next(self._numbers)}")
        self._playout.put(item, sound)
        self._playout.end(item)
        return item

    def beep(self, hz: float, seconds: float) -> Item:
        """A tone; it is marked like everything else."""
        at = np.arange(round(seconds * HOUSE_HZ), dtype=np.float32) / HOUSE_HZ
        return self._own((0.2 * np.sin(2 * np.pi * hz * at)).astype(np.float32))

    def prompt(self, text: str) -> Item | None:
        """Says a text rendered in advance, for when the engine cannot; None when it never was."""
        sound = self._prompts.sound(text)
        if sound is None:
            self._log.warning("prompt.missing", text=text)
            return None
        return self._own(sound)

    def cut(self) -> list[Item]:
        """The caller interrupts: nothing more is said, and the engine learns what was heard."""
        items = self._playout.cut()
        for reply in self._asked:
            self._playout.end(reply.item)
        self._asked.clear()
        active = self._active
        if active is not None:
            self._playout.end(active.item)
        for reply in list(self._recent):
            if reply.item in items or reply is active:
                heard_ms = round(reply.item.heard_s * 1000)
                self._send(functools.partial(_interrupt, reply, heard_ms, reply is active))
        return items

    # ── hearing ──────────────────────────────────────────────────────────────────────────────────────

    def append(self, sound: Floats) -> None:
        """The caller's speech, float32 24 kHz."""
        self._send(lambda session: session.append(sound))

    def commit(self) -> None:
        self._send(lambda session: session.commit())

    def clear(self) -> None:
        self._send(lambda session: session.clear())

    def configure(self, verb: Converse, now: datetime) -> None:
        """What the conversation knows; see the contract's `session.update`."""
        self._config = {
            "instructions": fill(verb.instructions, verb.facts, now),
            "tools": [{"type": "function", "name": name} for name in ("hang_up", "transfer")],
            "answers": [asdict(reply) for reply in verb.answers],
            "facts": dict(verb.facts),
            "phrases": {"unsure": verb.unsure, "not_understood": list(verb.not_understood)},
        }
        self._send(lambda session: session.update(**self._config))

    def restore(self, history: list[dict[str, Any]]) -> None:
        """What was said before this hall took the call up; the engine is told when it is connected."""
        self._history.extend(history)

    def renew(self, grant: str) -> None:
        """Tells the engine of a renewed grant."""
        self._send(lambda session: session.update(grant=grant))

    # ── the connection's life ────────────────────────────────────────────────────────────────────────

    async def run(self, grant: Callable[[], str | None], post: Callable[[SpeechEvent], None]) -> None:
        """Keeps a session with the engine until cancelled; says so by `Refused` when there can be none.

        `grant` answers the call's present grant token, None while it may not speak.
        """
        lost_at: float | None = None
        filled = False
        while True:
            token = grant()
            try:
                if token is None:
                    raise EngineError("the call has no voice grant")
                session = await self._engine.connect(token)
                if lost_at is not None:
                    self._log.info("engine.back", after_s=round(time.monotonic() - lost_at, 2))
                lost_at, filled = None, False
                await self._converse(session, post)
            except EngineBusy as busy:
                post(Refused("busy", str(busy)))
                return
            except EngineError as error:
                now = time.monotonic()
                if lost_at is None:
                    lost_at = now
                    self._log.warning("engine.away", error=str(error))
                if now - lost_at > RECONNECT_FOR_S:
                    post(Refused("lost", str(error)))
                    return
                if now - lost_at > FILLER_AFTER_S and not filled and not self._playout.busy:
                    filled = self.prompt(FILLER) is not None
                await asyncio.sleep(RETRY_S)

    async def _converse(self, session: EngineSession, post: Callable[[SpeechEvent], None]) -> None:
        """One session's life; always ends with an `EngineError`."""
        writing = asyncio.create_task(self._write(session))
        reporting = asyncio.create_task(self._report(session))
        try:
            async for event in session:
                self._take(event, post)
        finally:
            writing.cancel()
            reporting.cancel()
            await asyncio.gather(writing, reporting, return_exceptions=True)
            await session.aclose()
            self._start_over()

    async def _write(self, session: EngineSession) -> None:
        await session.update(binary=True, lead_s=self._lead_s, **self._config)
        if self._history:
            await session.restore(list(self._history))
        while True:
            command = await self._outbox.get()
            await command(session)

    async def _report(self, session: EngineSession) -> None:
        """Tells the engine what was played, so that it keeps its lead."""
        while True:
            await asyncio.sleep(PLAYOUT_REPORT_S)
            reply = self._active
            if reply is not None and reply.item_id is not None:
                await session.playout(reply.item_id, round(reply.item.heard_s * 1000))

    def _start_over(self) -> None:
        """The session is gone: what nobody heard yet is asked for again, what was begun is left as it is."""
        while not self._outbox.empty():
            self._outbox.get_nowait()
        active, self._active = self._active, None
        if active is not None:
            if active.item.queued == 0 and not active.item.ended:
                self._asked.appendleft(_Reply(active.item, active.say))
            else:
                self._playout.end(active.item)
        self._recent.clear()
        self._advance()

    def _take(self, event: EngineEvent, post: Callable[[SpeechEvent], None]) -> None:
        active = self._active
        match event:
            case client.Audio(item_id, pcm):
                if active is not None and active.item_id == item_id:
                    self._playout.put(active.item, pcm)
            case client.Words(item_id, delta):
                if active is not None and active.item_id == item_id:
                    active.text += delta
                    post(Said(active.item, active.text, final=False))
            case client.Created(response_id, item_id):
                if active is not None:
                    active.response_id, active.item_id = response_id, item_id
            case client.Done():
                self._done(event, post)
            case client.Transcript(text, duration_s, confidence):
                self._remember("user", text)
                post(Heard(text or None, duration_s, confidence))
            case client.ToolRequest(name, arguments):
                post(ToolCall(name, arguments))
            case client.Truncated(_, text):
                self._remember("assistant", text)
            case client.Failure(code, message):
                self._log.warning("engine.error", code=code, message=message)
                if code == "busy":
                    post(Refused(code, message))

    def _done(self, done: client.Done, post: Callable[[SpeechEvent], None]) -> None:
        active = self._active
        if active is None or active.item_id != done.item_id:
            return
        self._playout.end(active.item)
        self._active = None
        if done.status == "completed" and active.text:
            self._remember("assistant", active.text)
            post(Said(active.item, active.text, final=True))
        elif done.status == "failed":
            self._log.warning("engine.reply_failed", reason=done.reason)
        self._advance()

    def _remember(self, role: str, text: str) -> None:
        if text:
            kind = "input_text" if role == "user" else "output_text"
            item = {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}
            self._history.append(item)
            self.remember(item)


async def _interrupt(reply: _Reply, heard_ms: int, active: bool, session: EngineSession) -> None:
    if active and reply.response_id is not None:
        await session.cancel(reply.response_id)
    if reply.item_id is not None:
        await session.truncate(reply.item_id, heard_ms)


async def render(engine: EngineClient, grant: str, texts: list[str], prompts: Prompts) -> None:
    """Has the engine say `texts` into `prompts`. Raises `EngineError`."""
    session = await engine.connect(grant)
    try:
        await session.update(binary=True, lead_s=10.0)
        for text in texts:
            pieces: list[Floats] = []
            await session.respond(say=text)
            async for event in session:
                if isinstance(event, client.Audio):
                    pieces.append(event.pcm)
                elif isinstance(event, client.Done):
                    break
            if pieces:
                prompts.keep(text, pieces)
    finally:
        await session.aclose()
