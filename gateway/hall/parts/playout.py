"""What a call is being told, and how much of it was heard.

Sound waits here until the line's tick takes it, 20 ms at a time. Every frame that left is remembered until
the line says that it played it, so that an interrupted reply is cut at what the caller really heard.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from gateway.errors import VoicegateError
from gateway.hall.media.audio import FRAME_S, HOUSE_HZ, Floats
from gateway.hall.parts.clocks import Clocks

FRAME: Final = round(HOUSE_HZ * FRAME_S)
"""Samples of a 20 ms frame at 24 kHz."""
CAPACITY_S: Final = 60.0
"""The longest sound that may wait. The engine's lead keeps a reply near one second."""
LOST_S: Final = 0.3
"""When nothing was sent for this long, frames not yet reported as played were dropped by the line."""


class PlayoutFull(VoicegateError):
    """More than `CAPACITY_S` of sound would wait: the engine ignores its lead."""


@dataclass(slots=True)
class ItemTimes:
    """When what happened to an item, monotonic; None: not yet, or never."""

    word: float | None = None
    """its first words came"""
    sound: float | None = None
    """its first sound came, and waits to be played"""
    frame: float | None = None
    """its first frame went to the line"""
    wire: float | None = None
    """the line told that it had played it: a tick (20 ms) after that, at most"""

    def note_word(self, at: float) -> None:
        """Words came; those after the first change nothing, as with the others."""
        if self.word is None:
            self.word = at

    def note_sound(self, at: float) -> None:
        if self.sound is None:
            self.sound = at

    def note_frame(self, at: float) -> None:
        if self.frame is None:
            self.frame = at

    def note_wire(self, at: float) -> None:
        if self.wire is None:
            self.wire = at


@dataclass(slots=True, eq=False)
class Item:
    """One utterance of ours: a reply of the engine or a verbatim text. Counts are samples at 24 kHz."""

    id: str
    queued: int = 0
    pulled: int = 0
    heard: int = 0
    reached: int = 0
    """up to here the line has played it; `heard` is this less what marking and rate change hold back"""
    text: str = ""
    """its words so far"""
    ended: bool = False
    """No more will be put in."""
    cut: bool = False
    """Not all of it was played: the caller interrupted, or the call ended."""
    broken: bool = False
    """The engine stopped before its end."""
    own: bool = False
    """A tone, or the stock voice's, rendered in advance: not said under the call's grant."""
    then: Callable[[Item], None] | None = None
    """called with it when all of it was heard"""
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    """Its first sound waits to be played."""
    started: asyncio.Event = field(default_factory=asyncio.Event)
    """Its first frame was played, or none ever will be."""
    done: asyncio.Event = field(default_factory=asyncio.Event)
    """All of it was played, or it was cut."""
    times: ItemTimes = field(default_factory=ItemTimes)

    def add_words(self, more: str) -> None:
        """It goes on with these."""
        self.text += more

    def break_off(self) -> None:
        """The engine stopped before its end."""
        self.broken = True

    @property
    def heard_s(self) -> float:
        return self.heard / HOUSE_HZ

    @property
    def whole(self) -> bool:
        """It was heard from its first word to its last."""
        return self.done.is_set() and self.queued > 0 and not self.cut and not self.broken


class Playout:
    """The queue of one call. `delay_s` is what marking and the rate change add behind it; `turned` is called
    on the hot path when something begins to be heard, and when nothing is any more."""

    def __init__(
        self, delay_s: float, turned: Callable[[], object] = lambda: None, clocks: Clocks = time
    ) -> None:
        self._turned = turned
        self._clocks = clocks
        self.heard_now = False
        """the caller hears something of ours, or would but for a gap"""
        self._delay = round(delay_s * HOUSE_HZ)
        self._waiting: deque[tuple[Item, Floats]] = deque()
        self._waiting_samples = 0
        self._sent = 0
        self._reported = 0
        self._lost = 0
        self._trail: deque[tuple[int, Item, int]] = deque()
        """(sent when the frame was complete, item, the item's samples up to here), not yet played"""
        self._idle = 0
        self._fade: Floats | None = None
        """the last 20 ms of what was cut, fading out"""
        self._open: list[Item] = []
        self.busy = False
        """something of ours is still to be heard"""
        self.own_samples = 0
        """pulled so far of what is not said under the call's grant, 24 kHz"""

    @property
    def waiting_s(self) -> float:
        return self._waiting_samples / HOUSE_HZ

    def put(self, item: Item, samples: Floats) -> None:
        """Queues float32 24 kHz sound of `item`; what comes for an item that was cut is dropped.

        Raises `PlayoutFull`.
        """
        if item.ended or not len(samples):
            return
        if self.waiting_s + len(samples) / HOUSE_HZ > CAPACITY_S:
            raise PlayoutFull(f"{self.waiting_s:.1f} s of sound already wait to be played")
        if not item.queued:
            self._open.append(item)
            self.busy = True
            item.times.note_sound(self._clocks.monotonic())
        item.queued += len(samples)
        item.ready.set()
        self._waiting.append((item, samples))
        self._waiting_samples += len(samples)

    def end(self, item: Item) -> None:
        """Nothing more will be put for `item`."""
        item.ended = True
        if item.reached == item.queued:
            item.heard = item.queued
            self._close(item)

    def drop(self, item: Item) -> None:
        """`item` is not wanted any more; what of it waits already is still played."""
        item.cut = True
        self.end(item)

    def pull(self) -> Floats | None:
        """The next 20 ms, or None when nothing waits.

        A last piece shorter than a frame is padded with zeros, unless its item goes on: then it waits for the
        rest (a late engine costs one gap, never a click).
        """
        if self._fade is not None:
            frame, self._fade = self._fade, None
            self._sent += FRAME
            return frame
        ready = self._waiting_samples
        if ready < FRAME and (not ready or not self._waiting[-1][0].ended):
            self._idle += 1
            if self._trail and self._idle * FRAME_S > LOST_S:
                self._lost = self._sent - self._reported
                self._report(self._sent)
            return None
        self._idle = 0
        item, samples = self._waiting[0]
        if len(samples) > FRAME:
            frame = samples[:FRAME]
            self._waiting[0] = (item, samples[FRAME:])
            if not item.pulled:
                item.times.note_frame(self._clocks.monotonic())
            item.pulled += FRAME
            self.own_samples += FRAME * item.own
            filled = FRAME
            self._trail.append((self._sent + FRAME, item, item.pulled))
        else:
            frame, filled = self._gather()
        self._waiting_samples -= filled
        self._sent += FRAME
        return frame

    def _gather(self) -> tuple[Floats, int]:
        """A frame from the pieces that wait, and how much of it they filled."""
        frame = np.zeros(FRAME, np.float32)
        filled = 0
        while filled < FRAME and self._waiting:
            item, samples = self._waiting[0]
            take = min(FRAME - filled, len(samples))
            frame[filled : filled + take] = samples[:take]
            filled += take
            if not item.pulled:
                item.times.note_frame(self._clocks.monotonic())
            item.pulled += take
            self.own_samples += take * item.own
            if take == len(samples):
                self._waiting.popleft()
            else:
                self._waiting[0] = (item, samples[take:])
            self._trail.append((self._sent + FRAME, item, item.pulled))
        return frame, filled

    def played(self, total: int) -> None:
        """The line has played `total` samples (24 kHz, since the call's start) of what we sent."""
        if total != self._reported:
            self._reported = total
            self._lost = min(self._lost, max(0, self._sent - total))
            self._report(total + self._lost)

    def _report(self, upto: int) -> None:
        while self._trail and self._trail[0][0] <= upto:
            _, item, reached = self._trail.popleft()
            if not item.reached:
                item.times.note_wire(self._clocks.monotonic())
            item.reached = reached
            item.started.set()
            if not self.heard_now:
                self.heard_now = True
                self._turned()
            if item.ended and item.reached == item.queued:
                item.heard = item.queued
                self._close(item)
            else:
                item.heard = max(item.heard, item.reached - self._delay)

    def _close(self, item: Item) -> None:
        """`item` is over: heard to its end, or cut."""
        if item.done.is_set():
            return
        if item.queued:
            self._open.remove(item)
            self.busy = bool(self._open)
        item.ready.set()
        item.started.set()
        item.done.set()
        if self.heard_now and not self._open:
            self.heard_now = False
            self._turned()
        if item.then is not None and not item.cut:
            item.then(item)

    def cut(self) -> list[Item]:
        """Forgets what waits (barge-in, hang-up) and answers the items that were cut, with `heard` as the
        line has reported it so far: the frame or two under way, and the 20 ms fade, count as not heard."""
        items = list(self._open)
        if self._waiting:
            rest, filled = self._gather()
            rest[:filled] *= np.linspace(1, 0, filled, dtype=np.float32)
            self._fade = rest
        self._waiting.clear()
        self._waiting_samples = 0
        self._trail.clear()
        for item in items:
            item.ended = item.cut = True
            self._close(item)
        return items
