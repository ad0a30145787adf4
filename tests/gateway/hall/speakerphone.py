"""A telephone with a loudspeaker and no echo canceller, in a room; and what is said over it.

The room: mild distortion of the loudspeaker, an impulse response that decays by 60 dB within 250 ms, a delay
that may jump or drift, noise at -62 dBFS, and on lines of 8 kHz G.711 in both directions. The hall is the
real one with the real judge of speech, in a time of its own.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import numpy as np
import soxr

from gateway.dialplan import Answer, Converse
from gateway.hall.media.audio import FRAME_S, HOUSE_HZ, Floats
from tests.gateway.hall import virtual_hall
from tests.gateway.hall.virtual_hall import DISCLOSE, House, Phone
from watermark.pcm import bytes_from_float, float_from_bytes
from watermark.sound import read, through_mu_law

NOISE = 10.0 ** (-62 / 20)
REVERBERATION_S = 0.25
LOUD = 10.0 ** (-20 / 20)
"""What everybody speaks at: -20 dBFS, rms of the loud parts."""

OVER_S = 0.7
"""A turn that began within the grace may end so much later: .35 s of quiet end it."""

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

    def __init__(self, call_id: str, number: int, slot: int) -> None:
        super().__init__(call_id, number, slot)
        self.room: Room | None = None
        self.rate_hz = 8_000
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
    """At `LOUD`, from its first sound to its last."""
    peak = np.abs(voice).max()
    loud = np.flatnonzero(np.abs(voice) > 0.1 * peak)
    voice = voice[loud[0] : loud[-1]]
    loud = voice[np.abs(voice) > 0.1 * peak]
    return np.asarray(voice * (LOUD / np.sqrt(np.mean(loud**2))), np.float32)


@functools.cache
def prompts(folder: Path, least_s: float = 1.5, most_s: float = 9.0) -> tuple[Floats, ...]:
    """Human prompts, float32 8 kHz at `LOUD`."""
    found = []
    for path in sorted(folder.glob("*.wav")):
        voice = read(path).channels[0]
        if least_s < len(voice) / 8_000 < most_s:
            found.append(levelled(voice))
    return tuple(found)


def at_rate(voice: Floats, rate_hz: int) -> Floats:
    """8 kHz sound at another rate."""
    return voice if rate_hz == 8_000 else np.asarray(soxr.resample(voice, 8_000, rate_hz), np.float32)


def talk(folder: Path, seed: int, seconds: float) -> Floats:
    """One prompt after the other with .25 s between them, float32 24 kHz."""
    chance = np.random.default_rng(seed)
    said = prompts(folder)
    pieces: list[Floats] = []
    while sum(map(len, pieces)) < seconds * 8_000:
        pieces += [said[chance.integers(len(said))], np.zeros(2_000, np.float32)]
    return at_rate(np.concatenate(pieces)[: round(seconds * 8_000)], HOUSE_HZ)


# ── calls ────────────────────────────────────────────────────────────────────────────────────────────────


def steady(seconds: float) -> Delay:
    """Always this delay."""
    return lambda _: seconds


@dataclass(frozen=True)
class Scene:
    """A call: where its echo comes from, and what the caller says when."""

    level_db: float | None
    """the echo's level under what was played; None: a headset"""
    delay: Delay
    seed: int = 0
    wet: float = 0.1
    rate_hz: int = 8_000
    disclosed: bool = True
    """it begins with a disclosure of 5 s"""
    interrupts: tuple[tuple[float, Floats], ...] = ()
    """seconds after our first sound, and what the caller says over us then (float32 8 kHz)"""
    alarmed: bool = False
    """the guard is on from the beginning to the end, whatever there is"""


@dataclass
class Witnessed:
    """What became of a call; seconds after our first sound."""

    onsets: list[float] = field(default_factory=list)
    turns: list[float] = field(default_factory=list)
    """when they were taken for turns: what we said was cut"""
    ends: list[float] = field(default_factory=list)
    """of those turns; one goes on to the end when there is one less"""
    guarded: list[float] = field(default_factory=list)
    """whenever there was a guard that is on"""

    def false(self, since: float, scene: Scene, until: float = np.inf) -> list[float]:
        """Turns that the caller did not take, and that were not over soon after `since`."""
        return [
            at
            for at, end in zip_longest(self.turns, self.ends, fillvalue=np.inf)
            if end > since + OVER_S
            and at < until
            and not any(begin <= at < begin + len(said) / 8_000 + 1.5 for begin, said in scene.interrupts)
        ]

    def after(self, events: Sequence[float], begin: float, within_s: float = 3.0) -> float:
        """How long after `begin` the first of these events came; infinite when none did."""
        return min((at - begin for at in events if 0 <= at - begin < within_s), default=np.inf)


class Replies:
    """Endless answers of the engine."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._next = 0

    def __bool__(self) -> bool:
        return True

    def pop(self, _: int) -> virtual_hall.Answer:
        self._next = (self._next + 1) % self._count
        return virtual_hall.Answer(f"answer{self._next}")


async def witness(house: House, voice: Path, scenes: Sequence[Scene], seconds: float) -> list[Witnessed]:
    """Has all scenes' calls at once, each talking to its caller for `seconds`. The house must hear by
    `VoiceActivity`. `voice`: folder of the prompts that we speak."""
    words = DISCLOSE.words(cloned=False).split()
    house.engine.sounds.update({word: np.zeros(0, np.float32) for word in words})
    sounds = {words[0]: talk(voice, 1, 5.0), "greeting": talk(voice, 2, seconds)}
    house.engine.sounds.update(sounds | {f"answer{n}": talk(voice, 3 + n, 20.0) for n in range(8)})
    house.engine.answers = Replies(8)  # type: ignore[assignment]  # all that the engine uses of a list
    calls = (_one(house, scene, f"l{scene.rate_hz}-{at // 4}", seconds) for at, scene in enumerate(scenes))
    return list(await asyncio.gather(*calls))


async def _one(house: House, scene: Scene, line: str, seconds: float) -> Witnessed:
    first = (DISCLOSE,) if scene.disclosed else ()
    verbs = (Answer(), *first, Converse(instructions="x", greeting="greeting", silence_s=60.0))
    phone = await house.ring(*verbs, line=line, rate_hz=scene.rate_hz, kind=Speakerphone)
    assert isinstance(phone, Speakerphone)
    phone.rate_hz = scene.rate_hz
    phone.room = Room(scene.rate_hz, scene.seed, level_db=scene.level_db, delay=scene.delay, wet=scene.wet)
    call = house.call(phone)
    await house.until(lambda: phone.heard_s() > 0)
    if scene.alarmed:
        call.seat.echo._start(round(0.2 * 8_000))
    began, seen, waiting = house.loop.time(), Witnessed(), list(scene.interrupts)
    speaking = counts = False
    while (now := house.loop.time() - began) < seconds:
        if scene.alarmed:
            call.seat.echo._unlike = 0  # a look may find a likeness by chance, and the next ones miss it
        if waiting and now >= waiting[0][0]:
            phone.say(at_rate(waiting.pop(0)[1], scene.rate_hz))
        turns = call.ear.turns
        if turns.speaking and not speaking:
            seen.onsets.append(now)
        if turns.speaking and turns.counts and not (speaking and counts):
            seen.turns.append(now)
        if speaking and counts and not turns.speaking:
            seen.ends.append(now)
        speaking, counts = turns.speaking, turns.counts
        if call.seat.echo.on:
            seen.guarded.append(now)
        await asyncio.sleep(FRAME_S)
    return seen
