"""Fingerprints of recordings: they tell whether this very sound was handed in before, whole or in pieces.

After Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System" (ISMIR 2002), in the telephone's band:
32 bits each 11.6 ms, the signs of energy differences between neighbouring bands and frames. Two takes of one
sentence by one person differ; one take over another codec, level or file format does not. Nothing can be
heard from a fingerprint, and nobody be recognised by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import soxr
from numpy.typing import NDArray

from consent.checks.sound import RATE_HZ, Recording

Bits = NDArray[np.uint32]

FROM_HZ: Final = 8_000
FRAME: Final = 2_048
HOP: Final = 93
"""11.6 ms at 8 kHz."""
RUN: Final = 128
"""Frames that must agree in a row: 1.5 s."""
BIT_ERRORS: Final = 0.20
"""Share of differing bits below which a run is the same sound; by chance it is .5 by chance,
.24 and more for one speaker saying the same phrase twice, .04 to .09 over G.711 and in 20 dB of noise."""


@dataclass(frozen=True, slots=True)
class Copy:
    """Where two recordings are the same sound; times in seconds."""

    at_s: float
    other_at_s: float
    bit_errors: float


def fingerprint(recording: Recording) -> Bits:
    """uint32 `(n,)`, one each 11.6 ms; frames without sound are 0."""
    sound = np.asarray(soxr.resample(recording.pcm, RATE_HZ, FROM_HZ), np.float32)
    if len(sound) < FRAME + HOP:
        return np.zeros(0, np.uint32)
    frames = np.lib.stride_tricks.sliding_window_view(sound, FRAME)[::HOP]
    edges = np.geomspace(300, 3_000, 34) * FRAME / FROM_HZ
    window = np.hanning(FRAME).astype(np.float32)
    energy = np.empty((len(frames), 33))
    for at in range(0, len(frames), 256):  # by pieces, for the memory's sake
        power = np.abs(np.fft.rfft(frames[at : at + 256] * window, axis=1)) ** 2
        sums = np.concatenate((np.zeros((len(power), 1)), np.cumsum(power, axis=1)), axis=1)
        low, high = np.round(edges[:-1]).astype(int), np.round(edges[1:]).astype(int)
        energy[at : at + 256] = sums[:, high] - sums[:, low]
    slopes = energy[:, :-1] - energy[:, 1:]
    signs = slopes[1:] - slopes[:-1] > 0
    bits = (signs.astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum(axis=1).astype(np.uint32)
    loud = energy.sum(axis=1)[1:]
    return np.where(loud > loud.max() * 1e-5, bits, np.uint32(0))


def find_copy(one: Bits, other: Bits) -> Copy | None:
    """The first run of `RUN` frames of `one` that is the same sound as somewhere in `other`."""
    if len(one) < RUN or len(other) < RUN:
        return None
    for shift in _candidate_shifts(one, other):
        start, stop = max(0, shift), min(len(one), len(other) + shift)
        if stop - start < RUN:
            continue
        mine, theirs = one[start:stop], other[start - shift : stop - shift]
        differing = np.bitwise_count(mine ^ theirs).astype(np.float64)
        differing[(mine == 0) | (theirs == 0)] = 16.0  # silence agrees with nothing
        runs = np.convolve(differing, np.ones(RUN), "valid") / (32 * RUN)
        best = int(runs.argmin())
        if runs[best] < BIT_ERRORS:
            step = HOP / FROM_HZ
            return Copy((start + best) * step, (start + best - shift) * step, float(runs[best]))
    return None


def _candidate_shifts(one: Bits, other: Bits) -> list[int]:
    """Shifts at which at least a few frames are alike but for two bits: all others cannot hold a run."""
    votes: dict[int, int] = {}
    places: dict[int, list[int]] = {}
    for at, bits in enumerate(other.tolist()):
        if bits:
            places.setdefault(bits, []).append(at)
    variants = [0, *(1 << k for k in range(32))]
    for at, bits in enumerate(one.tolist()):
        if not bits:
            continue
        for flip in variants:
            for place in places.get(bits ^ flip, ())[:20]:
                shift = at - place
                votes[shift] = votes.get(shift, 0) + 1
    ranked = sorted(votes, key=lambda shift: -votes[shift])
    return ranked[:50]
