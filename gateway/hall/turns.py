"""Who speaks: from the caller's frames and Silero's judgement to turns.

`Turns` sees every 20 ms frame of one call and each 32 ms judgement of speech. It returns at most one
`TurnEvent` a frame:

    ONSET   two windows of speech: duck if we are talking
    SPEECH  it lasted `speech_s`: it is a turn, not a cough or an "mm-hm"; whoever talks is cut
    TRIFLE  it ended before that: resume
    END     `endpoint_s` of quiet after speech

and collects the sound of the turn, `preroll_s` before the onset included, for the engine.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np

from gateway.hall.audio import FRAME_S, HOUSE_HZ, VAD_HZ, VAD_WINDOW, Floats

WINDOW_S: Final = VAD_WINDOW / VAD_HZ
MAX_TURN_S: Final = 60.0
"""Longest utterance an engine takes (the contract); a longer one is ended there."""


class TurnEvent(Enum):
    ONSET = "onset"
    SPEECH = "speech"
    TRIFLE = "trifle"
    END = "end"


@dataclass(frozen=True, slots=True)
class TurnRules:
    """Times in seconds. `on` and `off` are probabilities of speech."""

    on: float = 0.5
    off: float = 0.35
    onset_s: float = 2 * WINDOW_S
    speech_s: float = 0.32
    """While we talk, shorter sounds are trifles; while we listen, anything past the onset is a turn."""
    endpoint_s: float = 0.35
    preroll_s: float = 0.3
    quiet_share: float = 0.1
    """A frame below this share of the turn's loudest (-20 dB) is quiet once the judge agrees."""
    hang_s: float = 0.16
    """So much later than the sound ends does the judge notice; the caller need not wait for that."""


class Turns:
    """One caller's turns. Times are of this call's own frame clock."""

    def __init__(self, rules: TurnRules | None = None) -> None:
        self.rules = rules or TurnRules()
        self._preroll: deque[Floats] = deque(maxlen=round(self.rules.preroll_s / FRAME_S))
        self._sound: list[Floats] = []
        self._speech_s = 0.0
        self._quiet_s = 0.0
        self._run_s = 0.0
        self._since_s = 0.0
        self._loudest = 0.0
        self._since_loud_s = 0.0
        self._over_us = False
        """The turn began while we talked: what was over before we stopped may still be a cough."""
        self.speaking = False
        """The caller is in a turn (from onset to its end)."""
        self.counts = False
        """The turn has lasted long enough to be one."""

    @property
    def duration_s(self) -> float:
        """From the onset to the last speech of the present turn."""
        return max(0.0, self._since_s - self._quiet_s)

    @property
    def quiet_s(self) -> float:
        """How long it has been quiet, in the present turn."""
        return self._quiet_s

    @property
    def frames_waiting(self) -> int:
        """Frames of the turn that nobody took yet."""
        return len(self._sound)

    def hear(self, frame: Floats | None, judged: float | None, *, we_talk: bool) -> TurnEvent | None:
        """One frame of the caller (float32 `(480,)` at 24 kHz; None when nothing came) and, when a window
        was completed by it, the probability of speech."""
        sound = frame if frame is not None else np.zeros(round(HOUSE_HZ * FRAME_S), np.float32)
        if self.speaking:
            self._sound.append(sound)
            self._since_s += FRAME_S
            self._weigh(sound)
        else:
            self._preroll.append(sound)
        if judged is None:
            if frame is not None or not self.speaking:
                return None
            judged, window_s = 0.0, FRAME_S  # nothing arrives any more: that is quiet too
        else:
            window_s = WINDOW_S
        return self._judge(judged, window_s, we_talk)

    def _weigh(self, sound: Floats) -> None:
        power = float(np.dot(sound, sound))
        self._loudest = max(self._loudest, power)
        loud = power > self._loudest * self.rules.quiet_share**2
        self._since_loud_s = 0.0 if loud else self._since_loud_s + FRAME_S

    def _judge(self, judged: float, window_s: float, we_talk: bool) -> TurnEvent | None:
        rules = self.rules
        if judged >= rules.on:
            self._run_s += window_s
            self._quiet_s = 0.0
            if self.speaking:
                self._speech_s += window_s
        elif judged < rules.off:
            self._run_s = 0.0
            if self._quiet_s == 0.0:
                self._quiet_s = min(self._since_loud_s, rules.hang_s)
            self._quiet_s += window_s
        if not self.speaking:
            if self._run_s < rules.onset_s - 1e-9:
                return None
            self.speaking, self.counts = True, False
            self._over_us = we_talk
            self._speech_s = self._since_s = self._run_s
            self._quiet_s = self._loudest = self._since_loud_s = 0.0
            self._sound = list(self._preroll)
            self._preroll.clear()
            return TurnEvent.ONSET
        if not self.counts and (
            self._speech_s >= rules.speech_s or (not we_talk and (judged >= rules.on or not self._over_us))
        ):
            self.counts = True
            return TurnEvent.SPEECH
        if self._quiet_s >= rules.endpoint_s or self._since_s >= MAX_TURN_S:
            self.speaking = False
            return TurnEvent.END if self.counts else TurnEvent.TRIFLE
        return None

    def take(self) -> Floats | None:
        """The turn's sound since the last `take`, float32 24 kHz; None when there is none."""
        if not self._sound:
            return None
        sound, self._sound = np.concatenate(self._sound), []
        return sound

    def reset(self) -> None:
        """Forgets the present turn (the call was held, or the engine was lost)."""
        self.speaking = self.counts = False
        self._sound = []
        self._preroll.clear()
        self._run_s = self._quiet_s = self._speech_s = 0.0
