"""Marking sound: keyed noise under speech, never the same twice.

A key of version 2 first has the speech's bands swell and sink (`envelope.marker`), and its noise is .8 as
loud; what follows is the noise. Each 10 ms hop adds one 20 ms frame of the call's chips (`carrier`), every
bin at a level that follows the speech: `alpha * sqrt(|S| * rms)`, half-way in decibels between the bin's own
magnitude and the frame's level. So the mark fills the valleys between strong partials, where it is masked
and a codec still carries it. The level of a frame is taken from the 20 ms that end 10 ms into it: nothing
needs to be awaited when sound comes in whole hops.

Hot path (`MarkerBank.mark`): numpy over all calls, no locks, no logs; only exactly rounded operations, so
that a call marked in a batch gets the same samples as one marked alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watermark import carrier, code
from watermark.carrier import BIN_HZ, BINS, FIRST_BIN, HOPS_HZ, PILOT
from watermark.envelope.marker import EnvelopeBank
from watermark.errors import MarkError
from watermark.frames import _SEAL, RATE_HZ, MarkedFrame
from watermark.keys import MarkKey

MARK_DELAY_S: Final = 0.0
"""Delay of `MarkerBank`, whose frames are whole hops."""
HOP: Final = RATE_HZ // HOPS_HZ
MARKER_DELAY_S: Final = 1 / HOPS_HZ
"""Delay of `Marker`, which takes frames of any length and waits for a hop to be whole."""
SILENCE: Final = 1e-4
"""Frames whose rms is below this (-80 dB) are silence and get no mark."""
FIRST_SLOTS: Final = 16
AHEAD: Final = 128
"""Hops whose chips are drawn at once."""

TILT_HZ: Final = (500.0, 1500.0)
FILL: Final = (0.07, 0.21)
"""`alpha` up to 500 Hz and from 1500 Hz on; between them it rises with the frequency."""
PILOT_FILL: Final = 0.19
"""`alpha` of the pilot: louder than its share, since without it nothing is found."""
CAP: Final = 0.8
"""The carrier's level never exceeds this share of the speech's within 200 Hz."""
BESIDE: Final = 0.8
"""The carrier's level beside an envelope layer, of what it is alone."""

Floats = NDArray[np.float32]
Complexes = NDArray[np.complex64]
Slots = NDArray[np.intp]
Drawn = tuple[Slots | slice, Slots | slice]
"""Slots, and places in what was drawn for each."""

_QUIET, _NEAR, _TINY, _LOW, _HIGH = (
    np.array(value, np.float32) for value in (SILENCE * SILENCE, CAP * CAP / 8, 1e-12, -1, 1)
)
"""Arrays, which cost a ufunc less than Python's numbers."""
_BAND: Final = slice(FIRST_BIN, FIRST_BIN + BINS)
_AROUND: Final = slice(FIRST_BIN - 4, FIRST_BIN + BINS + 4)


@dataclass(frozen=True, slots=True)
class Shape:
    """Windows and levels for one sample rate; `hop` samples in 10 ms."""

    hop: int
    analysis: Floats
    synthesis: Floats
    fill: Floats
    ramp: Floats

    @classmethod
    @lru_cache(maxsize=8)
    def at(cls, rate_hz: int, share: float = 1.0) -> Shape:
        """For a rate, with the carrier at this share of its level."""
        if rate_hz % HOPS_HZ or rate_hz < 8_000:
            raise MarkError(f"cannot mark at {rate_hz} Hz: use a multiple of 100 from 8000 on")
        hop = rate_hz // HOPS_HZ
        length = 2 * hop
        at = (np.arange(length) + 0.5) / length
        hann = 1 - np.cos(2 * np.pi * at)
        hann /= np.sqrt(np.sum(hann**2))
        hz = (FIRST_BIN + np.arange(BINS)) * float(BIN_HZ)
        alpha = np.interp(hz, TILT_HZ, FILL)
        alpha[PILOT] = PILOT_FILL
        return cls(
            hop,
            hann.astype(np.float32),
            (share * np.sin(np.pi * at) * np.sqrt(length) / 2).astype(np.float32),
            np.square(alpha).astype(np.float32),
            (np.arange(1, hop + 1) / hop).astype(np.float32),
        )


def levels(shape: Shape, sound: Floats) -> Floats:
    """The mark's level in each bin of the frames that follow each other in `sound` `(B, n + 1, hop)`, which
    is contiguous: float32 `(B, n, 64)`."""
    calls, hops, hop = sound.shape
    frames: Floats = np.ndarray((calls, hops - 1, 2 * hop), np.float32, sound, strides=sound.strides)
    windowed = frames * shape.analysis
    spectrum = np.fft.rfft(windowed, out=np.empty((calls, hops - 1, hop + 1), np.complex64))
    energy = np.add.reduce(np.square(windowed, out=windowed), axis=2, keepdims=True)
    energy[energy < _QUIET] = 0.0
    squares = np.square(spectrum[:, :, _AROUND].view(np.float32))
    power = squares[:, :, ::2] + squares[:, :, 1::2]
    near = power.reshape(-1)  # as one row: sums that reach over a frame's end are not used
    near = near[:-1] + near[1:]
    near = near[:-2] + near[2:]
    near = near[:-4] + near[4:]  # sums over 8 bins
    near *= _NEAR
    filled = power[:, :, 4:-4] * energy
    np.sqrt(filled, out=filled)
    filled *= shape.fill
    np.minimum(filled, np.ndarray(filled.shape, np.float32, near, strides=power.strides), out=filled)
    level: Floats = np.sqrt(filled, out=filled)
    return level


class MarkerBank:
    """Markers of many calls, in slots. Sound comes in whole hops (multiples of 10 ms) and is not delayed."""

    def __init__(self, key: MarkKey, rate_hz: int = RATE_HZ) -> None:
        self._key = key
        self._shape = Shape.at(rate_hz, BESIDE if key.has_envelope else 1.0)
        self._envelope = (
            EnvelopeBank(key, rate_hz, self._shape.hop, FIRST_SLOTS, AHEAD) if key.has_envelope else None
        )
        self._payloads: dict[int, tuple[int, Floats]] = {}
        self._before: Floats = np.zeros((FIRST_SLOTS, self._shape.hop), np.float32)
        self._tail: Floats = np.zeros((FIRST_SLOTS, self._shape.hop), np.float32)
        self._energy: Floats = np.zeros((FIRST_SLOTS, 2, 1), np.float32)  # of the last two hops
        self._chips: Complexes = np.zeros((FIRST_SLOTS, AHEAD, BINS), np.complex64)
        self._drawn = [0] * FIRST_SLOTS  # the first of the AHEAD hops that `_chips` holds
        self._next = [0] * FIRST_SLOTS  # the next hop, counted from there
        self._free = list(range(FIRST_SLOTS - 1, -1, -1))

    def _grow(self) -> None:
        slots = len(self._next)
        if self._envelope is not None:
            self._envelope.grow()
        self._before = np.concatenate((self._before, np.zeros_like(self._before)))
        self._tail = np.concatenate((self._tail, np.zeros_like(self._tail)))
        self._energy = np.concatenate((self._energy, np.zeros_like(self._energy)))
        self._chips = np.concatenate((self._chips, np.zeros_like(self._chips)))
        self._drawn += [0] * slots
        self._next += [0] * slots
        self._free = list(range(2 * slots - 1, slots - 1, -1))

    def open(self, payload: int, hop: int = 0) -> int:
        """A slot for a call with this payload, which begins here at its hop `hop`: a call that is taken up
        again goes on at the time that it has, so that no chip is used twice.

        Raises `ValueError` for a payload that does not fit, or a hop before the call's beginning.
        """
        if hop < 0:
            raise ValueError(f"hop {hop} lies before the call")
        coded = code.encode(payload)
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self._payloads[slot] = (payload, coded)
        self._before[slot] = self._tail[slot] = 0.0
        self._energy[slot] = 0.0
        self._drawn[slot], self._next[slot] = hop - AHEAD, AHEAD
        if self._envelope is not None:
            self._envelope.hush(slot)
        return slot

    def close(self, slot: int) -> None:
        if self._payloads.pop(slot, None) is not None:
            self._free.append(slot)

    def rest(self, slots: Slots, hops: int) -> None:
        """These calls play `hops` hops of silence: the time of both layers goes on, so that what is heard
        before and after lies on one grid."""
        for slot in slots.tolist():
            self._next[slot] += hops
        self._energy[slots] = 0.0
        self._before[slots] = 0.0
        self._tail[slots] = 0.0
        if self._envelope is not None:
            self._envelope.hush(slots)

    def position(self, slot: int) -> int:
        """The call's next hop, counted from its beginning."""
        return self._drawn[slot] + self._next[slot]

    def mark(self, slots: Slots, pcm: Floats) -> list[MarkedFrame | MarkError]:
        """`pcm` float32 `(B, n)`, n a multiple of 10 ms, one row a slot; a row that cannot be marked comes
        back as its `MarkError` and disturbs no other."""
        hop = self._shape.hop
        pcm = np.ascontiguousarray(pcm, np.float32)
        if pcm.ndim != 2 or not pcm.shape[1] or pcm.shape[1] % hop:
            wrong = MarkError(
                f"sound of shape {pcm.shape} is not one row of whole hops ({hop} samples) a slot"
            )
            return [wrong] * len(slots)
        sums = pcm.sum(axis=1)
        if not math.isfinite(sum(sums.tolist())) or not self._payloads.keys() >= set(slots.tolist()):
            return self._mark_some(slots, pcm, np.isfinite(sums))
        marked = np.empty_like(pcm)
        self.mark_whole(slots, pcm, marked)
        return [MarkedFrame(samples, seal=_SEAL) for samples in marked]

    def _mark_some(
        self, slots: Slots, pcm: Floats, whole: NDArray[np.bool_]
    ) -> list[MarkedFrame | MarkError]:
        known = np.fromiter((slot in self._payloads for slot in slots.tolist()), bool, len(slots))
        good = whole & known
        out: list[MarkedFrame | MarkError] = [
            MarkError(f"slot {slot}: " + ("the sound is not finite" if here else "no call is open here"))
            for slot, here in zip(slots.tolist(), known.tolist(), strict=True)
        ]
        self.rest(slots[known & ~good], pcm.shape[1] // self._shape.hop)
        if good.any():
            frames = self.mark(slots[good], pcm[good])
            for at, frame in zip(np.flatnonzero(good).tolist(), frames, strict=True):
                out[at] = frame
        return out

    def mark_whole(self, slots: Slots, pcm: Floats, marked: Floats) -> None:
        """`mark` into `marked`, where all sound is finite and all slots are open: neither is checked."""
        most = AHEAD * self._shape.hop
        for at in range(0, pcm.shape[1], most):
            self._mark_hops(slots, pcm[:, at : at + most], marked[:, at : at + most])

    def _draw(self, slot: int) -> None:
        payload, coded = self._payloads[slot]
        self._drawn[slot] += self._next[slot]
        self._next[slot] = 0
        counter = self._drawn[slot] + np.arange(AHEAD, dtype=np.int64)
        self._chips[slot] = carrier.call_chips(self._key, payload, coded, counter)
        if self._envelope is not None:
            self._envelope.draw(slot, payload, self._drawn[slot])

    def _take(self, slots: Slots, count: int) -> Drawn:
        """Where these calls' next `count` hops, which are then behind them, lie among what was drawn."""
        first: list[int] = []
        for slot in slots.tolist():
            if self._next[slot] + count > AHEAD:
                self._draw(slot)
            first.append(self._next[slot])
            self._next[slot] += count
        if len(first) == 1:  # one call's are views
            return slice(slots[0], slots[0] + 1), slice(first[0], first[0] + count)
        return slots[:, None], np.array(first)[:, None] + np.arange(count)

    def _mark_hops(self, slots: Slots, pcm: Floats, marked: Floats) -> None:
        shape, hop, calls = self._shape, self._shape.hop, len(slots)
        count = pcm.shape[1] // hop
        drawn = self._take(slots, count)
        rows = slots if calls > 1 else drawn[0]
        if self._envelope is not None:
            pcm = self._envelope.mark(rows, drawn, pcm)
        sound = np.concatenate((self._before[rows], pcm), axis=1)
        level = levels(shape, sound.reshape(calls, count + 1, hop))
        spectrum = np.zeros((calls, count, hop + 1), np.complex64)
        np.multiply(self._chips[drawn], level, out=spectrum[:, :, _BAND])
        noise = np.fft.irfft(spectrum, 2 * hop)
        noise *= shape.synthesis
        first, second = noise[:, :, :hop], noise[:, :, hop:]
        first[:, 0] += self._tail[rows]
        first[:, 1:] += second[:, :-1]
        mark = marked.reshape(calls, count, hop)
        self._fade(rows, pcm.reshape(calls, count, hop), mark)
        mark *= first
        marked += pcm
        marked.clip(_LOW, _HIGH, out=marked)
        self._before[rows] = sound[:, -hop:]
        self._tail[rows] = second[:, -1]

    def _fade(self, rows: Slots | slice, hops: Floats, fades: Floats) -> None:
        """The mark falls with the speech: a frame's level was set by the 20 ms before its second half, so
        where a hop is quieter than the one before, all of its mark is faded by as much. `hops` and `fades`:
        `(B, n, hop)`."""
        energy = np.add.reduce(np.square(hops), axis=2, keepdims=True)
        energy = np.concatenate((self._energy[rows], energy), axis=1)
        self._energy[rows] = energy[:, -2:]
        gain = energy[:, 1:] / (energy[:, :-1] + _TINY)
        np.minimum(gain, _HIGH, out=gain)
        np.sqrt(gain, out=gain)
        before = gain[:, :-1]
        np.multiply(gain[:, 1:] - before, self._shape.ramp, out=fades)
        fades += before


class Marker:
    """The marker of one call, for frames of any length: the same samples however the stream is cut.

    Its output is `MarkerBank`'s, `delay_samples` (10 ms) later: it waits until a hop is whole.
    """

    def __init__(self, key: MarkKey, payload: int, rate_hz: int = RATE_HZ) -> None:
        self._bank = MarkerBank(key, rate_hz)
        self._slot = np.array([self._bank.open(payload)], np.intp)
        self.delay_samples = Shape.at(rate_hz).hop
        self._waiting: Floats = np.zeros(0, np.float32)
        self._ready: Floats = np.zeros(self.delay_samples, np.float32)

    def mark(self, frame: Floats) -> MarkedFrame:
        """Float32 `(n,)` in [-1, 1] -> the same length. Raises `MarkError`, and then has taken nothing."""
        frame = np.asarray(frame, np.float32)
        if frame.ndim != 1 or not len(frame):
            raise MarkError(f"sound of shape {frame.shape} is not one frame of one channel")
        if not math.isfinite(frame.sum()):
            raise MarkError("the sound is not finite")
        heard = np.concatenate((self._waiting, frame))
        whole = len(heard) // self.delay_samples * self.delay_samples
        self._waiting = heard[whole:]
        held = len(self._ready)
        ready = np.empty(held + whole, np.float32)
        ready[:held] = self._ready
        self._bank.mark_whole(self._slot, heard[None, :whole], ready[None, held:])
        self._ready = ready[len(frame) :]
        return MarkedFrame(ready[: len(frame)], seal=_SEAL)

    def flush(self) -> MarkedFrame:
        """What is still held back, at the end of the stream: `delay_samples` more."""
        return self.mark(np.zeros(self.delay_samples, np.float32))
