"""Who speaks: from the caller's frames, Silero's judgement and the engine's early hearing to turns.

`Turns` sees every 20 ms frame of one call and each 32 ms judgement of speech. It returns at most one
`TurnEvent` a frame:

    ONSET   two windows of speech: duck if we are talking
    SPEECH  it is a turn, not a cough or an "mm-hm"; whoever talks is cut
    TRIFLE  it was one of these: resume
    END     quiet after speech, for as long as the words ask for

and collects the sound of the turn, `preroll_s` before the onset included, for the engine.

Where the engine tells what it hears at a pause (`EarlyHearing`), its words decide how long the pause may
last, and whether what was said over our voice is a turn. Words are good until the caller speaks on. Without
words the clock decides, as it does for an engine that tells nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np

from gateway.hall.media.audio import FRAME_S, HOUSE_HZ, VAD_HZ, VAD_WINDOW, Floats
from model.api import EarlyHearing

WINDOW_S: Final = VAD_WINDOW / VAD_HZ
EARLY_QUIET_S: Final = (0.06, 0.24)
"""The quiet around the tenth of a second after which an engine understands what it has."""
SOUNDS_S: Final = 0.06
"""Less than this since the last loud frame, and somebody sounds; the judge says so for .16 s more."""
SAME_S: Final = 0.02
"""Engine and hall find the same end of the same sound, within a frame."""
NO_SOUND: Final = np.zeros(round(HOUSE_HZ * FRAME_S), np.float32)
"""20 ms in which nothing came."""
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
    """While we talk, shorter sounds are trifles, unless they are a sure answer; while we listen, anything
    past the onset is a turn."""
    barge_s: float = 0.64
    """While we talk and the engine knows asides, speech that still sounds after so long is a turn whatever
    its words are; shorter speech waits for them."""
    longest_s: float = 0.96
    """After so long it is one although it may have ended."""
    wordless_s: float = 4.0
    """While we talk and the ears find no words in what goes on, it is a turn after so long all the same."""
    fresh_s: float = 0.6
    """That there were no words says nothing of what was said so long after them."""
    trifle_s: float = 0.35
    """Quiet after which they are waited for no longer."""
    answered_s: float = 0.2
    """Quiet that ends a turn once a sure answer has been heard, …"""
    plain_s: float = 0.5
    """… that ends one of whose words nothing is known, …"""
    unfinished_s: float = 1.1
    """… and one whose words ask for more: "my number is five"."""
    preroll_s: float = 0.3
    quiet_share: float = 0.1
    """A frame below this share of the turn's loudest (-20 dB) is quiet once the judge agrees."""
    hang_s: float = 0.16
    """So much later than the sound ends does the judge notice; the caller need not wait for that."""


class Turns:
    """One caller's turns. Times are of this call's own frame clock."""

    def __init__(self, rules: TurnRules | None = None) -> None:
        self.rules = rules or TurnRules()
        self.preroll_frames = round(self.rules.preroll_s / FRAME_S)
        self._preroll: deque[Floats] = deque(maxlen=self.preroll_frames)
        self._sound: list[Floats] = []
        self._speech_s = 0.0
        self._quiet_s = 0.0
        self._run_s = 0.0
        self._since_s = 0.0
        self._loudest = 0.0
        self._since_loud_s = 0.0
        self._over_us = False
        """The turn began while we talked: what was over before we stopped may still be a cough."""
        self._past_us = False
        """… and it went on after we stopped"""
        self._wordless = False
        """the ears find no words in what is being said"""
        self._length_s = 0.0
        """of the turn's sound so far, the preroll included"""
        self.speaking = False
        """The caller is in a turn (from onset to its end)."""
        self.counts = False
        """The turn has lasted long enough to be one."""
        self.resting = False
        """Nobody says anything, and the frames that were not heard for that are not in the preroll."""

    @property
    def duration_s(self) -> float:
        """From the onset to the last speech of the present turn."""
        return max(0.0, self._since_s - self._quiet_s)

    @property
    def speech_s(self) -> float:
        """How much of the present turn was speech."""
        return self._speech_s

    @property
    def quiet_s(self) -> float:
        """How long it has been quiet, in the present turn."""
        return self._quiet_s

    @property
    def is_open(self) -> bool:
        """The present turn began over our voice, and nobody knows yet whether it is one."""
        return self.speaking and self._over_us and not self.counts

    @property
    def frames_waiting(self) -> int:
        """Frames of the turn that nobody took yet."""
        return len(self._sound)

    def covered_by(self, early: EarlyHearing) -> bool:
        """Whether nothing was said after what `early` is of."""
        return early.heard_s >= self._length_s - self._quiet_s - SAME_S

    @property
    def pausing(self) -> bool:
        """The sound has just ended, and an engine that hears early waits for what is left of it."""
        return self.speaking and EARLY_QUIET_S[0] <= self._since_loud_s + 1e-9 <= EARLY_QUIET_S[1]

    def hear(
        self,
        frame: Floats | None,
        judged: float | None,
        *,
        we_talk: bool,
        early: EarlyHearing | None = None,
        knows_asides: bool = False,
        wordless_s: float = 0.0,
    ) -> TurnEvent | None:
        """One frame of the caller (float32 `(480,)` at 24 kHz; None when nothing came) and, when a window
        was completed by it, the probability of speech. `early`: what the engine heard last of the present
        turn; `knows_asides`: it will tell which words are nothing to stop for; `wordless_s`: so much of the
        turn, from its first sample, holds none."""
        self._wordless = wordless_s > 0.0 and self._length_s - self.rules.fresh_s <= wordless_s
        sound = frame if frame is not None else NO_SOUND
        if self.speaking:
            self._sound.append(sound)
            self._length_s += FRAME_S
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
        return self._judge(judged, window_s, we_talk, early, knows_asides)

    def rests(self, judged: float | None) -> bool:
        """Whether nobody is in a turn and none begins, with what was judged of these 20 ms (None: nothing).
        Then nobody needs to `hear` them: most frames of most calls."""
        if self.speaking:
            return False
        if judged is not None:
            self.resting = judged < self.rules.off
            if self.resting:
                self._run_s = 0.0
        return self.resting

    def wake(self, frames: Iterable[Floats]) -> None:
        """Something stirs after a rest: `frames` (float32 `(480,)`) are what came before, the newest last."""
        self.resting = False
        self._preroll.clear()
        self._preroll.extend(frames)

    def _weigh(self, sound: Floats) -> None:
        power = float(np.dot(sound, sound))
        self._loudest = max(self._loudest, power)
        loud = power > self._loudest * self.rules.quiet_share**2
        self._since_loud_s = 0.0 if loud else self._since_loud_s + FRAME_S

    def _judge(
        self, judged: float, window_s: float, we_talk: bool, early: EarlyHearing | None, knows_asides: bool
    ) -> TurnEvent | None:
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
            self._over_us, self._past_us = we_talk, False
            self._speech_s = self._since_s = self._run_s
            self._quiet_s = self._loudest = self._since_loud_s = 0.0
            self._sound = list(self._preroll)
            self._length_s = len(self._sound) * FRAME_S
            self._preroll.clear()
            return TurnEvent.ONSET
        if early is not None and not self.covered_by(early):
            early = None  # the caller has spoken on
        if not self.counts:
            counts = self._is_turn(judged, we_talk, early, knows_asides)
            if counts:
                self.counts = True
                return TurnEvent.SPEECH
            over = counts is False or self._quiet_s >= rules.trifle_s or self._since_s >= MAX_TURN_S
        else:
            over = self._quiet_s >= self._patience_s(early) or self._since_s >= MAX_TURN_S
        if over:
            self.speaking = False
            return TurnEvent.END if self.counts else TurnEvent.TRIFLE
        return None

    def _is_turn(
        self, judged: float, we_talk: bool, early: EarlyHearing | None, knows_asides: bool
    ) -> bool | None:
        """Whether what the caller says is a turn; None as long as that is open."""
        rules = self.rules
        self._past_us = self._past_us or (not we_talk and judged >= rules.on)
        long_enough = self._speech_s >= rules.speech_s or self._past_us
        if not self._over_us:
            return True if long_enough or not we_talk else None
        if not knows_asides:
            return True if long_enough else None
        if self._wordless and self._speech_s < rules.wordless_s:
            return False if early is not None and early.aside and self._quiet_s > 0.0 else None
        if self._speech_s >= (rules.barge_s if self._since_loud_s <= SOUNDS_S else rules.longest_s) - 1e-9:
            return True
        if self._quiet_s == 0.0:
            return None
        if early is not None:
            if early.aside:
                return False
            return True if long_enough or early.state == "answered" else None
        return True if long_enough and self._quiet_s >= rules.trifle_s else None

    def _patience_s(self, early: EarlyHearing | None) -> float:
        """Quiet that ends the turn now."""
        match early.state if early is not None else "plain":
            case "answered":
                return self.rules.answered_s
            case "unfinished":
                return self.rules.unfinished_s
        return self.rules.plain_s

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
