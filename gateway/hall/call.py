"""One call's life in the hall, and everything that belongs to it.

    offered ── started ── answered ── confirmed ── ended
    (front)    (line)     (hall)      (line)       (anyone)

`Call` is state and the hot path's two doors, `hear` and `pull`; what the call does is `verbs.perform`, an
ordinary coroutine that reads `inbox`. Whoever notices the end first calls `end`; the rest follows from it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import structlog

from consent.grant import VoiceGrant
from gateway.dialplan import Route
from gateway.dialplan.verbs import fill
from gateway.errors import RpcError
from gateway.hall.audio import HOUSE_HZ, Floats
from gateway.hall.inbox import CallEnded, CallerTurn, Ended, EngineGone, Event, Refused
from gateway.hall.leg import FULL
from gateway.hall.playout import Item, Playout
from gateway.hall.speech import Speech
from gateway.hall.turns import TurnEvent, Turns
from gateway.ipc.envelope import A, Ask, Tell
from gateway.ipc.hall_messages import CallOffer, MarkFailed, VoiceMuted
from gateway.ipc.line_messages import ShowCaller, Shown, ShownWords
from gateway.ipc.rpc import Peer
from gateway.store.sessions import Session
from watermark.selfcheck import SelfCheck

log = structlog.get_logger("call")

INBOX: Final = 256
APPEND_FRAMES: Final = 4
"""Line frames of the caller's speech that go to the engine together (80 ms)."""
STARTED_WITHIN_S: Final = 10.0
"""A call that no line reports within this is forgotten: its INVITE never reached one."""
MUTED_FOR_S: Final = 3.0
"""Nobody listens longer than this to a voice that may not be heard any more."""
CONFIRMED_WITHIN_S: Final = 32.0
"""RFC 3261 §13.3.1.4: an answer that is not acknowledged in 64 * T1 ends the call."""


class AskFront(Protocol):
    """The front's answer to a question. Raises `RpcError` when it refuses, or is away."""

    async def __call__(self, message: Ask[A], timeout_s: float = ...) -> A: ...


@dataclass(eq=False)
class Call:
    """One call. `row` is its place in every batched stage."""

    offer: CallOffer
    row: int
    playout: Playout
    speech: Speech
    session: Session
    tell_front: Callable[[Tell], None]
    ask_front: AskFront
    aim: Callable[[float], None]
    """sets the leg's gain"""
    recordings: Path
    resumed: bool = False
    """taken up after a hall's death: the caller was greeted already"""
    disclosed: list[str] = field(default_factory=list)
    """disclosures that the caller has heard whole, before a hall's death too"""
    turns: Turns = field(default_factory=Turns)
    state: str = "offered"
    line: Peer | None = None
    number: int = -1
    """the line's own number for the call, on its ticks"""
    rate_hz: int = 0
    mark_slot: int = -1
    check: SelfCheck | None = None
    """keeps what was sent, so that its mark can be looked for"""
    sending: bool = False
    receiving: bool = False
    tail: bool = False
    """the marker still holds the end of what was said"""
    interruptible: bool = True
    """the caller may cut what is being said"""
    listening: bool = False
    """a verb wants the caller's turns"""
    heeded: bool = False
    """the present turn goes to the engine: it began when somebody listened"""
    muted: str | None = None
    """why the voice may not be heard (revoked, grant lapsed, no mark); the leg plays silence"""
    mark_failed: bool = False
    """a frame could not be marked, and somebody was told"""
    played_samples: int = 0
    played_seen: int | None = None
    underruns: int = 0
    last_sound: float = field(default_factory=time.monotonic)
    """when somebody last spoke, `time.monotonic()`"""
    inbox: asyncio.Queue[Event] = field(default_factory=lambda: asyncio.Queue(INBOX))
    started: asyncio.Event = field(default_factory=asyncio.Event)
    confirmed: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    how: str = ""
    refused: Refused | None = None
    """the engine will not speak in this call any more"""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """set with `refused`"""
    spoken_samples: int = 0
    tap: Callable[[Floats | None], None] | None = None
    """a recording that wants the caller's frames"""
    grant: VoiceGrant | None = None
    token: str | None = None
    route: Route = field(init=False)
    log: Any = field(init=False)

    def __post_init__(self) -> None:
        self.route = self.offer.route
        self.log = log.bind(call_id=self.id)

    @property
    def id(self) -> str:
        return self.offer.call_id

    def words(self, text: str, facts: Mapping[str, str] | None = None) -> str:
        """A dialplan's text with its facts and the clock of the route's zone put in."""
        return fill(text, facts or {}, self.route.local())

    # ── the hot path ─────────────────────────────────────────────────────────────────────────────────

    def hear(self, frame: Floats | None, judged: float | None, now: float) -> TurnEvent | None:
        """One 20 ms frame from the caller; see `Turns.hear`."""
        if self.tap is not None:
            self.tap(frame)
        if not self.sending:  # held: what arrives is music, and nobody hears us
            self.last_sound = now
            return None
        busy = self.playout.busy
        event = self.turns.hear(frame, judged, we_talk=busy)
        if busy or self.turns.speaking:
            self.last_sound = now
        if event is TurnEvent.ONSET:
            self.heeded = self.listening and (self.interruptible or not busy)
        if not self.heeded:
            self.turns.take()
            return event
        if event is not None or self.turns.frames_waiting >= APPEND_FRAMES:
            sound = self.turns.take()
            if sound is not None:
                self.speech.append(sound)
        if event is not None:
            self.post(CallerTurn(event, now, self.turns.duration_s, self.turns.quiet_s))
        return event

    def count_played(self, played: int) -> None:
        """The line's counter (uint32, its own rate) of our samples that it played."""
        if self.played_seen is None:  # what it played before was of a hall that died
            self.played_seen = played
        self.played_samples += (played - self.played_seen) & 0xFFFFFFFF
        self.played_seen = played
        self.playout.played(self.played_samples * HOUSE_HZ // self.rate_hz)

    # ── what happens to it ───────────────────────────────────────────────────────────────────────────

    def post(self, event: Event) -> None:
        """Puts an event before the verbs; a full inbox means they are stuck: the call is ended."""
        if isinstance(event, Refused):
            self.refused = self.refused or event
            self.gone.set()
        try:
            self.inbox.put_nowait(event)
        except asyncio.QueueFull:
            self.log.error("call.inbox_full")
            self.end("failed: events were not taken")

    async def next(
        self, within_s: float | None = None, *, after: asyncio.Event | None = None
    ) -> Event | None:
        """The next event, None when none came in time; the time begins when `after` is set.

        Raises `CallEnded`.
        """
        if after is not None and not after.is_set():
            coming = asyncio.ensure_future(self.inbox.get())
            waiting = asyncio.ensure_future(after.wait())
            try:
                await asyncio.wait((coming, waiting), return_when=asyncio.FIRST_COMPLETED)
                if coming.done():
                    return self._taken(coming.result())
            finally:
                coming.cancel()
                waiting.cancel()
        try:
            async with asyncio.timeout(within_s):
                return self._taken(await self.inbox.get())
        except TimeoutError:
            return None

    def _taken(self, event: Event) -> Event:
        if isinstance(event, Ended):
            raise CallEnded(event.how)
        return event

    async def until(self, happening: Awaitable[Any], within_s: float | None = None) -> bool:
        """Waits for `happening` while events are left in the inbox. Raises `CallEnded`.

        False when it did not happen in time.
        """
        work = asyncio.ensure_future(happening)
        over = asyncio.ensure_future(self.ended.wait())
        try:
            await asyncio.wait((work, over), timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
            if self.ended.is_set():
                raise CallEnded(self.how)
            if work.done():
                work.result()
                return True
            return False
        finally:
            work.cancel()
            over.cancel()

    async def rendered(self, item: Item, within_s: float) -> None:
        """Waits until `item` can be played, the engine refuses, or time is up. Raises `CallEnded`."""
        await self._either(item.ready, self.gone, within_s)

    async def played(self, item: Item) -> None:
        """Waits until `item` was heard or cut; in a muted call, where nothing more is heard, until its end.

        Raises `CallEnded`, and `EngineGone` when the item will never be said.
        """
        await self._either(item.done, self.gone)
        if self.muted is None:
            if self.refused is not None and not item.queued and not item.cut:
                raise EngineGone(self.refused)
            await self.until(item.done.wait())
        if self.muted is not None:
            await self.until(self.ended.wait())

    async def _either(self, one: asyncio.Event, other: asyncio.Event, within_s: float | None = None) -> None:
        both = [asyncio.ensure_future(event.wait()) for event in (one, other)]
        try:
            await self.until(asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED), within_s)
        finally:
            for waiting in both:
                waiting.cancel()

    async def ask_line(self, message: Ask[A]) -> A:
        """Asks the call's line. Raises `CallEnded` when the line is gone."""
        try:
            if self.line is None:
                raise RpcError("the call is on no line")
            return await self.line.ask(message)
        except RpcError as error:
            self.log.warning("line.refused", method=message.wire, error=str(error))
            self.end(f"failed: {error}")
            raise CallEnded(self.how) from None

    def use_grant(self, grant: VoiceGrant) -> None:
        """A verified grant: the first one, or a renewed one that the engine must learn of."""
        renewed = self.grant is not None
        self.grant, self.token = grant, grant.token
        if renewed:
            self.speech.renew(grant.token)

    def mute(self, reason: str) -> None:
        """The voice may not be heard any more: the leg plays silence from the next frame on, what waits to
        be said is forgotten, and the call ends in `MUTED_FOR_S`."""
        if self.muted is None:
            self.muted = reason
            self.token = None
            self.speech.cut()
            self.log.warning("voice.muted", reason=reason)
            self.session.event("muted", reason=reason)
            self.tell_front(VoiceMuted(self.id, reason))
            how = f"failed: the voice may not be used: {reason}"
            asyncio.get_running_loop().call_later(MUTED_FOR_S, self.end, how)

    def alarm(self, error: Exception) -> None:
        """A frame could not be marked and went out as silence; said once, counted by the floor."""
        if not self.mark_failed:
            self.mark_failed = True
            self.log.error("mark.failed", error=str(error))
            self.session.event("mark_failed", error=str(error))
            self.tell_front(MarkFailed(self.id))

    def broke(self, where: str) -> None:
        """An error of ours, inside an `except`: this call ends, the others go on."""
        if not self.ended.is_set():
            self.log.exception("call.failed", where=where)
            self.end("failed: an error of ours")

    def said(self, item: Item, final: bool) -> None:
        """`item` has more words."""
        self.show(ShownWords(item.id, item.text, final))

    def forget_turn(self) -> None:
        """What the caller began to say is nothing (the call was held)."""
        if self.turns.speaking and self.heeded:
            self.speech.clear()
        self.heeded = False
        self.turns.reset()
        self.aim(FULL)

    def show(self, event: Shown) -> None:
        """Tells the caller's page, when the line has one."""
        if self.line is not None and self.offer.facts.transport == "webrtc":
            self.line.tell(ShowCaller(self.id, event))

    def move(self, state: str) -> None:
        """Enters a state and says so everywhere."""
        self.state = state
        self.session.state(state)
        self.log.info("call." + state)

    def end(self, how: str) -> None:
        """The call is over; idempotent, the first reason stays."""
        if self.ended.is_set():
            return
        self.how = how
        self.ended.set()
        self.playout.cut()
        while True:
            try:
                self.inbox.put_nowait(Ended(how))
                return
            except asyncio.QueueFull:
                self.inbox.get_nowait()
