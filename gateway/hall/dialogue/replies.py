"""A call's replies on their way from the engine: those asked for, the one being rendered, the last ones.

Replies are one at a time, as the protocol has it, so a text that is to be said while another is being
rendered waits here.
"""

from __future__ import annotations

import functools
from collections import deque
from dataclasses import dataclass

from gateway.hall.dialogue.outbox import Outbox, interrupt
from gateway.hall.media.audio import Floats
from gateway.hall.parts.call_line import CallLine
from gateway.hall.parts.clocks import Clocks
from gateway.hall.parts.first_sounds import FirstSounds
from gateway.hall.parts.playout import Item, Playout


@dataclass(slots=True, eq=False)
class AskedReply:
    """A response that was asked for; ids come with `response.created`."""

    item: Item
    say: str | None
    response_id: str | None = None
    item_id: str | None = None
    asked_at: float = 0.0
    """when the engine was first asked for it, monotonic"""


class Replies:
    """The replies of one call while it follows one route."""

    def __init__(
        self, playout: Playout, line: CallLine, outbox: Outbox, clocks: Clocks, first_sounds: FirstSounds
    ) -> None:
        self._playout = playout
        self._line = line
        self._outbox = outbox
        self._clocks = clocks
        self._first_sounds = first_sounds
        self._asked: deque[AskedReply] = deque()
        self._active: AskedReply | None = None
        self._recent: deque[AskedReply] = deque(maxlen=8)
        self._moved_at = 0.0
        """when the engine was last asked, or last said something, monotonic"""

    @property
    def active(self) -> AskedReply | None:
        """The one that the engine is to render now."""
        return self._active

    @property
    def wanted(self) -> bool:
        """Something was asked for that the engine has not rendered to its end."""
        return self._active is not None or bool(self._asked)

    @property
    def owed(self) -> bool:
        """The caller waits for an answer, of which nothing is to be heard yet."""
        asked = self._asked if self._active is None else (self._active, *self._asked)
        return any(reply.say is None and not reply.item.cut and not reply.item.reached for reply in asked)

    @property
    def quiet_s(self) -> float:
        """For how long the engine has neither been asked nor said anything."""
        return self._clocks.monotonic() - self._moved_at

    @property
    def soundless_s(self) -> float | None:
        """For how long the engine has owed the first sound of what it was asked for; None: it owes none."""
        active = self._active
        if active is None or active.item.queued or active.item.cut:
            return None
        return self._clocks.monotonic() - active.asked_at

    def moved(self) -> None:
        """The engine said something, or begins."""
        self._moved_at = self._clocks.monotonic()

    def ask(self, item: Item, say: str | None) -> None:
        """Puts a reply behind those asked for already; `say` is its exact text, None an answer."""
        self._asked.append(AskedReply(item, say))
        self.advance()

    def advance(self) -> None:
        """The next reply in line, once the one before is rendered: the protocol has one at a time."""
        if self._active is None and self._asked:
            reply = self._active = self._asked.popleft()
            self._recent.append(reply)
            self.moved()
            reply.asked_at = reply.asked_at or self._moved_at
            self._outbox.send(lambda session: session.respond(say=reply.say))

    def current(self, item_id: str | None) -> AskedReply | None:
        """The active reply, if the engine means it by `item_id`."""
        active = self._active
        return active if active is not None and active.item_id == item_id else None

    def put(self, reply: AskedReply, pcm: Floats) -> None:
        """More of its sound, float32 24 kHz. Raises `PlayoutFull`."""
        first = not reply.item.queued
        self._playout.put(reply.item, pcm)
        if first and not reply.item.cut:
            now = self._clocks.monotonic()
            self._first_sounds.note(now, now - reply.asked_at)

    def created(self, response_id: str, item_id: str) -> None:
        """The engine gave the active reply its ids."""
        active = self._active
        if active is not None:
            active.response_id, active.item_id = response_id, item_id
            if active.item.cut:
                self._interrupt(active)

    def finish(self, reply: AskedReply) -> None:
        """The active reply, `reply`, is rendered to its end; the next one is asked for."""
        self._active = None
        self._over(reply)
        self.advance()

    def drop_uncreated(self) -> None:
        """Gives up the active reply if the engine has not created it."""
        if self._active is not None and self._active.response_id is None:
            self._playout.drop(self._active.item)
            self._active = None
            self.advance()

    def cut(self) -> list[Item]:
        """The caller interrupts: nothing more is said, and the engine learns what was heard."""
        items = self._playout.cut()
        for reply in self._asked:
            self._playout.drop(reply.item)
        self._asked.clear()
        active = self._active
        if active is not None:
            self._playout.drop(active.item)
        for reply in list(self._recent):
            if reply.item in items or reply is active:
                self._interrupt(reply)
        return items

    def leave(self) -> None:
        """Nothing that was asked for is heard any more, however far it is rendered; none of it is left."""
        items = self._playout.cut()
        active, self._active = self._active, None
        for reply in (*self._asked, *([active] if active is not None else ())):
            self._playout.drop(reply.item)
        for reply in self._recent:
            if reply.item in items:
                self._interrupt(reply)
        self._asked.clear()
        self._recent.clear()

    def lose(self) -> None:
        """The engine is gone: what nobody heard yet is the next in line, what was begun ends where it is."""
        active, self._active = self._active, None
        if active is not None:
            if active.item.queued == 0 and not active.item.ended:
                self._asked.appendleft(AskedReply(active.item, active.say, asked_at=active.asked_at))
            else:
                active.item.break_off()
                self._over(active)
        self._recent.clear()

    def _interrupt(self, reply: AskedReply) -> None:
        """Has the engine stop `reply` where the caller stopped hearing it; one that the engine has not
        created yet is stopped when it is."""
        if reply.item_id is None or reply.response_id is None:
            return
        response_id = reply.response_id if reply is self._active else None
        heard_ms = round(reply.item.heard_s * 1000)
        self._outbox.send(functools.partial(interrupt, response_id, reply.item_id, heard_ms))

    def _over(self, reply: AskedReply) -> None:
        """No more of `reply` comes; when all of it was heard it belongs to the history."""
        if reply.item.queued and not reply.item.cut:
            self._line.show_words(reply.item, True)
        self._playout.end(reply.item)
