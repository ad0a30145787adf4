"""What is noted of a conversation: each turn with its times; with its words, where the plan keeps them.

Words are noted redacted. A number may be said over several turns, so a turn that ends in the beginning of
one waits until it is known what it was (`model.redaction`), and one that is still being written down waits
for its words; those behind it wait, too. None of that is in the call's way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from gateway.hall.dialogue.memory import Memory
from gateway.hall.dialogue.scribe import Scribe, WrittenWords
from gateway.hall.media.audio import Floats
from gateway.store.call_events import Turn
from gateway.store.call_session import Session
from model.redaction.redactor import Passage
from model.tasks import Tasks

WRITTEN_WITHIN_S: Final = 25.0
"""How long a call that is over waits for the words of its last turns."""


@dataclass(slots=True, eq=False)
class TurnWords:
    """What the caller said in one turn, once that is known."""

    said: Passage | None = None
    """None: nobody wrote it down, or the plan keeps no words"""
    known: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, said: Passage | None) -> None:
        """It was this."""
        self.said = said
        self.known.set()

    def give_up(self) -> None:
        """Who has not told by now never will."""
        self.known.set()


@dataclass(slots=True, eq=False)
class NotedTurn:
    """A turn of the caller's and what was said to it; `at` are seconds since the epoch."""

    words: TurnWords
    caller: Turn
    caller_at: float
    bot: Turn
    bot_at: float

    @property
    def is_ready(self) -> bool:
        """Whether what is to be noted of it is known."""
        return self.words.known.is_set() and (self.words.said is None or self.words.said.settled)


@dataclass(slots=True, eq=False)
class _Unread:
    """A turn that the scribe writes, and who is told what may be kept of it."""

    told: Callable[[Passage | None, float | None], None]
    words: WrittenWords | None = None
    is_written: bool = False


class CallNotes:
    """One call's turns on their way into its session, in order.

    `memory` says what may be kept of words; `scribe` writes down what the engine does not.
    """

    def __init__(self, session: Session, memory: Memory, scribe: Scribe) -> None:
        self._session = session
        self._memory = memory
        self._scribe = scribe
        self._waiting: deque[NotedTurn] = deque()
        self._unread: deque[_Unread] = deque()

    def have_written(
        self,
        sound: Sequence[Floats],
        language: str,
        told: Callable[[Passage | None, float | None], None],
        heard: WrittenWords | None = None,
    ) -> bool:
        """Has a turn written down beside the call; False when there is nobody who could.

        `told` is called once, turn by turn, also after the call: with what may be kept of the words, and how
        sure they are. `heard`: the words, where somebody heard them already.
        """
        if not sound or not self._scribe.writes:
            return False
        turn = _Unread(told)
        self._unread.append(turn)

        def read(words: WrittenWords | None) -> None:
            turn.words, turn.is_written = words, True
            self._read()

        self._scribe.write(sound, language, read, heard)
        return True

    def _read(self) -> None:
        """Looks through what is written, in the order in which it was said: a number may go over turns."""
        while self._unread and self._unread[0].is_written:
            turn = self._unread.popleft()
            if turn.words is None:
                turn.told(None, None)
            else:
                passage = self._memory.hear(turn.words.text, as_item=False)
                turn.told(passage, round(turn.words.confidence, 3))

    def add(self, turn: NotedTurn) -> None:
        """An turn is over; it is noted when all of it is known, and those before it are noted."""
        self._waiting.append(turn)
        self.note_ready()

    def note_ready(self) -> None:
        """Notes what nothing is missing of any more."""
        while self._waiting and self._waiting[0].is_ready:
            self._note(self._waiting.popleft())

    def close(self, later: Tasks) -> None:
        """The call is over: what waits is noted, by a task of `later` where somebody still writes it down."""
        if all(turn.words.known.is_set() for turn in self._waiting):
            self._note_all()
        else:
            later.short(self._close(), "call.last_words")

    async def _close(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WRITTEN_WITHIN_S):
                for turn in list(self._waiting):
                    await turn.words.known.wait()
        self._note_all()

    def _note_all(self) -> None:
        self._memory.finish()
        while self._waiting:
            self._note(self._waiting.popleft())

    def _note(self, turn: NotedTurn) -> None:
        said, bot = turn.words.said, turn.bot
        caller = replace(turn.caller, text=said.kept if said is not None else None)
        self._session.turn(caller, at=turn.caller_at)
        answered = replace(bot, text=self._memory.kept_of(bot.text) if bot.text else None)
        self._session.turn(answered, at=turn.bot_at)
