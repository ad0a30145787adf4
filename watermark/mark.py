"""Marking sound: keyed noise under speech, never the same twice.

Each 10 ms hop adds one 20 ms frame of the call's chips (`carrier`), every bin at a level that follows the speech:
`alpha * sqrt(|S| * rms)`, half-way in decibels between the bin's own magnitude and the frame's level. So the mark
fills the valleys between strong partials, where it is masked and a codec still carries it. The level of a frame is
taken from the 20 ms that end 10 ms into it: nothing needs to be awaited when sound comes in whole hops.

Hot path (`MarkerBank.mark`): numpy over all calls, no locks, no logs; only exactly rounded operations, so that
a call marked in a batch gets the same samples as one marked alone.
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
AHEAD: Final = 64
"""Hops whose chips are drawn at once."""

TILT_HZ: Final = (500.0, 1500.0)
FILL: Final = (0.060, 0.180)
"""`alpha` up to 500 Hz and from 1500 Hz on; between them it rises with the frequency."""
CAP: Final = 0.7
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
        )


def levels(shape: Shape, frames: Floats) -> Floats:
    """The mark's level in each bin for frames of sound `(B, 2 * hop)` -> float32 `(B, 64)`."""
    windowed = frames * shape.analysis
    energy = np.square(windowed).sum(axis=1)
    energy[energy < SILENCE * SILENCE] = 0.0
    spectrum = np.fft.rfft(windowed, axis=1)[:, _AROUND]
    power = np.square(spectrum.real)
    power += np.square(spectrum.imag)
    near = power[:, :-1] + power[:, 1:]
    near = near[:, :-2] + near[:, 2:]
    near = near[:, :-4] + near[:, 4:]  # sums over 8 bins
    filled = np.sqrt(power[:, 4:-4] * energy[:, None]) * shape.fill
    level: Floats = np.sqrt(np.minimum(filled, near[:, :-1] * np.float32(CAP * CAP / 8), out=filled))
    return level


class MarkerBank:
    """Markers of many calls, in slots. Sound comes in whole hops (multiples of 10 ms) and is not delayed."""

    def __init__(self, key: MarkKey, rate_hz: int = RATE_HZ) -> None:
        self._key = key
        self._shape = Shape.at(rate_hz)
        self._payloads: dict[int, tuple[int, Floats]] = {}
        self._free: list[int] = []
        self._allocate(16)

    def _allocate(self, capacity: int) -> None:
        hop = self._shape.hop
        self._before: Floats = np.zeros((capacity, hop), np.float32)
        self._tail: Floats = np.zeros((capacity, hop), np.float32)
        self._chips: Complexes = np.zeros((capacity, AHEAD, BINS), np.complex64)
        self._hop = np.zeros(capacity, np.int64)
        self._free = list(range(capacity - 1, -1, -1))

    def _grow(self) -> None:
        capacity = len(self._hop)
        for name in ("_before", "_tail", "_chips", "_hop"):
            old = getattr(self, name)
            setattr(self, name, np.concatenate((old, np.zeros_like(old))))
        self._free = list(range(2 * capacity - 1, capacity - 1, -1))

    def open(self, payload: int) -> int:
        """A slot for a call with this payload."""
        coded = code.encode(payload)
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self._payloads[slot] = (payload, coded)
        self._before[slot] = self._tail[slot] = 0.0
        self._hop[slot] = 0
        return slot

    def close(self, slot: int) -> None:
        if self._payloads.pop(slot, None) is not None:
            self._free.append(slot)

    def rest(self, slots: Slots, hops: int) -> None:
        """`hops` hops of silence were played to these calls: the carrier's time passes."""
        for slot in slots.tolist():
            self._hop[slot] += hops
            if self._hop[slot] % AHEAD >= hops:
                continue
            self._draw(slot)
        self._before[slots] = self._tail[slots] = 0.0

    def _draw(self, slot: int) -> None:
        payload, coded = self._payloads[slot]
        first = int(self._hop[slot]) // AHEAD * AHEAD
        self._chips[slot] = carrier.call_chips(self._key, payload, coded, first, AHEAD)

    def mark(self, slots: Slots, pcm: Floats) -> list[MarkedFrame | MarkError]:
        """`pcm` float32 `(B, n)`, n a multiple of 10 ms, one row a slot; a row that cannot be marked comes back
        as its `MarkError` and disturbs no other."""
        hop = self._shape.hop
        pcm = np.asarray(pcm, np.float32)
        if pcm.shape[1] % hop or not pcm.shape[1]:
            wrong = f"{pcm.shape[1]} samples are not whole hops of {hop}"
            return [MarkError(f"slot {slot}: {wrong}") for slot in slots.tolist()]
        good = np.isfinite(pcm.sum(axis=1))
        known = [slot in self._payloads for slot in slots.tolist()]
        if not (all(known) and good.all()):
            good &= known
            out: list[MarkedFrame | MarkError] = [
                MarkError(f"slot {slot}: not a frame that can be marked") for slot in slots.tolist()
            ]
            if good.any():
                for at, frame in zip(np.flatnonzero(good), self.mark(slots[good], pcm[good]), strict=True):
                    out[at] = frame
            return out
        marked = np.empty_like(pcm)
        for at in range(0, pcm.shape[1], hop):
            self._mark_hop(slots, pcm[:, at : at + hop], marked[:, at : at + hop])
        return [MarkedFrame(samples, seal=_SEAL) for samples in marked]

    def _mark_hop(self, slots: Slots, sound: Floats, marked: Floats) -> None:
        place = self._hop[slots] % AHEAD
        for slot in slots[place == 0].tolist():
            self._draw(slot)
        frames = np.concatenate((self._before[slots], sound), axis=1)
        level = levels(self._shape, frames)
        spectrum = np.zeros((len(slots), self._shape.hop + 1), np.complex64)
        chips = self._chips[slots, place]
        band = spectrum[:, _BAND]
        np.multiply(chips.real, level, out=band.real)
        np.multiply(chips.imag, level, out=band.imag)
        noise = np.fft.irfft(spectrum, 2 * self._shape.hop, axis=1) * self._shape.synthesis
        np.add(sound, self._tail[slots], out=marked)
        marked += noise[:, : self._shape.hop]
        np.clip(marked, -1.0, 1.0, out=marked)
        self._tail[slots] = noise[:, self._shape.hop :]
        self._before[slots] = sound
        self._hop[slots] += 1
