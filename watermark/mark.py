"""Marking sound: keyed noise under speech, never the same twice.

Each 10 ms hop adds one 20 ms frame of the call's chips (`carrier`), every bin at a level that follows the
speech: `alpha * sqrt(|S| * rms)`, half-way in decibels between the bin's own magnitude and the frame's
level. So the mark fills the valleys between strong partials, where it is masked and a codec still carries
it. The level of a frame is taken from the 20 ms that end 10 ms into it: nothing needs to be awaited when
sound comes in whole hops.

Hot path (`MarkerBank.mark`): numpy over all calls, no locks, no logs; only exactly rounded operations, so
that a call marked in a batch gets the same samples as one marked alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watermark import carrier, code
from watermark.carrier import BIN_HZ, BINS, FIRST_BIN, HOPS_HZ
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
FILL: Final = (0.073, 0.22)
"""`alpha` up to 500 Hz and from 1500 Hz on; between them it rises with the frequency."""
CAP: Final = 0.8
"""The mark's level never exceeds this share of the speech's within 200 Hz."""

Floats = NDArray[np.float32]
Complexes = NDArray[np.complex64]
Slots = NDArray[np.intp]

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
    def at(cls, rate_hz: int) -> Shape:
        if rate_hz % HOPS_HZ or rate_hz < 8_000:
            raise MarkError(f"cannot mark at {rate_hz} Hz: use a multiple of 100 from 8000 on")
        hop = rate_hz // HOPS_HZ
        length = 2 * hop
        at = (np.arange(length) + 0.5) / length
        hann = 1 - np.cos(2 * np.pi * at)
        hann /= np.sqrt(np.sum(hann**2))
        hz = (FIRST_BIN + np.arange(BINS)) * float(BIN_HZ)
        alpha = np.interp(hz, TILT_HZ, FILL)
        return cls(
            hop,
            hann.astype(np.float32),
            (np.sin(np.pi * at) * np.sqrt(length) / 2).astype(np.float32),
            np.square(alpha).astype(np.float32),
            (np.arange(1, hop + 1) / hop).astype(np.float32),
        )


def levels(shape: Shape, sound: Floats) -> Floats:
    """The mark's level in each bin of the frames that follow each other in `sound` `(B, n + 1, hop)`: float32
    `(B, n, 64)`."""
    calls, hops, hop = sound.shape
    windowed = np.empty((calls, hops - 1, 2 * hop), np.float32)
    np.multiply(sound[:, :-1], shape.analysis[:hop], out=windowed[:, :, :hop])
    np.multiply(sound[:, 1:], shape.analysis[hop:], out=windowed[:, :, hop:])
    energy = np.add.reduce(np.square(windowed), axis=2)
    energy *= energy >= SILENCE * SILENCE
    spectrum = np.fft.rfft(windowed)[:, :, _AROUND]
    power = np.square(spectrum.real)
    power += np.square(spectrum.imag)
    near = power[:, :, :-1] + power[:, :, 1:]
    near = near[:, :, :-2] + near[:, :, 2:]
    near = near[:, :, :-5] + near[:, :, 4:-1]  # sums over 8 bins
    near *= np.float32(CAP * CAP / 8)
    filled = np.multiply(power[:, :, 4:-4], energy[:, :, None])
    np.sqrt(filled, out=filled)
    filled *= shape.fill
    np.minimum(filled, near, out=filled)
    level: Floats = np.sqrt(filled, out=filled)
    return level


class MarkerBank:
    """Markers of many calls, in slots. Sound comes in whole hops (multiples of 10 ms) and is not delayed."""

    def __init__(self, key: MarkKey, rate_hz: int = RATE_HZ) -> None:
        self._key = key
        self._shape = Shape.at(rate_hz)
        self._payloads: dict[int, tuple[int, Floats]] = {}
        self._before: Floats = np.zeros((FIRST_SLOTS, self._shape.hop), np.float32)
        self._tail: Floats = np.zeros((FIRST_SLOTS, self._shape.hop), np.float32)
        self._gain: Floats = np.zeros(FIRST_SLOTS, np.float32)
        self._chips: Complexes = np.zeros((FIRST_SLOTS, AHEAD, BINS), np.complex64)
        self._drawn = np.zeros(FIRST_SLOTS, np.int64)  # the first of the AHEAD hops that `_chips` holds
        self._hop = np.zeros(FIRST_SLOTS, np.int64)
        self._free = list(range(FIRST_SLOTS - 1, -1, -1))

    def _grow(self) -> None:
        slots = len(self._hop)
        self._before = np.concatenate((self._before, np.zeros_like(self._before)))
        self._tail = np.concatenate((self._tail, np.zeros_like(self._tail)))
        self._gain = np.concatenate((self._gain, np.zeros_like(self._gain)))
        self._chips = np.concatenate((self._chips, np.zeros_like(self._chips)))
        self._drawn = np.concatenate((self._drawn, np.zeros_like(self._drawn)))
        self._hop = np.concatenate((self._hop, np.zeros_like(self._hop)))
        self._free = list(range(2 * slots - 1, slots - 1, -1))

    def open(self, payload: int) -> int:
        """A slot for a call with this payload."""
        coded = code.encode(payload)
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self._payloads[slot] = (payload, coded)
        self._before[slot] = self._tail[slot] = 0.0
        self._gain[slot] = 0.0
        self._drawn[slot], self._hop[slot] = -AHEAD, 0
        return slot

    def close(self, slot: int) -> None:
        if self._payloads.pop(slot, None) is not None:
            self._free.append(slot)

    def rest(self, slots: Slots, hops: int) -> None:
        """These calls play `hops` hops of silence: their carriers' time goes on, so that what is heard
        before and after lies on one grid."""
        self._hop[slots] += hops
        self._gain[slots] = 0.0
        self._before[slots] = 0.0
        self._tail[slots] = 0.0

    def position(self, slot: int) -> int:
        """The call's next hop, counted from its beginning."""
        return int(self._hop[slot])

    def mark(self, slots: Slots, pcm: Floats) -> list[MarkedFrame | MarkError]:
        """`pcm` float32 `(B, n)`, n a multiple of 10 ms, one row a slot; a row that cannot be marked comes
        back as its `MarkError` and disturbs no other."""
        hop = self._shape.hop
        pcm = np.asarray(pcm, np.float32)
        if pcm.ndim != 2 or not pcm.shape[1] or pcm.shape[1] % hop:
            wrong = MarkError(
                f"sound of shape {pcm.shape} is not one row of whole hops ({hop} samples) a slot"
            )
            return [wrong] * len(slots)
        whole = np.isfinite(pcm.sum(axis=1))
        if not whole.all() or not self._payloads.keys() >= set(slots.tolist()):
            return self._mark_some(slots, pcm, whole)
        marked = np.empty_like(pcm)
        for at in range(0, pcm.shape[1], AHEAD * hop):
            part = slice(at, at + AHEAD * hop)
            self._mark_hops(slots, pcm[:, part], marked[:, part])
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

    def _draw(self, slot: int) -> None:
        payload, coded = self._payloads[slot]
        counter = self._hop[slot] + np.arange(AHEAD, dtype=np.int64)
        self._chips[slot] = carrier.call_chips(self._key, payload, coded, counter)
        self._drawn[slot] = self._hop[slot]

    def _mark_hops(self, slots: Slots, pcm: Floats, marked: Floats) -> None:
        hop, calls = self._shape.hop, len(slots)
        count = pcm.shape[1] // hop
        drawn = self._hop[slots] - self._drawn[slots] + count
        if drawn.max() > AHEAD:
            for slot in slots[drawn > AHEAD].tolist():
                self._draw(slot)
            drawn = self._hop[slots] - self._drawn[slots] + count
        sound = np.empty((calls, count + 1, hop), np.float32)
        sound[:, 0] = self._before[slots]
        sound[:, 1:] = pcm.reshape(calls, count, hop)
        level = levels(self._shape, sound)
        chips = self._chips[slots[:, None], drawn[:, None] + np.arange(-count, 0)]
        spectrum = np.zeros((calls, count, hop + 1), np.complex64)
        np.multiply(chips, level, out=spectrum[:, :, _BAND])
        noise = np.fft.irfft(spectrum, 2 * hop)
        noise *= self._shape.synthesis
        added = np.empty((calls, count, hop), np.float32)
        added[:, 0] = self._tail[slots]
        added[:, 1:] = noise[:, :-1, hop:]
        added += noise[:, :, :hop]
        added *= self._fades(slots, sound)
        added += sound[:, 1:]
        np.minimum(added, 1.0, out=added)
        np.maximum(added.reshape(calls, count * hop), -1.0, out=marked)
        self._tail[slots] = noise[:, -1, hop:]
        self._before[slots] = sound[:, -1]
        self._hop[slots] += count

    def _fades(self, slots: Slots, sound: Floats) -> Floats:
        """The mark falls with the speech: a frame's level was set by the 20 ms before its second half, so
        where a hop is quieter than the one before, all of its mark is faded by as much."""
        energy = np.add.reduce(np.square(sound), axis=2)
        gain = np.empty_like(energy)
        gain[:, 0] = self._gain[slots]
        np.divide(energy[:, 1:], energy[:, :-1] + np.float32(1e-12), out=gain[:, 1:])
        np.minimum(gain, 1, out=gain)
        np.sqrt(gain[:, 1:], out=gain[:, 1:])
        self._gain[slots] = gain[:, -1]
        before = gain[:, :-1]
        fades: Floats = (gain[:, 1:] - before)[:, :, None] * self._shape.ramp
        fades += before[:, :, None]
        return fades


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
        if not np.isfinite(frame).all():
            raise MarkError("the sound is not finite")
        heard = np.concatenate((self._waiting, frame))
        whole = len(heard) // self.delay_samples * self.delay_samples
        self._waiting = heard[whole:]
        if whole:
            (marked,) = self._bank.mark(self._slot, heard[None, :whole])
            if isinstance(marked, MarkError):
                raise marked
            self._ready = np.concatenate((self._ready, marked.samples))
        out, self._ready = self._ready[: len(frame)].copy(), self._ready[len(frame) :]
        return MarkedFrame(out, seal=_SEAL)

    def flush(self) -> MarkedFrame:
        """What is still held back, at the end of the stream: `delay_samples` more."""
        return self.mark(np.zeros(self.delay_samples, np.float32))
