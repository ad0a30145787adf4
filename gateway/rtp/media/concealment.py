"""What is heard in the place of sound that was lost: the last period of the voice, again and again.

It is the method of ITU-T G.711 Appendix I, made simpler where PESQ did not mind: the pitch is found by
correlation, one period is repeated, and the sound fades to nothing within 60 ms. Where the appendix delays
all sound by 3.75 ms to have a smooth beginning, the first quarter of a period is blended here with the last
real samples played backwards, and nothing is delayed.

Sound comes and goes as int16 at `rate_hz`; positions and lengths are samples.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from gateway.rtp.payloads.g711 import Pcm
from watermark.pcm import Floats, float_from_int16, int16_from_float

SHORTEST_S: Final = 0.003
LONGEST_S: Final = 0.015
"""Periods of a voice, 333 to 66 Hz, and multiples of them."""
COMPARED_S: Final = 0.01
"""How much of what was heard last is looked for before itself."""
PAST_S: Final = LONGEST_S + COMPARED_S
"""How much of what was heard is needed; the longest period and its quarter are less."""
STEP_S: Final = 0.01
"""After the first of them the sound gets fainter, by a fifth of its loudness in each."""
FADES: Final = 5
"""Steps that the fading takes, after the first step at full loudness."""
BLEND_S: Final = 0.004
MOST_BLEND_S: Final = 0.01
QUIET: Final = 1e-6
"""Energy of `COMPARED_S` under which there is no pitch to find."""


def past_samples(rate_hz: int) -> int:
    """The length of `past` for `Concealment`."""
    return round(PAST_S * rate_hz)


def future_samples(rate_hz: int) -> int:
    """The least length of `future` for `Concealment.bridge`."""
    return round(2 * COMPARED_S * rate_hz)


class Concealment:
    """One call's. `conceal` begins with what was heard before; `resume` leads back to what is heard now."""

    __slots__ = ("_around", "_began", "_period", "_place", "_rate_hz", "_ready", "_step", "lost")

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._step = round(STEP_S * rate_hz)
        self.lost = 0
        """concealed since the last real sound; 0: nothing is being concealed"""
        self._around: Floats = np.zeros(1, np.float32)
        """the period that goes round"""
        self._began = self._around
        """how the last real sound would go on, played backwards; a quarter of a period"""
        self._ready = self._around
        """made, and not heard yet"""
        self._place = 0
        """samples made since the loss began"""

    def reset(self) -> None:
        """What comes next is not a continuation of anything."""
        self.lost = 0

    def conceal(self, past: Pcm, count: int) -> Pcm:
        """The next `count` samples. `past` is what was heard last, `past_samples` long; it is looked at when
        a loss begins."""
        if self.lost == 0:
            self._begin(past)
        return int16_from_float(self._onward(count))

    def bridge(self, past: Pcm, future: Pcm, count: int) -> Pcm:
        """The `count` samples between what was heard and what is known to come: from the voice as it would go
        on into the voice as it would have come, the same thing backwards. Nothing is concealed after it.

        `future` is `future_samples` long at least.
        """
        on = self._onward(count) if self.lost else self._begun(past, count)
        self.lost = 0
        back = self._begun(future[future_samples(self._rate_hz) - 1 :: -1], count)
        self.lost = 0
        return int16_from_float(_blended(on, back[::-1]))

    def _begun(self, past: Pcm, count: int) -> Floats:
        self._begin(past)
        return self._onward(count)

    def resume(self, sound: Pcm) -> Pcm:
        """Real sound again: its first milliseconds blended with how the concealed sound would go on."""
        longer_s = BLEND_S * max(0, self.lost // self._step - 1)
        length = min(round(min(BLEND_S + longer_s, MOST_BLEND_S) * self._rate_hz), len(sound))
        mixed = _blended(self._onward(length), float_from_int16(sound[:length]))
        self.lost = 0
        return np.concatenate((int16_from_float(mixed), sound[length:]))

    def _onward(self, count: int) -> Floats:
        """The next `count` samples that stand in for what was lost."""
        while len(self._ready) < count:
            self._ready = np.concatenate((self._ready, self._next_step()))
        going, self._ready = self._ready[:count], self._ready[count:]
        self.lost += count
        return going

    def _begin(self, past: Pcm) -> None:
        heard = float_from_int16(past)
        period = _period(heard, self._rate_hz)
        quarter = period // 4
        around = heard[-period:].copy()
        # its end leads into its beginning, and so into what came before the beginning
        around[-quarter:] = _blended(around[-quarter:], heard[-period - quarter : -period])
        self._around, self._began = around, heard[: -quarter - 1 : -1]
        self._ready, self._place = heard[:0], 0

    def _next_step(self) -> Floats:
        """10 ms more."""
        first, self._place = self._place, self._place + self._step
        fainter = first // self._step - 1
        if fainter >= FADES:
            return np.zeros(self._step, np.float32)
        sound: Floats = self._around[np.arange(first, self._place) % len(self._around)]
        if first == 0:
            length = len(self._began)
            sound[:length] = _blended(self._began, sound[:length])
        else:
            sound *= 1.0 - (fainter + np.arange(self._step, dtype=np.float32) / self._step) / FADES
        return sound


def _blended(one: Floats, other: Floats) -> Floats:
    """From one sound into another of the same length."""
    up = np.linspace(0.0, 1.0, len(one), endpoint=False, dtype=np.float32)
    both: Floats = one * (1.0 - up) + other * up
    return both


def _period(past: Floats, rate_hz: int) -> int:
    """The lag at which the last samples are most like what came before them."""
    compared, shortest = round(COMPARED_S * rate_hz), round(SHORTEST_S * rate_hz)
    longest = len(past) - compared
    recent = past[-compared:]
    if float(recent @ recent) < QUIET:
        return longest
    before = past[-compared - longest : -shortest]
    likeness = np.correlate(before, recent, "valid")
    squares = np.concatenate((np.zeros(1, np.float64), np.cumsum(before.astype(np.float64) ** 2)))
    energy = squares[compared:] - squares[:-compared]
    best = int(np.argmax(likeness / np.sqrt(np.maximum(energy, QUIET))))
    return longest - best  # of multiples the longest, which sounds less like a buzzer
