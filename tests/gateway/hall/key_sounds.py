"""What keys sound like on a telephone line (ITU-T Q.23), and what G.711 leaves of any sound."""

from __future__ import annotations

import numpy as np

from gateway.hall.media.audio import Floats
from gateway.hall.media.key_tones import HIGH_HZ, KEYS, LOW_HZ

RATE_HZ = 8_000


def key_sound(
    key: str, seconds: float, *, detuned: tuple[float, float] = (0.0, 0.0), low_db: float = -10.0,
    high_db: float = -10.0, rate_hz: int = RATE_HZ, phase: float = 0.3,
) -> Floats:  # fmt: skip
    """The two tones of a key. `detuned` are shares of each frequency, levels of full scale."""
    low, high = divmod(KEYS.index(key), len(HIGH_HZ))
    at = np.arange(round(seconds * rate_hz)) / rate_hz
    sound = 10 ** (low_db / 20) * np.sin(2 * np.pi * LOW_HZ[low] * (1 + detuned[0]) * at + phase)
    sound += 10 ** (high_db / 20) * np.sin(2 * np.pi * HIGH_HZ[high] * (1 + detuned[1]) * at)
    return sound.astype(np.float32)


def dialled_sound(keys: str, on_s: float, off_s: float, rate_hz: int = RATE_HZ) -> Floats:
    """Keys one after another, each followed by silence."""
    silence = np.zeros(round(off_s * rate_hz), np.float32)
    return np.concatenate([part for key in keys for part in (key_sound(key, on_s, rate_hz=rate_hz), silence)])


def mu_law(sound: Floats) -> Floats:
    """After G.711: mu-law with its 255 steps, unlike the standard's in nothing that is heard."""
    pressed = np.sign(sound) * np.log1p(255 * np.abs(np.clip(sound, -1, 1))) / np.log(256)
    steps = np.round(pressed * 128) / 128
    return (np.sign(steps) * (256 ** np.abs(steps) - 1) / 255).astype(np.float32)
