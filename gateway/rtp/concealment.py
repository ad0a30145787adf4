"""What is heard in the place of sound that was lost: the last period of the voice, again and again.

The method is that of ITU-T G.711 Appendix I: the pitch is found by correlation, one period is repeated for
10 ms, then two and then three (a single one sounds like a buzzer), and the sound fades to nothing within
60 ms. Where the appendix delays all sound by 3.75 ms to have a smooth beginning, the first quarter of a
period is blended here with the last real samples played backwards, and nothing is delayed.

Sound comes and goes as int16 at `rate_hz`; positions and lengths are samples.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from gateway.rtp.g711 import Pcm
from watermark.pcm import Floats, float_from_int16, int16_from_float

PAST_S: Final = 0.04875
"""How much of what was heard is needed: three of the longest periods and a quarter."""
SHORTEST_S: Final = 0.005
LONGEST_S: Final = 0.015
"""Periods of a voice: 200 to 66 Hz; a higher one is found at a multiple of its own."""
COMPARED_S: Final = 0.02
STEP_S: Final = 0.01
"""After each, one period more is repeated, and the sound is fainter by a fifth of its loudness."""
FADES: Final = 5
"""Steps that the fading takes, after the first step at full loudness."""
MOST_PERIODS: Final = 3
BLEND_S: Final = 0.004
MOST_BLEND_S: Final = 0.01
QUIET: Final = 1e-6
"""Energy of 20 ms under which there is no pitch to find."""


def past_samples(rate_hz: int) -> int:
    """The length of `past` for `Concealment`."""
    return round(PAST_S * rate_hz)


class Concealment:
    """One call's. `conceal` begins with what was heard before; `resume` leads back to what is heard now."""

    __slots__ = (
        "_blend",
        "_most_blend",
        "_past",
        "_period",
        "_periods",
        "_place",
        "_rate_hz",
        "_ready",
        "_step",
        "_steps",
        "lost",
    )

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._step = round(STEP_S * rate_hz)
        self._blend = round(BLEND_S * rate_hz)
        self._most_blend = round(MOST_BLEND_S * rate_hz)
        self.lost = 0
        """concealed since the last real sound; 0: nothing is being concealed"""
        self._past: Floats = np.zeros(0, np.float32)
        self._ready = self._past
        """made, and not heard yet"""
        self._steps = 0
        """made since the loss began"""
        self._period = 0
        self._periods = 1
        self._place = 0
        """within the periods that are repeated"""

    def reset(self) -> None:
        """What comes next is not a continuation of anything."""
        self.lost = 0

    def conceal(self, past: Pcm, count: int) -> Pcm:
        """The next `count` samples. `past` is what was heard last, `past_samples` long; it is looked at when
        a loss begins."""
        if self.lost == 0:
            self._begin(past)
        return int16_from_float(self._onward(count))

    def resume(self, sound: Pcm) -> Pcm:
        """Real sound again: its first milliseconds blended with how the concealed sound would go on."""
        longer = self._blend * max(0, self.lost // self._step - 1)
        length = min(self._blend + longer, self._most_blend, len(sound))
        going = self._onward(length)
        self.lost = 0
        up = np.linspace(0.0, 1.0, length, endpoint=False, dtype=np.float32)
        mixed = float_from_int16(sound[:length]) * up + going * (1.0 - up)
        return np.concatenate((int16_from_float(mixed), sound[length:]))

    def _onward(self, count: int) -> Floats:
        """The next `count` samples that stand in for what was lost."""
        while len(self._ready) < count:
            self._ready = np.concatenate((self._ready, self._next_step()))
        going, self._ready = self._ready[:count], self._ready[count:]
        self.lost += count
        return going

    def _begin(self, past: Pcm) -> None:
        self._past = float_from_int16(past)
        self._period = _period(self._past, self._rate_hz)
        self._periods, self._place, self._steps = 1, 0, 0
        self._ready = self._past[:0]

    def _next_step(self) -> Floats:
        """10 ms more."""
        step, self._steps = self._steps, self._steps + 1
        if step > FADES:
            return np.zeros(self._step, np.float32)
        if step == 0:
            before = self._past[::-1]
        elif self._periods < MOST_PERIODS:
            place = self._place
            before = self._repeat(self._period // 4)
            # one period more from here on, at the same place within a period
            self._periods, self._place = self._periods + 1, place % self._period
        else:
            before = self._past[:0]
        sound = self._repeat(self._step)
        self._blend_in(sound, before)
        if step > 0:
            sound *= 1.0 - (step - 1 + np.arange(self._step, dtype=np.float32) / self._step) / FADES
        return sound

    def _repeat(self, count: int) -> Floats:
        """The next samples of the periods that go round."""
        length, quarter = self._periods * self._period, self._period // 4
        around = self._past[-length:].copy()
        # the end leads into the beginning: it is blended with what came before the beginning
        up = np.linspace(0.0, 1.0, quarter, endpoint=False, dtype=np.float32)
        around[length - quarter :] *= 1.0 - up
        around[length - quarter :] += up * self._past[-length - quarter : -length]
        places = (self._place + np.arange(count)) % length
        self._place = (self._place + count) % length
        repeated: Floats = around[places]
        return repeated

    def _blend_in(self, sound: Floats, before: Floats) -> None:
        """From `before` into `sound`, over a quarter of a period."""
        length = min(self._period // 4, len(sound), len(before))
        up = np.linspace(0.0, 1.0, length, endpoint=False, dtype=np.float32)
        sound[:length] = sound[:length] * up + before[:length] * (1.0 - up)


def _period(past: Floats, rate_hz: int) -> int:
    """The lag at which the last 20 ms are most like what came before them."""
    shortest, longest = round(SHORTEST_S * rate_hz), round(LONGEST_S * rate_hz)
    compared = round(COMPARED_S * rate_hz)
    recent = past[-compared:]
    if float(recent @ recent) < QUIET:
        return longest
    before = past[-compared - longest : -shortest]
    likeness = np.correlate(before, recent, "valid")
    squares = np.concatenate((np.zeros(1, np.float64), np.cumsum(before.astype(np.float64) ** 2)))
    energy = squares[compared:] - squares[:-compared]
    best = int(np.argmax(likeness / np.sqrt(np.maximum(energy, QUIET))))
    return longest - best
