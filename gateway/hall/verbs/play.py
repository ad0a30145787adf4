"""Playing a recording of the operator's own, until it is over or the caller ends it."""

from __future__ import annotations

import asyncio
from typing import Final

import numpy as np

from gateway.dialplan import Playback
from gateway.hall.calls.call import Call
from gateway.hall.dialogue.recorded_sounds import Pcm
from gateway.hall.media.audio import HOUSE_HZ
from gateway.hall.media.turns import TurnEvent
from gateway.hall.parts.inbox import Dtmf
from gateway.hall.parts.playout import Item
from watermark.pcm import float_from_int16

AHEAD_S: Final = 1.0
"""So much waits to be played; the rest stays out of the call's queue."""
PIECE: Final = HOUSE_HZ // 2
LOOK_EVERY_S: Final = 0.3
FADE: Final = HOUSE_HZ // 100
"""Samples over which a recording fades that ends before its end."""


class Player:
    """One recording in one call. `sound`: int16 24 kHz, not empty."""

    def __init__(self, call: Call, verb: Playback, sound: Pcm) -> None:
        self._call = call
        self._verb = verb
        self._sound = sound
        most = None if verb.max_s is None else round(verb.max_s * HOUSE_HZ)
        self._left: int | None = most if verb.loop else min(most or len(sound), len(sound))
        """samples that are still to be put in the queue; None: no end"""
        self._at = 0
        self._noticed: TurnEvent | None = None
        self._wake = asyncio.Event()
        self._by: str | None = None
        """what of the caller's ended it"""

    async def run(self) -> None:
        """Raises `CallEnded`; an engine that is gone does not matter."""
        call, verb = self._call, self._verb
        keys, speech = verb.interruptible in ("keys", "both"), verb.interruptible in ("speech", "both")
        if not speech:
            call.ear.hold_floor()
        item = call.speech.recorded(verb.text, lambda: self._wake.set())
        call.ear.notice(self._notice if speech else None)
        timer: asyncio.TimerHandle | None = None
        try:
            while not item.done.is_set():
                if call.licence.muted is not None:
                    await call.inbox.until(call.inbox.ended.wait())
                self._fill(item)
                self._wake.clear()
                timer = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._wake.set)
                if keys:
                    event = await call.inbox.next(0.0, after=self._wake)
                    if isinstance(event, Dtmf):
                        self._stop("key")
                        call.inbox.put_back(event)  # it counts for the verb after this one
                else:
                    await call.inbox.until(self._wake.wait())
                timer.cancel()
                self._heed()
        finally:
            if timer is not None:
                timer.cancel()
            call.ear.notice(None)
            call.ear.yield_floor()
            call.come_back(cut=self._by == "speech")
            ended = self._by or ("end" if item.whole else "cut")
            call.session.event(
                "played", file=verb.file, text=verb.text, heard_s=round(item.heard_s, 2), ended=ended
            )

    def _notice(self, event: TurnEvent) -> None:
        """On the hot path."""
        self._noticed = event
        self._wake.set()

    def _heed(self) -> None:
        """What the caller's sound came to since the last look."""
        noticed, self._noticed = self._noticed, None
        if noticed is TurnEvent.ONSET:
            self._call.duck()
        elif noticed is TurnEvent.SPEECH:
            self._stop("speech")
        elif noticed is not None:
            self._call.come_back()

    def _stop(self, by: str) -> None:
        self._by = by
        self._call.speech.cut()

    def _fill(self, item: Item) -> None:
        """Keeps `AHEAD_S` in the queue."""
        call = self._call
        while not item.ended and call.playout.waiting_s < AHEAD_S:
            size = min(PIECE, len(self._sound) - self._at, PIECE if self._left is None else self._left)
            piece = float_from_int16(self._sound[self._at : self._at + size])
            self._at = (self._at + size) % len(self._sound)
            if self._left is not None:
                self._left -= size
                if self._left == 0 and self._at:  # it ends before the recording does
                    fade = min(FADE, size)
                    piece[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
            call.playout.put(item, piece)
            if self._left == 0:
                call.playout.end(item)
