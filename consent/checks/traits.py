"""Traits in which machines' voices differ from people's, as numbers that a telephone leaves intact.

All are measured below 4 kHz, at 8 kHz, in frames with speech: what is above, and how loud it is, tells of the
line and not of the speaker. They say how a voice moves: how much its spectrum varies, how fast, how evenly
its pitch wavers, how noisy its upper bands are beside its lower ones, how pointed its glottal pulses are.

Sources: linear cepstra (Sahidullah et al., Interspeech 2015), modulation spectra (Wu et al., ICASSP 2013),
jitter, shimmer and harmonicity (Boersma 1993), the residual of linear prediction (Makhoul 1975).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import soxr
from numpy.typing import NDArray

from consent.checks.sound import RATE_HZ, Floats

TRAITS_HZ: Final = 8_000
SLICE_S: Final = 10.0
"""Length of what is measured at a time."""
LEAST_SPEECH_S: Final = 1.5
"""Speech in a slice below which its traits mean nothing."""

FRAME: Final = 320
HOP: Final = 80
FFT: Final = 512
BAND_HZ: Final = (250.0, 3_400.0)
CEPSTRA: Final = 20
FILTERS: Final = 26
LAGS: Final = (20, 114)
"""of the pitch in samples: 400 to 70 Hz"""
ORDER: Final = 12
"""of the linear prediction"""
SUB_BANDS_HZ: Final = ((300.0, 1_000.0), (1_000.0, 2_000.0), (2_000.0, 3_400.0))
MODULATION_HZ: Final = ((1.0, 3.0), (3.0, 6.0), (6.0, 12.0), (12.0, 24.0), (24.0, 60.0))
FLOOR: Final = 1e-10

_Doubles = NDArray[np.float64]
_BINS: Final = np.arange(FFT // 2 + 1) * TRAITS_HZ / FFT


def _filters() -> _Doubles:
    edges = np.linspace(*BAND_HZ, FILTERS + 2)
    rising = (_BINS[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - _BINS[None]) / (edges[2:] - edges[1:-1])[:, None]
    return np.asarray(np.clip(np.minimum(rising, falling), 0, None))


_FILTERS: Final = _filters()
_COSINES: Final = np.cos(np.pi / FILTERS * (np.arange(FILTERS) + 0.5)[None] * np.arange(CEPSTRA)[:, None])
_WINDOW: Final = np.hanning(FRAME)
_WINDOW_LAGS: Final = np.fft.irfft(np.abs(np.fft.rfft(_WINDOW, 2 * FFT)) ** 2)[: LAGS[1] + 2]
_COSINE_LAGS: Final = np.cos(2 * np.pi / (2 * FFT) * np.outer(np.arange(LAGS[1] + 1), np.arange(FFT + 1)))


def at_traits_rate(pcm: Floats) -> Floats:
    """float32 mono at 24 kHz, as float32 at 8 kHz."""
    return np.asarray(soxr.resample(pcm, RATE_HZ, TRAITS_HZ), np.float32)


def slices(at_8k: Floats) -> list[Floats]:
    """`at_8k` in equal pieces of `SLICE_S` or somewhat less; the last is not short."""
    count = max(1, round(len(at_8k) / (SLICE_S * TRAITS_HZ)))
    return list(np.array_split(at_8k, count))


def traits(at_8k: Floats) -> dict[str, float] | None:
    """The traits of one slice, by name; None where there is too little speech, or no sound at all."""
    if len(at_8k) < LEAST_SPEECH_S * TRAITS_HZ or not np.isfinite(at_8k).all():
        return None
    sound = at_8k.astype(np.float64) - at_8k.mean(dtype=np.float64)
    peak = np.abs(sound).max()
    if peak < 1e-4:
        return None
    sound /= peak
    frames = np.lib.stride_tricks.sliding_window_view(sound, FRAME)[::HOP]
    speech = _speech(frames)
    if speech.sum() * HOP < LEAST_SPEECH_S * TRAITS_HZ:
        return None
    spectra = np.abs(np.fft.rfft(frames * _WINDOW, 2 * FFT, axis=1)) ** 2
    power = spectra[:, ::2]
    bands = np.log(power @ _FILTERS.T + FLOOR)
    found: dict[str, float] = {}
    _cepstral(bands, speech, found)
    _modulation(bands, found)
    _pitch(frames, spectra, speech, found)
    _residual(frames[speech][::2], found)
    _flatness(power[speech], found)
    return found if np.isfinite(list(found.values())).all() else None


def _speech(frames: _Doubles) -> NDArray[np.bool_]:
    """Frames louder than the pauses and not far below the loudest, bool `(n,)`."""
    level = 10 * np.log10((frames**2).mean(axis=1) + FLOOR)
    loud, quiet = np.quantile(level, [0.95, 0.1])
    return np.asarray(level > max(loud - 25.0, min(quiet + 6.0, loud - 12.0)))


def _spread(name: str, values: _Doubles, found: dict[str, float]) -> None:
    """Median and the distances of quartiles and tails from it."""
    low, middle, high, most = np.quantile(values, [0.1, 0.5, 0.9, 0.98]) if len(values) else (0.0,) * 4
    found[f"{name} median"] = float(middle)
    found[f"{name} below"] = float(middle - low)
    found[f"{name} above"] = float(high - middle)
    found[f"{name} tail"] = float(most - high)


def _cepstral(bands: _Doubles, speech: NDArray[np.bool_], found: dict[str, float]) -> None:
    cepstra = bands @ _COSINES.T / FILTERS
    first = np.zeros_like(cepstra)
    first[2:-2] = (cepstra[3:-1] - cepstra[1:-3] + 2 * (cepstra[4:] - cepstra[:-4])) / 10
    second = np.zeros_like(cepstra)
    second[1:-1] = first[2:] - first[:-2]
    still, moving, turning = cepstra[speech], first[speech], second[speech]
    for k in range(CEPSTRA):
        spread = still[:, k].std() + 1e-4
        speed = moving[:, k].std() + 1e-4
        found[f"cepstrum {k} spread"] = float(np.log(spread))
        found[f"cepstrum {k} speed"] = float(np.log(speed / spread))
        found[f"cepstrum {k} turns"] = float(np.log((turning[:, k].std() + 1e-4) / speed))
    _spread("flux", np.log(np.sqrt((moving[:, 1:] ** 2).mean(axis=1)) + 1e-4), found)
    jerk = np.abs(moving / (moving.std(axis=0) + 1e-4))
    for k in range(0, CEPSTRA, 4):
        found[f"cepstrum {k} jerk"] = float(np.log((jerk[:, k : k + 4] ** 4).mean()))


def _modulation(bands: _Doubles, found: dict[str, float]) -> None:
    """How the loudness of three bands moves, by rates."""
    length = 100
    if len(bands) < length:
        bands = np.pad(bands, ((0, length - len(bands)), (0, 0)), mode="edge")
    rates = np.fft.rfftfreq(length, HOP / TRAITS_HZ)
    grouped = np.stack([part.mean(axis=1) for part in np.array_split(bands, 3, axis=1)], axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(grouped, length, axis=0)[:: length // 2]
    windows = (windows - windows.mean(axis=-1, keepdims=True)) * np.hanning(length)
    power = (np.abs(np.fft.rfft(windows, axis=-1)) ** 2).mean(axis=0)
    for band in range(3):
        whole = power[band, rates >= MODULATION_HZ[0][0]].sum() + FLOOR
        for low, high in MODULATION_HZ:
            share = power[band, (rates >= low) & (rates < high)].sum() / whole
            found[f"band {band} at {low:g} Hz"] = float(np.log(share + 1e-4))


def _pitch(frames: _Doubles, spectra: _Doubles, speech: NDArray[np.bool_], found: dict[str, float]) -> None:
    lags = np.fft.irfft(spectra, axis=1)[:, : LAGS[1] + 2]
    likeness = lags / (lags[:, :1] + FLOOR) / (_WINDOW_LAGS / _WINDOW_LAGS[0])
    searched = likeness[:, LAGS[0] : LAGS[1]]
    at = searched.argmax(axis=1) + LAGS[0]
    rows = np.arange(len(at))
    before, here, after = likeness[rows, at - 1], likeness[rows, at], likeness[rows, at + 1]
    bend = before - 2 * here + after
    shift = np.where(bend < -1e-9, 0.5 * (before - after) / np.where(bend < -1e-9, bend, -1.0), 0.0)
    period = at + np.clip(shift, -0.5, 0.5)
    voiced = speech & (here > 0.6)
    found["voiced"] = float(voiced.sum() / speech.sum())
    _spread("harmonicity", np.clip(here[speech], 0, 1), found)
    pitch = np.log(period)
    pair = voiced[1:] & voiced[:-1] & (np.abs(np.diff(pitch)) < 0.1)
    _spread("pitch speed", np.log(np.abs(np.diff(pitch)[pair]) + 1e-4), found)
    triple = pair[1:] & pair[:-1]
    _spread("jitter", np.log(np.abs(np.diff(pitch, 2)[triple]) + 1e-4), found)
    level = np.log((frames**2).mean(axis=1) + FLOOR)
    _spread("shimmer", np.log(np.abs(np.diff(level, 2)[triple]) + 1e-3), found)
    found["pitch range"] = float(np.log(pitch[voiced].std() + 1e-3)) if voiced.any() else 0.0
    round_lag = np.clip(np.round(period).astype(int), *LAGS)[voiced]
    for number, (low, high) in enumerate(SUB_BANDS_HZ):
        inside = slice(round(low * 2 * FFT / TRAITS_HZ), round(high * 2 * FFT / TRAITS_HZ))
        band = spectra[voiced, inside]
        # the band's autocorrelation at the pitch's lag alone
        alike = (band * _COSINE_LAGS[round_lag, inside]).sum(axis=1) / (band.sum(axis=1) + FLOOR)
        _spread(f"harmonicity of band {number}", alike / (_WINDOW_LAGS / _WINDOW_LAGS[0])[round_lag], found)


def _residual(frames: _Doubles, found: dict[str, float]) -> None:
    """What linear prediction leaves: its peaks are the glottis, or what stands for it."""
    windowed = frames * _WINDOW
    lags = np.fft.irfft(np.abs(np.fft.rfft(windowed, 2 * FFT, axis=1)) ** 2, axis=1)[:, : ORDER + 1]
    lags[:, 0] = lags[:, 0] * 1.0001 + FLOOR
    error = lags[:, 0].copy()
    model = np.zeros((len(frames), ORDER + 1))
    model[:, 0] = 1.0
    for step in range(1, ORDER + 1):  # Levinson and Durbin, for all frames at once
        reflection = -(model[:, :step] * lags[:, step:0:-1]).sum(axis=1) / error
        model[:, 1 : step + 1] += reflection[:, None] * model[:, step - 1 :: -1][:, :step]
        error *= np.maximum(1 - reflection**2, 1e-6)
    left = np.zeros((len(frames), FRAME - ORDER))
    for k in range(ORDER + 1):
        left += model[:, k : k + 1] * frames[:, ORDER - k : FRAME - k]
    left /= left.std(axis=1, keepdims=True) + FLOOR
    _spread("residual peaks", np.log((left**4).mean(axis=1) + FLOOR), found)
    _spread("residual skew", np.abs((left**3).mean(axis=1)), found)
    _spread("prediction gain", np.log(lags[:, 0] / error), found)


def _flatness(power: _Doubles, found: dict[str, float]) -> None:
    for number, (low, high) in enumerate(SUB_BANDS_HZ):
        inside = power[:, (low <= _BINS) & (high > _BINS)] + FLOOR
        _spread(
            f"flatness of band {number}", np.log(inside).mean(axis=1) - np.log(inside.mean(axis=1)), found
        )
