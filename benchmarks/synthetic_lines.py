"""The lines that a recording may have come by: the same for people and machines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import soxr

from benchmarks.watermark.channels import codec, opus

Line = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""float32 at 16 kHz, as float32 at 24 kHz."""

RATE_HZ: Final = 16_000
G722: Final = codec(16_000, ["-c:a", "g722", "-f", "g722"], ["-f", "g722"])
MP3: Final = codec(16_000, ["-c:a", "libmp3lame", "-b:a", "32k", "-f", "mp3"], ["-f", "mp3"])
GSM: Final = codec(8_000, ["-c:a", "libgsm", "-f", "gsm"], ["-f", "gsm"])
OTHERS: Final = (G722, MP3, GSM, opus(16))


def room(sound: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """A small room: RT60 .1 to .4 s, direct to reverberant 3 to 12 dB."""
    decay_s, ratio_db = chance.uniform(0.1, 0.4), chance.uniform(3, 12)
    time_s = np.arange(int(decay_s * RATE_HZ)) / RATE_HZ
    response = chance.standard_normal(len(time_s)) * np.exp(-6.9 * time_s / decay_s)
    response *= 10 ** (-ratio_db / 20) / np.sqrt(np.sum(response**2))
    response[0] += 1.0
    size = 1 << (len(sound) + len(response)).bit_length()
    whole = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(response, size), size)
    return np.asarray(whole[: len(sound)], np.float32)


def noise(sound: np.ndarray, chance: np.random.Generator, snr_db: float) -> np.ndarray:
    """White, pink or brown noise, that far below the speech."""
    spectrum = np.fft.rfft(chance.standard_normal(len(sound)))
    spectrum /= np.maximum(np.arange(len(spectrum)), 20) ** chance.choice([0.0, 0.5, 1.0])
    hiss = np.fft.irfft(spectrum, len(sound))
    hiss *= np.sqrt(np.mean(sound**2) / np.mean(hiss**2)) * 10 ** (-snr_db / 20)
    return np.asarray(sound + hiss, np.float32)


def handset(sound: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """A microphone and a line: a smooth response within 5 dB, and an edge at 100 to 300 Hz."""
    hz = np.fft.rfftfreq(len(sound), 1 / RATE_HZ)
    knots = np.linspace(0, 8_000, 9)
    response = 10 ** (np.interp(hz, knots, chance.uniform(-5, 5, 9)) / 20)
    edge = chance.uniform(100, 300)
    response *= 1 / np.sqrt(1 + (edge / np.maximum(hz, 1)) ** 4)
    return np.asarray(np.fft.irfft(np.fft.rfft(sound) * response, len(sound)), np.float32)


def level(sound: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """The peak 1 to 24 dB below full scale."""
    return np.asarray(sound / np.abs(sound).max() * 10 ** (-chance.uniform(1, 24) / 20), np.float32)


def lost(sound: np.ndarray, rate_hz: int, chance: np.random.Generator, share: float) -> np.ndarray:
    """Packets of 20 ms lost, and concealed by the one before, fading."""
    size = rate_hz // 50
    packets = sound[: len(sound) // size * size].reshape(-1, size).copy()
    for at in np.flatnonzero(chance.random(len(packets)) < share):
        packets[at] = packets[at - 1] * 0.7
    return packets.ravel()


def g711_at_8k(sound: np.ndarray, rate_hz: int, chance: np.random.Generator) -> np.ndarray:
    """By mu-law or A-law (ITU-T G.711, its continuous curves, 8 bits); ffmpeg is slow to start."""
    narrow = np.clip(soxr.resample(sound, rate_hz, 8_000), -1, 1).astype(np.float64)
    loud, sign = np.abs(narrow), np.sign(narrow)
    if chance.random() < 0.5:
        steps = np.round(np.log1p(255 * loud) / np.log(256) * 127) / 127
        heard = (256**steps - 1) / 255
    else:
        knee = 1 + np.log(87.6)
        steps = np.where(loud < 1 / 87.6, 87.6 * loud, 1 + np.log(np.maximum(87.6 * loud, 1))) / knee
        steps = (np.floor(steps * 127) + 0.5) / 128
        heard = np.where(steps < 1 / knee, steps * knee, np.exp(steps * knee - 1)) / 87.6
    return (sign * heard).astype(np.float32)


def at_24k(sound: np.ndarray, rate_hz: int) -> np.ndarray:
    return np.asarray(soxr.resample(sound, rate_hz, 24_000), np.float32)


def as_it_came(sound: np.ndarray, _chance: np.random.Generator) -> np.ndarray:
    return at_24k(sound, RATE_HZ)


def g711(sound: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    return at_24k(g711_at_8k(level(sound, chance), RATE_HZ, chance), 8_000)


def g722(sound: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    return at_24k(*G722(level(sound, chance), RATE_HZ))


def bad(sound: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """A room, noise at 20 dB, G.711, 3 % of packets lost."""
    heard = level(noise(room(sound, chance), chance, 20.0), chance)
    return at_24k(lost(g711_at_8k(heard, RATE_HZ, chance), 8_000, chance, 0.03), 8_000)


def any_line(sound: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Everything by chance: room, noise, handset, level, G.711 or another codec or both, losses."""
    if chance.random() < 0.5:
        sound = room(sound, chance)
    sound = handset(noise(sound, chance, chance.uniform(15, 45)), chance)
    rate_hz = RATE_HZ
    if chance.random() < 0.4:
        sound, rate_hz = OTHERS[chance.integers(len(OTHERS))](level(sound, chance), rate_hz)
    if chance.random() < 0.7:
        sound, rate_hz = g711_at_8k(level(sound, chance), rate_hz, chance), 8_000
    if chance.random() < 0.3:
        sound = lost(sound, rate_hz, chance, chance.uniform(0, 0.05))
    return at_24k(sound, rate_hz)


LINES: Final[dict[str, Line]] = {
    "as it came": as_it_came,
    "G.711": g711,
    "bad line": bad,
    "any line": any_line,
}
