"""A telephone with a loudspeaker and no echo canceller, in a room; and what is said over it.

The room: mild distortion of the loudspeaker, an impulse response that decays by 60 dB within 250 ms, a delay
that may jump or drift, noise at -62 dBFS, and on lines of 8 kHz G.711 in both directions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gateway.hall.audio import FRAME_S, Floats
from tests.gateway.hall.virtual_hall import Phone
from watermark.pcm import bytes_from_float, float_from_bytes
from watermark.sound import read, through_mu_law

NOISE = 10.0 ** (-62 / 20)
REVERBERATION_S = 0.25
LOUD = 10.0 ** (-20 / 20)
"""What everybody speaks at: -20 dBFS, rms of the loud parts."""

Delay = Callable[[float], float]
"""Seconds of the echo's way at a time of the call (seconds)."""


class Room:
    """From the loudspeaker to the microphone, frame by frame."""

    def __init__(
        self, rate_hz: int, seed: int, *, level_db: float | None, delay: Delay, wet: float = 0.1
    ) -> None:
        """`level_db`: the echo's level under what was played; None: a headset. `wet`: how strong the first
        reflections are beside the direct way."""
        chance = np.random.default_rng(seed)
        self._rate_hz = rate_hz
        self._frame = round(rate_hz * FRAME_S)
        taps = round(REVERBERATION_S * rate_hz)
        response = chance.standard_normal(taps) * 10.0 ** (-3 * np.arange(taps) / taps)
        response *= wet / np.sqrt(rate_hz / 8_000)
        response[0] = 1.0
        response /= np.sqrt(np.sum(response**2))
        self._gain = 0.0 if level_db is None else 10.0 ** (level_db / 20)
        self._size = 1 << (taps + self._frame).bit_length()
        self._response = np.fft.rfft(response, self._size)
        self._taps = taps
        self._delay = delay
        self._chance = chance
        self._at = 0
        """samples since the call began"""
        self._echo = np.zeros(4 * rate_hz)
        """what comes back without a delay, the last seconds and the tail of what is still to come; the
        present frame begins at three quarters"""

    def turn(self, played: Floats | None) -> Floats:
        """20 ms: takes what the loudspeaker plays; returns what the microphone hears, echo and noise."""
        frame, echo = self._frame, self._echo
        here = 3 * self._rate_hz
        echo[:-frame] = echo[frame:]
        echo[-frame:] = 0.0
        if played is not None and self._gain:
            bent = np.tanh(2.0 * played) / 2.0
            tail = np.fft.irfft(np.fft.rfft(bent, self._size) * self._response, self._size)
            span = min(frame + self._taps, len(echo) - here)
            echo[here : here + span] += self._gain * tail[:span]
        times = self._at + np.arange(frame)
        self._at += frame
        late = [self._delay(float(at) / self._rate_hz) for at in (times[0], times[-1])]
        places = here + np.arange(frame) - np.linspace(late[0], late[1], frame) * self._rate_hz
        first = int(places.min())
        heard = echo[first : first + 2 * frame]
        noise = NOISE * self._chance.standard_normal(frame)
        return (np.interp(places - first, np.arange(len(heard)), heard) + noise).astype(np.float32)


class Speakerphone(Phone):
    """A caller in a room; `room` may be set after the call began."""

    room: Room | None = None
    rate_hz = 8_000

    def __init__(self, call_id: str, number: int, slot: int) -> None:
        super().__init__(call_id, number, slot)
        self._voice = np.zeros(0, np.float32)
        self._played: bytes | None = None

    def say(self, voice: Floats) -> None:
        """The caller says this from now on (float32 at the line's rate)."""
        self._voice = voice

    @property
    def speaking(self) -> bool:
        return len(self._voice) > 0

    def hear(self, sound: bytes | None) -> None:
        self._played = sound

    def next_sound(self, frame: int) -> bytes:
        assert self.room is not None
        played = None if self._played is None else self._coded(float_from_bytes(self._played))
        sound = self.room.turn(played)
        voice, self._voice = self._voice[:frame], self._voice[frame:]
        sound[: len(voice)] += voice
        return bytes_from_float(self._coded(sound))

    def _coded(self, sound: Floats) -> Floats:
        return through_mu_law(sound) if self.rate_hz == 8_000 else sound


# ── what is said ─────────────────────────────────────────────────────────────────────────────────────────


def levelled(voice: Floats) -> Floats:
    """At `LOUD`."""
    loud = voice[np.abs(voice) > 0.1 * np.abs(voice).max()]
    return np.asarray(voice * (LOUD / np.sqrt(np.mean(loud**2))), np.float32)


@functools.cache
def prompts(folder: Path) -> tuple[tuple[str, Floats], ...]:
    """Human prompts of 1.5 to 9 s and their names, float32 8 kHz at `LOUD`."""
    found = []
    for path in sorted(folder.glob("*.wav")):
        recording = read(path)
        voice = recording.channels[0]
        if 1.5 < len(voice) / recording.rate_hz < 9.0:
            found.append((path.stem, levelled(voice)))
    return tuple(found)
