"""What changes the time of a recording: each gives the sound, and says when the call's moments are heard in
it."""

from __future__ import annotations

from collections.abc import Callable
from math import pi
from typing import Final

import numpy as np

Times = Callable[[np.ndarray], np.ndarray]
"""Seconds of the call -> seconds of the recording."""
Warp = Callable[[np.ndarray, int], tuple[np.ndarray, Times]]

FRAME_S: Final = 0.03
SEEK_S: Final = 0.008


def bent(samples: np.ndarray, rate_hz: int, heard_s: np.ndarray) -> np.ndarray:
    """`samples` played so that moment `n / rate_hz` of the result is moment `heard_s[n]` of them: cubic."""
    at = np.clip(heard_s * rate_hz, 1, len(samples) - 3)
    first = at.astype(np.int64)
    part = (at - first).astype(np.float32)
    before, here, after, behind = (samples[first + step] for step in (-1, 0, 1, 2))
    slope, bow = (after - before) / 2, before - 2.5 * here + 2 * after - behind / 2
    twist = (behind - before) / 2 + 1.5 * (here - after)
    return np.asarray(((twist * part + bow) * part + slope) * part + here, np.float32)


def wobble(peak_s: float, hz: float) -> Warp:
    """A delay that swings by `peak_s` to either side."""

    def warp(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, Times]:
        time_s = np.arange(len(samples)) / rate_hz
        swing = peak_s * np.sin(2 * pi * hz * time_s)
        return bent(samples, rate_hz, time_s + swing), lambda s: s - peak_s * np.sin(2 * pi * hz * s)

    return warp


def random_wobble(rms_s: float, top_hz: float, seed: int) -> Warp:
    """A delay that wanders, by `rms_s`, with nothing above `top_hz`."""

    def warp(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, Times]:
        seconds = len(samples) / rate_hz
        rng = np.random.default_rng(seed)
        hz = np.arange(1, int(top_hz * seconds) + 1) / seconds
        size = rms_s * np.sqrt(2 / len(hz))
        phase = rng.uniform(0, 2 * pi, len(hz))

        def delay(s: np.ndarray) -> np.ndarray:
            return size * np.sin(2 * pi * np.outer(s, hz) + phase).sum(axis=1)

        knots = np.arange(0, seconds + 0.02, 0.01)
        time_s = np.arange(len(samples)) / rate_hz
        swing = np.interp(time_s, knots, delay(knots))
        return bent(samples, rate_hz, time_s + swing), lambda s: s - np.interp(s, knots, delay(knots))

    return warp


def speed(change: float) -> Warp:
    """Played faster by this share, pitch and all."""

    def warp(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, Times]:
        time_s = np.arange(round(len(samples) / (1 + change))) / rate_hz
        return bent(samples, rate_hz, time_s * (1 + change)), lambda s: s / (1 + change)

    return warp


def stretched(tempi: Callable[[int], float]) -> Warp:
    """WSOLA: `tempi(n)` is the tempo in the n-th second of the recording, 1 as it was; pitch stays."""

    def warp(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, Times]:
        frame, seek = round(FRAME_S * rate_hz) // 2 * 2, round(SEEK_S * rate_hz)
        hop = frame // 2
        window = (np.sin(pi * (np.arange(frame) + 0.5) / frame) ** 2).astype(np.float32)
        padded = np.concatenate((np.zeros(seek), samples, np.zeros(frame + 2 * seek))).astype(np.float32)
        out = np.zeros(2 * len(samples) + frame, np.float32)
        natural, place = seek, 0.0
        places: list[float] = []
        while place < len(samples) - frame:
            begin = round(place)
            around = padded[begin : begin + frame + 2 * seek]
            likeness = np.correlate(around, padded[natural : natural + frame], "valid")
            energy = np.cumsum(np.concatenate((np.zeros(1, np.float32), np.square(around))))
            energy = energy[frame:] - energy[:-frame]
            chosen = begin + int((likeness / np.sqrt(np.maximum(energy, 1e-6))).argmax())
            at = len(places) * hop
            out[at : at + frame] += padded[chosen : chosen + frame] * window
            places.append((place + hop) / rate_hz)
            natural = chosen + hop
            place += hop * tempi(at // rate_hz)
        end = len(places) * hop
        return out[:end], lambda s: np.interp(s, places, (np.arange(len(places)) + 1) * hop / rate_hz)

    return warp
