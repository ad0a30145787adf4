"""Speech for the watermark's benchmark: human prompts of five languages, and three synthetic voices.

Debian's asterisk-core-sounds-*-g722 (16 kHz; better) or -wav (8 kHz) are read where they lie; nothing is
committed. Two human voices and the gateway's own were used while the mark was tuned; the others were kept
apart.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import soxr

from watermark import sound

RATE_HZ = 24_000
PROMPTS = Path("/usr/share/asterisk/sounds")
HUMAN = {
    "en": "en_US_f_Allison",
    "es": "es_MX_f_Allison",
    "fr": "fr_CA_f_June",
    "it": "it_IT_m_Carlo",
    "ru": "ru_RU_f_IvrvoiceRU",
}
ESPEAK = {"espeak-en": "en-gb", "espeak-de": "de"}
TUNED = ("en", "es", "hibari")
HUMAN_APART = ("fr", "it", "ru")
APART = (*HUMAN_APART, *ESPEAK)
VOICES = (*TUNED, *APART)
TEXTS = (
    "Thank you for calling the clinic. How may I help you today?",
    "Your appointment is on Monday the fourth of June, at ten thirty in the morning.",
    "I am sorry, I did not quite catch that. Could you please say it again?",
    "Please hold the line while I look up your account; it will only take a moment.",
    "We are open from nine to five on weekdays, and from ten to two on Saturdays.",
    "This call is answered by an artificial voice. You may ask for a person at any time.",
    "If you would like to hear these options again, say repeat, or press the star key.",
    "The quick brown fox jumps over the lazy dog while seven wizards brew a potion.",
)


def ffmpeg(arguments: list[str], data: bytes = b"") -> bytes:
    command = ["ffmpeg", "-v", "error", "-nostdin", *arguments]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def trimmed(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    if not len(loud):
        return samples[:0]
    return samples[max(0, loud[0] - rate_hz // 20) : loud[-1] + rate_hz // 10]


def human(folder: str, prompts: Path, seconds: float, seed: int) -> np.ndarray:
    """Prompts of one voice in random order, joined, 24 kHz."""
    files = sorted((prompts / folder).rglob("*.g722")) or sorted((prompts / folder).rglob("*.wav"))
    files = [path for path in files if "silence" not in path.parts]
    random.Random(seed).shuffle(files)
    parts: list[np.ndarray] = []
    length = 0
    for path in files:
        if path.suffix == ".g722":
            rate_hz = 16_000
            samples = np.frombuffer(ffmpeg(["-f", "g722", "-i", str(path), "-f", "f32le", "-"]), "<f4")
        else:
            recording = sound.read(path)
            rate_hz, samples = recording.rate_hz, recording.channels[0]
        part = soxr.resample(trimmed(samples, rate_hz), rate_hz, RATE_HZ, quality="VHQ")
        if len(part) > RATE_HZ // 2:
            parts.append(part.astype(np.float32))
            length += len(part)
        if length > seconds * RATE_HZ:
            break
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


@cache
def hibari(seconds: float) -> np.ndarray:
    from hibari import Hibari

    speak = Hibari(threads=1)
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < seconds * RATE_HZ:
        text = TEXTS[len(parts) % len(TEXTS)]
        parts.append(trimmed(np.asarray(speak(text, seed=len(parts)), np.float32), RATE_HZ))
    return np.concatenate(parts)


def espeak(voice: str, seconds: float) -> np.ndarray:
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < seconds * RATE_HZ:
        text = TEXTS[len(parts) % len(TEXTS)]
        speed, pitch = str(140 + 7 * (len(parts) % 9)), str(35 + 5 * (len(parts) % 7))
        said = subprocess.run(
            ["espeak-ng", "-v", voice, "-s", speed, "-p", pitch, "--stdout", text],
            capture_output=True,
            check=True,
        ).stdout
        recording = sound.parse(said)
        parts.append(trimmed(soxr.resample(recording.channels[0], recording.rate_hz, RATE_HZ), RATE_HZ))
    return np.concatenate(parts).astype(np.float32)


def speech(voice: str, seconds: float, prompts: Path = PROMPTS, seed: int = 11) -> np.ndarray | None:
    """About `seconds` of this voice, float32 24 kHz; None when it is not installed."""
    if voice == "hibari":
        whole = hibari(seconds)
    elif voice in ESPEAK:
        if shutil.which("espeak-ng") is None:
            return None
        whole = espeak(ESPEAK[voice], seconds)
    else:
        whole = human(HUMAN[voice], prompts, seconds, seed)
    return whole[: round(seconds * RATE_HZ)] if len(whole) > RATE_HZ else None
