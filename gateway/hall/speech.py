"""A call's side of the engine: what is said, what is heard, and the connection's life.

Commands are sent in order by one task; replies are one at a time, as the protocol has it, so a text that is
to be said while another is being rendered waits for it here. Sound goes straight to the playout; everything
else becomes an event in the call's inbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import structlog

from gateway.dialplan import Converse
from gateway.errors import VoicegateError
from gateway.hall.audio import HOUSE_HZ, Floats
from gateway.hall.playout import Item, Playout, PlayoutFull
from gateway.hall.prompts import Prompts
from model import events
from model.client import EngineClient, EngineSession
from model.errors import EngineBusy, EngineError

log = structlog.get_logger("speech")

RECONNECT_FOR_S: Final = 6.0
"""How long a lost engine may take to come back before the call says farewell."""
FILLER_AFTER_S: Final = 0.7
FILLER: Final = "One moment, please."
PLAYOUT_REPORT_S: Final = 0.2


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
    cut: bool = False


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
        self._outbox: asyncio.Queue[Callable[[EngineSession], Awaitable[None]]] = asyncio.Queue(512)
        self._asked: deque[_Reply] = deque()
        """replies not yet sent, in order"""
        self._active: _Reply | None = None
        self._session: EngineSession | None = None
        self._connected = asyncio.Event()
        self._token: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._converse: Converse | None = None
        self._facts: dict[str, Any] = {}
        self._post: Callable[[SpeechEvent], None] = lambda _: None
        self._history: list[dict[str, Any]] = []
        self.failed: EngineLost | None = None

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
        if self._active is None and self._asked:
            reply = self._active = self._asked.popleft()
            self._send(lambda session: session.respond(say=reply.say))

    def _send(self, command: Callable[[EngineSession], Awaitable[None]]) -> None:
        try:
            self._outbox.put_nowait(command)
        except asyncio.QueueFull:
            self.failed = EngineLost("the engine does not take what it is sent")

    async def heard_out(self, item: Item) -> None:
        """Waits until `item` was heard or cut."""
        await item.done.wait()

    def beep(self, hz: float, seconds: float) -> Item:
        """A tone; it is marked like everything else."""
        item = Item(f"item-{next(self._numbers)}")
        at = np.arange(round(seconds * HOUSE_HZ), dtype=np.float32) / HOUSE_HZ
        self._playout.put(item, (0.2 * np.sin(2 * np.pi * hz * at)).astype(np.float32))
        self._playout.end(item)
        return item

    async def prompt(self, text: str) -> None:
        """Says a text rendered in advance, for when the engine cannot; nothing when it never was."""
        sound = self._prompts.sound(text)
        if sound is None:
            self._log.warning("prompt.missing", text=text)
            return
        item = Item(f"item-{next(self._numbers)}")
        self._playout.put(item, sound)
        self._playout.end(item)
        await item.done.wait()

    def cut(self) -> list[Item]:
        """The caller interrupts: nothing more is said, and the engine learns what was heard."""
        items = self._playout.cut()
        for reply in self._asked:
            reply.item.ended = True
            reply.item.ready.set()
            reply.item.done.set()
        self._asked.clear()
        active = self._active
        if active is not None and not active.cut:
            active.cut = True
            self._end_item(active.item)
            heard_ms = round(active.item.heard_s * 1000)

            async def interrupt(session: EngineSession) -> None:
                if active.response_id is not None:
                    await session.cancel(active.response_id)
                if active.item_id is not None:
                    await session.truncate(active.item_id, heard_ms)

            self._send(interrupt)
        return items

    def _end_item(self, item: Item) -> None:
        self._playout.end(item)
        item.ready.set()


"""
"""
