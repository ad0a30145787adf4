"""What lands in a call's inbox, for its verbs to read, and what unwinds them.

The last thing that lands there is the call's end; whoever notices it first says so by `Inbox.end`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from gateway.errors import VoicegateError
from gateway.hall.media.turns import TurnEvent
from gateway.hall.parts.keypad import Keypad
from gateway.hall.parts.playout import Item, Playout
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.hall_messages import Steering
from gateway.ipc.line_messages import KeyWay
from model.ears.words_heard import Words
from model.redaction.redactor import Passage
from model.tasks import race

T = TypeVar("T")

INBOX: Final = 256
"""Events that may wait for the verbs."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What was understood of the turn that was committed as `turn`; `said` is None when nobody wrote it
    down."""

    turn: int
    said: Passage | None
    duration_s: float
    confidence: float | None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The engine wants something done once `item` was heard."""

    item: Item
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The engine will not, now or ever in this call: `code` is "busy" or the contract's other words."""

    code: str
    message: str


SpeechEvent = Heard | ToolCall | Refused


@dataclass(frozen=True, slots=True)
class Dtmf:
    """A key the caller pressed."""

    digit: str


@dataclass(frozen=True, slots=True)
class CallerTurn:
    """What `Turns` noticed. `at` is monotonic, `quiet_s` how long it had been quiet by then;
    `words` are those of a turn that is over, where the hall heard them and the plan keeps them."""

    event: TurnEvent
    at: float
    duration_s: float
    quiet_s: float
    words: Words | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class LanguageHeard:
    """The language (ISO 639-1) in which the caller speaks, and how likely; empty: it could not be told."""

    language: str
    chance: float


@dataclass(frozen=True, slots=True)
class Transferred:
    """What became of a transfer: the SIP status of its target."""

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class TargetHeard:
    """A target that the line calls has said something before its final answer (a SIP status); `early`: the
    caller hears its sound."""

    status: int
    early: bool


@dataclass(frozen=True, slots=True)
class Steered:
    """An operator wants something of a conversation; `what` is a text or a target."""

    act: Steering
    what: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ended:
    """The call is over."""

    how: CallEnding


Event = Dtmf | CallerTurn | LanguageHeard | Transferred | TargetHeard | Steered | Ended | SpeechEvent


class CallEnded(Exception):
    """Raised inside verbs when the call has ended, or is to end so; they unwind."""

    def __init__(self, how: CallEnding) -> None:
        super().__init__(how)
        self.how = how


class EngineGone(VoicegateError):
    """What should be said cannot be: the engine refused."""

    def __init__(self, refusal: Refused) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Inbox:
    """One call's events until its end. `playout` is what the end silences; `log` a bound logger."""

    def __init__(self, playout: Playout, log: Any) -> None:
        self._playout = playout
        self._log = log
        self._keypad = Keypad()
        self._events: asyncio.Queue[Event] = asyncio.Queue(INBOX)
        self.refused: Refused | None = None
        """the engine will not speak in this call any more"""
        self.gone = asyncio.Event()
        """set with `refused`"""
        self.heeds_operator = False
        """whoever reads it does what an operator wants (`Steered`)"""
        self.ended = asyncio.Event()
        self.how = CallEnding(End.OUR_ERROR)
        """how the call ended, once it has"""

    def post(self, event: Event) -> None:
        """Puts an event before the verbs; a full inbox means that they are stuck: the call is ended."""
        if isinstance(event, Refused):
            self.refused = self.refused or event
            self.gone.set()
        try:
            self._events.put_nowait(event)
        except asyncio.QueueFull:
            self._log.error("call.inbox_full")
            self.end(CallEnding(End.STUCK))

    def heed_operator(self, *, heeds: bool) -> None:
        """Whoever reads it heeds operators from now on, or does no more."""
        self.heeds_operator = heeds

    def press(self, digit: str, way: KeyWay, now: float) -> None:
        """The caller pressed a key, unless the same press came by another way before. `now` is monotonic."""
        if self._keypad.is_new(digit, way, now):
            self.post(Dtmf(digit))

    def put_back(self, event: Event) -> None:
        """`event` was taken by who has nothing to do with it: the next one finds it first."""
        waiting = [event, *(self._events.get_nowait() for _ in range(self._events.qsize()))]
        for one in waiting[-INBOX:]:
            self._events.put_nowait(one)

    def forget_keys(self) -> None:
        """Drops the keys that wait; all else stays in its order."""
        for _ in range(self._events.qsize()):
            event = self._events.get_nowait()
            if not isinstance(event, Dtmf):
                self._events.put_nowait(event)

    def end(self, how: CallEnding) -> None:
        """The call is over, and what waits to be said is not said; idempotent, the first reason stays."""
        if self.ended.is_set():
            return
        self.how = how
        self.ended.set()
        self._playout.cut()
        while True:
            try:
                self._events.put_nowait(Ended(how))
                return
            except asyncio.QueueFull:
                self._events.get_nowait()

    async def next(
        self, within_s: float | None = None, *, after: asyncio.Event | None = None
    ) -> Event | None:
        """The next event, None when none came in time; the time begins when `after` is set.

        Raises `CallEnded`.
        """
        if after is not None and not after.is_set():
            coming, _ = await race(self._events.get(), after.wait())
            if coming is not None:
                return _living(coming.result())
        try:
            async with asyncio.timeout(within_s):
                return _living(await self._events.get())
        except TimeoutError:
            return None

    async def until(self, happening: Awaitable[Any], within_s: float | None = None) -> bool:
        """Waits for `happening` while events are left where they are. Raises `CallEnded`.

        False when it did not happen in time.
        """
        happened = await self._race(happening, within_s)
        if happened is not None:
            happened.result()
        return happened is not None

    async def result_of(self, work: Awaitable[T]) -> T:
        """What `work` returns, while events are left where they are. Raises `CallEnded`, or its error."""
        done = await self._race(work, None)
        if done is None:
            raise CallEnded(self.how)
        result: T = done.result()
        return result

    async def _race(self, work: Awaitable[Any], within_s: float | None) -> asyncio.Future[Any] | None:
        """`work` once it is done; None when it was not in time, and is cancelled. Raises `CallEnded`."""
        done, _ = await race(work, self.ended.wait(), within_s=within_s)
        if self.ended.is_set():
            raise CallEnded(self.how)
        return done

    async def until_or_gone(self, happening: asyncio.Event, within_s: float | None = None) -> None:
        """Waits until `happening` is set, the engine refused, or time is up. Raises `CallEnded`."""
        await self.until(race(happening.wait(), self.gone.wait()), within_s)


def _living(event: Event) -> Event:
    if isinstance(event, Ended):
        raise CallEnded(event.how)
    return event
