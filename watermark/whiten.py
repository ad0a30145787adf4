"""From a recording to what a correlator wants: 8 kHz, every time and frequency on its own scale.

Speech is the noise that hides the mark. A tile (32 ms by 31 Hz) of magnitude A holds mark of about sqrt(A *
level) and noise of about A, so the matched weight is near `A**-1.5 * level**.5`; measured over codecs,
dividing by `A**1.2` with a little weight for loud frames was best (`docs/watermark.md`).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from watermark.errors import SoundError

Floats = NDArray[np.float32]

NARROW_HZ: Final = 8_000
SHORTEST_S: Final = 1.0
LONGEST_S: Final = 600.0
LOUDEST: Final = 1e6
FAINTEST: Final = 1e-6
"""Sound whose peak lies beyond these is brought to some [-1, 1] first: squares of such samples would leave
float32."""
WHOLE: Final = 0.999
"""This share of it is: the rest, such as samples that a program made of nothing, is cut off."""
FRAME: Final = 256
STEP: Final = 128
AT_ONCE: Final = 64
"""Frames whose spectra are made at once: memory for all would be fetched anew from the system each time."""
EXPONENT: Final = 1.2
FRAME_FLOOR: Final = 2e-4
"""Power below which a tile is not trusted, relative to the mean of its frame."""
CLIP_FLOOR: Final = 1e-5
"""The same, relative to the mean of the recording."""
LOUDNESS: Final = 0.2
"""Exponent of a frame's rms in its weight."""

_WINDOW: Final = np.sin(np.pi * (np.arange(FRAME) + 0.5) / FRAME).astype(np.float32)


def narrow(pcm: NDArray[np.floating], rate_hz: int) -> Floats:
    """Mono sound `(n,)` at any rate from 8 kHz -> float32 at 8 kHz. Raises `SoundError`."""
    pcm = np.asarray(pcm)
    if pcm.ndim != 1:
        raise SoundError(f"one channel of sound is wanted, not an array of shape {pcm.shape}")
    if not NARROW_HZ <= rate_hz <= 192_000:
        raise SoundError(f"{rate_hz} Hz: sound at 8000 to 192000 Hz is wanted")
    if len(pcm) < SHORTEST_S * rate_hz:
        raise SoundError(f"{len(pcm) / rate_hz:.2f} s is too short: at least {SHORTEST_S:.0f} s is needed")
    if len(pcm) > LONGEST_S * rate_hz:
        raise SoundError(f"{len(pcm) / rate_hz:.0f} s is too long: cut it to {LONGEST_S:.0f} s")
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite
        sound = pcm.astype(np.float32)
    if not np.isfinite(sound).all():
        raise SoundError("the sound holds values that are not numbers")
    peak = float(np.abs(sound).max())
    if peak > LOUDEST or 0 < peak < FAINTEST:
        sound = _measured(sound.astype(np.float64), peak)
    if rate_hz == NARROW_HZ:
        return sound
    import soxr  # not in the hall, which has 8 kHz already

    return np.asarray(soxr.resample(sound, rate_hz, NARROW_HZ, quality="HQ"), np.float32)


def _measured(sound: NDArray[np.float64], peak: float) -> Floats:
    """Sound of no usual level, brought to one."""
    level = float(np.quantile(np.abs(sound), WHOLE)) or peak
    return np.clip(sound / level, -1, 1).astype(np.float32)


def whiten(sound: Floats) -> Floats:
    """Float32 `(n,)` at 8 kHz -> the same length, weighted for correlation; zeros stay zeros."""
    padded = np.concatenate((np.zeros(STEP, np.float32), sound, np.zeros(FRAME + STEP, np.float32)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::STEP]
    spectrum = np.empty((len(frames), FRAME // 2 + 1), np.complex64)
    power = np.empty(spectrum.shape, np.float32)
    parts = [slice(at, min(at + AT_ONCE, len(frames))) for at in range(0, len(frames), AT_ONCE)]
    for part in parts:
        spectrum[part] = np.fft.rfft(frames[part] * _WINDOW)
        np.square(spectrum[part].real, out=power[part])
        power[part] += np.square(spectrum[part].imag)
    frame_mean = power.mean(axis=1, keepdims=True)
    clip_mean = float(power.mean())
    if clip_mean <= 0.0:
        return np.zeros_like(sound)
    loudness = (frame_mean + 0.1 * CLIP_FLOOR * clip_mean) ** (LOUDNESS / 2)
    floor = FRAME_FLOOR * frame_mean
    out = np.zeros((len(frames) + 1) * STEP, np.float32)
    halves = out.reshape(-1, STEP)
    for part in parts:
        trusted = power[part] + floor[part] + CLIP_FLOOR * clip_mean
        weight = trusted ** (-EXPONENT / 2) * loudness[part]
        weighted = np.fft.irfft(spectrum[part] * weight, FRAME, axis=1).astype(np.float32) * _WINDOW
        halves[part] += weighted[:, :STEP]
        halves[part.start + 1 : part.stop + 1] += weighted[:, STEP:]
    return out[STEP : STEP + len(sound)]


def straight(white: Floats, bend: float) -> Floats:
    """Undoes the phase of a telephone's band filter, which turns low frequencies ahead (by `bend` radians at
    500 Hz against 1 kHz) and bends the high ones, so that bins far apart add up again."""
    spectrum = np.fft.rfft(white)
    khz = np.maximum(np.fft.rfftfreq(len(white), 1 / NARROW_HZ), 200.0) / 1000
    phase = bend * ((1 / khz - 1) - 0.3 * (khz - 1) ** 2)
    return np.asarray(np.fft.irfft(spectrum * np.exp(-1j * phase), len(white)), np.float32)
