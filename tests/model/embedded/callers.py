"""People on a telephone: synthetic callers who say what the demo plan knows, and humans who say other things.

Callers are espeak-ng in several accents, speeds and pitches, and hibari's voice; the humans are Debian's
recorded prompts. All of them come through G.711 as float32 at 24 kHz, with 0.3 s of line noise before and
after, as a hall sends an utterance.
"""

from __future__ import annotations

import functools
import random
import subprocess
import tomllib
import wave
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from scipy import signal

from gateway.dialplan.disclosure import asked_again
from model.api import RATE_HZ, Floats
from tests.needs import SOUNDS, need_program

PLAN = Path(__file__).parents[3] / "dialplans" / "10-demo.toml"
LINE_HZ = 8_000
ACCENTS = (
    "en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-029", "en-us-nyc",
    "en-us+f2", "en-us+f4", "en-us+m3", "en-us+m5", "en-gb+f3",
)  # fmt: skip
WORDS_PER_MINUTE = (130, 150, 165, 180, 200)
HIBARI_SPEEDS = (0.85, 1.0, 1.2)
PAUSE_S = 0.3
LONGEST_S = 20.0
ENGLISH = "en_US_f_Allison"
LANGUAGES = (ENGLISH, "es_MX_f_Allison", "fr_CA_f_June", "it_IT_m_Carlo", "ru_RU_f_IvrvoiceRU")

# What English prompts say, where their file names tell. For a human who says something in the grammar.
_MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
_DAYS = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"]
_NUMBERS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]
_LETTERS = [
    "alpha",
    "bravo",
    "charlie",
    "delta",
    "echo",
    "foxtrot",
    "golf",
    "hotel",
    "india",
    "juliet",
    "kilo",
    "lima",
    "mike",
    "november",
    "oscar",
    "papa",
    "quebec",
    "romeo",
    "sierra",
    "tango",
    "uniform",
    "victor",
    "whiskey",
    "xray",
    "yankee",
    "zulu",
]
SPOKEN = {
    **{f"digits/mon-{k}": word for k, word in enumerate(_MONTHS)},
    **{f"digits/day-{k}": word for k, word in enumerate(_DAYS)},
    **{f"digits/{k}": word for k, word in enumerate(_NUMBERS)},
    **{
        f"digits/{word}": word
        for word in ["hundred", "thousand", "million", "today", "yesterday", "tomorrow"]
    },
    **{f"phonetic/{word[0]}_p": word for word in _LETTERS},
    **{
        word: word
        for word in [
            "activated",
            "cancelled",
            "calling",
            "added",
            "number",
            "extension",
            "directory",
            "message",
        ]
    },
    **{
        word: word
        for word in ["hello-world", "do-not-disturb", "call-waiting", "call-forwarding", "speed-dial"]
    },
    "privacy-thankyou": "thank you",
    "auth-thankyou": "thank you",
    "vm-goodbye": "goodbye",
    "to-call-this-number": "to call this number",
    "the-party-you-are-calling": "the party you are calling",
    "is-in-use": "is in use",
    "is-curntly-unavail": "is currently unavailable",
    "telephone-number": "telephone number",
    "to-extension": "to extension",
    "queue-thankyou": "thank you for your patience",
    "please-try-again": "please try again",
    "all-circuits-busy-now": "all circuits are busy now",
}
SPOKEN = {name: text.replace("-", " ") for name, text in SPOKEN.items()}


@dataclass(frozen=True, slots=True)
class Utterance:
    """Somebody says `phrase` (None: something else). `who` is a voice, or a prompt's language and name."""

    who: str
    phrase: str | None
    pcm: Floats
    intent: str | None = None


@functools.cache
def demo() -> dict[str, Any]:
    """The demo plan's `converse`, with what the gateway adds: who is speaking?"""
    plan = tomllib.loads(PLAN.read_text())
    verbs = next(route for route in plan["route"] if route["name"] == "demo")["do"]
    converse = next(verb for verb in verbs if verb["verb"] == "converse")
    return {**converse, "answers": [*converse["answers"], asked_again("en")]}


@functools.cache
def demo_phrases() -> dict[str, str]:
    """phrase -> intent"""
    return {phrase: answer["intent"] for answer in demo()["answers"] for phrase in answer["ask"]}


def telephone(pcm: Floats, seed: str) -> Floats:
    """`pcm` (float32 8 kHz) as a caller at some level, with some noise, over G.711 (mu-law), at 24 kHz."""
    chance = np.random.default_rng(zlib.crc32(seed.encode()))
    loud = np.flatnonzero(np.abs(pcm) > 0.01 * np.max(np.abs(pcm)) + 1e-4)
    voice = pcm[loud[0] : loud[-1] + 1] / np.max(np.abs(pcm)) * chance.uniform(0.1, 0.7)
    snr_db = chance.uniform(22, 40)
    pad = round(PAUSE_S * LINE_HZ)
    sound = np.pad(voice, pad)
    sound = sound + chance.normal(0, np.sqrt(np.mean(voice**2)) * 10 ** (-snr_db / 20), len(sound))
    band = signal.butter(4, [250, 3500], "bandpass", fs=LINE_HZ, output="sos")
    sound = np.clip(signal.sosfilt(band, sound), -1, 1)
    code = np.round((np.sign(sound) * np.log1p(255 * np.abs(sound)) / np.log(256) + 1) * 127.5) / 127.5 - 1
    decoded = np.sign(code) * (256 ** np.abs(code) - 1) / 255
    return soxr.resample(decoded.astype(np.float32), LINE_HZ, RATE_HZ).astype(np.float32)


def espeak(text: str, accent: str = "en-us", words_per_minute: int = 165, pitch: int = 50) -> Floats:
    """float32 8 kHz"""
    argv = [need_program("espeak-ng"), "-v", accent, "-s", str(words_per_minute), "-p", str(pitch)]
    wav = subprocess.run([*argv, "--stdout", text], capture_output=True, check=True).stdout
    return soxr.resample(np.frombuffer(wav[44:], "<i2").astype(np.float32) / 32768, 22_050, LINE_HZ)


@functools.cache
def _hibari() -> Any:
    from hibari import Hibari

    return Hibari(threads=1)


def hibari(text: str, speed: float = 1.0) -> Floats:
    """float32 8 kHz"""
    return soxr.resample(np.asarray(_hibari()(text, speed=speed, seed=0), np.float32), RATE_HZ, LINE_HZ)


def callers(seed: int, espeaks: int = 3, phrases: dict[str, str] | None = None) -> Iterator[Utterance]:
    """All the demo plan's phrases (or these), each by some espeak voices and by hibari's at its speeds."""
    chance = random.Random(seed)
    for phrase, intent in (phrases or demo_phrases()).items():
        for k in range(espeaks):
            accent, pace = chance.choice(ACCENTS), chance.choice(WORDS_PER_MINUTE)
            pcm = espeak(phrase, accent, pace, chance.randint(25, 75))
            yield Utterance(f"espeak {accent} {pace}", phrase, telephone(pcm, f"{phrase}{k}{seed}"), intent)
        for speed in HIBARI_SPEEDS:
            pcm = telephone(hibari(phrase, speed), f"{phrase}{speed}{seed}")
            yield Utterance(f"hibari {speed}", phrase, pcm, intent)


def prompts(language: str = ENGLISH) -> Iterator[Utterance]:
    """Humans who say nothing of the demo plan's. Tones, silence, and "goodbye" are left out."""
    folder = SOUNDS / language
    for path in sorted(folder.rglob("*.wav")):
        name = str(path.relative_to(folder).with_suffix(""))
        if name.startswith("silence/") or any(
            word in name for word in ("beep", "2tone", "monkeys", "goodbye")
        ):
            continue
        if (utterance := _prompt(path, language, name)) is not None:
            yield utterance


def known_humans() -> Iterator[Utterance]:
    """Humans whose words are known from their prompt's name: to be found when these are in the grammar."""
    for name, text in sorted(SPOKEN.items()):
        path = SOUNDS / ENGLISH / f"{name}.wav"
        if path.exists() and (utterance := _prompt(path, ENGLISH, name)) is not None:
            yield Utterance(utterance.who, text, utterance.pcm)


def _prompt(path: Path, language: str, name: str) -> Utterance | None:
    with wave.open(str(path)) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
    if not 0.25 * LINE_HZ < len(pcm) < LONGEST_S * LINE_HZ or np.max(np.abs(pcm)) < 0.01:
        return None
    return Utterance(f"{language[:2]}/{name}", None, telephone(pcm, language + name))
