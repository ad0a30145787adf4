"""What becomes of the caller's sound: turns always, and what the verbs want of it.

While a verb listens, a turn goes to the engine as it is spoken, and its events to the inbox; while one
records, every frame goes there too. `hear` is on the hot path.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from gateway.hall.dialogue.early_words import EarlyWords
from gateway.hall.dialogue.speech import Speech
from gateway.hall.media.audio import Floats
from gateway.hall.media.turns import TurnEvent, Turns
from gateway.hall.parts.clocks import Clocks
from gateway.hall.parts.inbox import CallerTurn, Inbox
from gateway.hall.parts.playout import Playout
from model.ears.ears_client import Ears
from model.ears.words_heard import Words

APPEND_FRAMES: Final = 4
"""Line frames of the caller's speech that go to the engine together (80 ms); at a pause each goes at once."""

Tap = Callable[[Floats | None], None]
"""Takes each 20 ms frame, float32 24 kHz; None when nothing arrived."""
Attendant = Callable[[Floats | None, TurnEvent | None, float], None]
"""Takes what is heeded beside the engine: sound (float32 24 kHz), what the turn came to, speech in it (s)."""


class CallEar:
    """One call's ear. It begins with nobody listening, and with a caller who may interrupt."""

    def __init__(
        self,
        playout: Playout,
        speech: Speech,
        inbox: Inbox,
        *,
        clocks: Clocks = time,
        house_ears: Ears | None = None,
        hears_early: bool = False,
    ) -> None:
        self._playout = playout
        self._speech = speech
        self._inbox = inbox
        self._clocks = clocks
        self._tap: Tap | None = None
        self._attendant: Attendant | None = None
        self._words: EarlyWords | None = None
        self._noticer: Callable[[TurnEvent], None] | None = None
        self._listening = False
        self._interruptible = True
        self._heeded = False
        """the present turn goes to the engine: it began when somebody listened"""
        self.house_ears = house_ears
        """where this house hears words"""
        self.hears_early = hears_early and house_ears is not None
        """they are asked at pauses, for an engine that does not hear early"""
        self.turns = Turns()
        self.last_sound = clocks.monotonic()
        """when somebody last spoke, monotonic"""

    # ── the verbs' side ──────────────────────────────────────────────────────────────────────────────

    def listen(self) -> None:
        """The caller's turns are wanted from now on."""
        self._listening = True

    def ignore(self) -> None:
        """They are not; a turn that is heeded already goes on to its end."""
        self._listening = False

    def attend(self, attendant: Attendant | None) -> None:
        """`attendant` hears the turns too that go to the engine; None: nobody does any more."""
        self._attendant = attendant

    def notice(self, noticer: Callable[[TurnEvent], None] | None) -> None:
        """`noticer` learns what turns come to that go to nobody, on the hot path; None: nobody does."""
        self._noticer = noticer

    def hear_words(self, words: EarlyWords | None) -> None:
        """`words` are heard early for an engine that does not; None: nobody does any more."""
        self._words = words

    @property
    def heeds_turn(self) -> bool:
        """The caller is in a turn whose end will be told."""
        return self._heeded and self.turns.speaking

    def hold_floor(self) -> None:
        """The caller may not cut what is being said: a turn that begins over it is not heeded."""
        self._interruptible = False

    def yield_floor(self) -> None:
        """The caller may cut it again."""
        self._interruptible = True

    @property
    def interruptible(self) -> bool:
        """The caller may cut what is being said."""
        return self._interruptible

    @property
    def tapped(self) -> bool:
        """Somebody takes the caller's frames."""
        return self._tap is not None

    @contextmanager
    def tap(self, tap: Tap) -> Iterator[None]:
        """Within it, `tap` takes the caller's frames, on the hot path."""
        self._tap = tap
        try:
            yield
        finally:
            self._tap = None

    def restart_silence(self) -> None:
        """The caller's silence counts from now."""
        self.last_sound = self._clocks.monotonic()

    def forget_turn(self) -> None:
        """What the caller began to say is nothing (the call was held)."""
        if self.turns.speaking and self._heeded:
            self._speech.clear()
            if self._words is not None:
                self._words.forget()
        self._heeded = False
        self.turns.reset()
        self.restart_silence()

    # ── the hot path ─────────────────────────────────────────────────────────────────────────────────

    def rests(self, judged: float | None, now: float, *, sending: bool) -> bool:
        """Whether nobody needs the caller's 20 ms, and so they need not come to `hear`. The rest is as
        there."""
        if self._tap is not None:
            return False
        if not sending:
            self.last_sound = now
            return True
        turns = self.turns
        if turns.speaking or not (turns.resting if judged is None else turns.rests(judged)):
            return False
        if self._playout.busy:
            self.last_sound = now
        return True

    def hear(
        self,
        frame: Floats | None,
        judged: float | None,
        now: float,
        *,
        sending: bool,
        raw: Floats | None = None,
    ) -> None:
        """One 20 ms frame from the caller; see `Turns.hear`. `now` is monotonic; without `sending` the call
        is held: what arrives is music, and nobody hears us. `raw`: the frame as it came, when our echo was
        taken out of it; that is what is tapped."""
        if self._tap is not None:
            self._tap(frame if raw is None else raw)
        if not sending:
            self.last_sound = now
            return
        busy = self._playout.busy
        speech = self._speech
        words = self._words if speech.wants_words else None
        teller = speech if words is None else words
        event = self.turns.hear(
            frame,
            judged,
            we_talk=busy,
            early=teller.early,
            knows_asides=teller.knows_asides,
            wordless_s=0.0 if words is None else words.wordless_s,
        )
        if busy or self.turns.speaking:
            self.last_sound = now
        if event is TurnEvent.ONSET:
            self._heeded = self._listening and (self._interruptible or not busy)
        if not self._heeded:
            self.turns.take()
            if event is not None and self._noticer is not None:
                self._noticer(event)
            return
        said: Words | None = None
        if event is not None or self.turns.frames_waiting >= APPEND_FRAMES or self.turns.pausing:
            sound = self.turns.take()
            if sound is not None:
                speech.append(sound)
            if words is not None:
                said = words.hear(sound, event, self.turns)
            if self._attendant is not None:
                self._attendant(sound, event, self.turns.speech_s)
        if event is not None:
            self._inbox.post(CallerTurn(event, now, self.turns.duration_s, self.turns.quiet_s, said))
