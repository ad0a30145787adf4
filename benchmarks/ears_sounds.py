"""What the ears are tried with: prompts whose words are known, the lines they come by, sounds of nobody."""

from __future__ import annotations

import re
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import soxr

from benchmarks.synthetic_lines import G722, lost
from benchmarks.watermark.channels import opus
from consent.checks.sound import read
from consent.errors import SoundError
from model.api import Floats
from tests.needs import SOUNDS
from watermark.pcm import float_from_bytes

WHISPER_HZ: Final = 16_000
TEXTS: Final = Path(__file__).with_name("prompts") / "core-sounds-en.txt"
VOICES: Final = {
    "en": "en_US_f_Allison", "es": "es_MX_f_Allison", "fr": "fr_CA_f_June", "it": "it_IT_m_Carlo",
    "ru": "ru_RU_f_IvrvoiceRU",
}  # fmt: skip
MUSIC: Final = Path("/usr/share/asterisk/moh")
LONGEST_S: Final = 9.5
_ONES: Final = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS: Final = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────


def words(text: str) -> list[str]:
    """Words without case, signs and ways of writing numbers."""
    text = (
        text.lower().replace("’", "'").replace("voice mail", "voicemail").replace("touch tone", "touchtone")
    )
    out = []
    for word in re.findall(r"[a-z']+|\d+", text):
        if not word.isdigit():
            out.append(word.strip("'"))
        elif int(word) < 20:
            out.append(_ONES[int(word)])
        elif int(word) < 100:
            out += [_TENS[int(word) // 10 - 2], *([_ONES[int(word) % 10]] if int(word) % 10 else [])]
        else:
            out += [_ONES[int(digit)] for digit in word]
    return [word for word in out if word]


def wrong_words(said: list[str], heard: list[str]) -> int:
    """Levenshtein's distance in words."""
    row = list(range(len(heard) + 1))
    for count, word in enumerate(said, 1):
        before, row[0] = row[0], count
        for at, other in enumerate(heard, 1):
            before, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, before + (word != other))
    return row[-1]


# ── sound ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Prompt:
    """A human's recording at 16 kHz; `said` are its words, where they are known."""

    name: str
    pcm: Floats
    said: list[str]


def english(every: int) -> list[Prompt]:
    """Prompts of three words or more, from 1 to 9.5 s long, whose texts have no signs to guess at."""
    found = []
    for line in TEXTS.read_text().splitlines():
        name, _, text = line.partition(": ")
        path = SOUNDS / VOICES["en"] / f"{name}.wav"
        said = words(text)
        if line.startswith(";") or len(said) < 3 or re.search(r"[\[\]()#*@]", text) or not path.is_file():
            continue
        pcm = read(path).at_16k
        if 1.0 <= len(pcm) / WHISPER_HZ <= LONGEST_S:
            found.append(Prompt(name, pcm, said))
    return found[::every]


def some_of(language: str, every: int) -> list[Prompt]:
    """Prompts of 1.5 s or more in a language."""
    folder = SOUNDS / VOICES[language]
    found = []
    for path in sorted(folder.rglob("*.wav"))[:: 4 * every]:
        relative = str(path.relative_to(folder))
        if any(word in relative for word in ("silence", "tone", "beep", "monkeys", "letters", "digits")):
            continue
        try:
            pcm = read(path).at_16k
        except SoundError:  # a file of the package that holds none
            continue
        if 1.5 <= len(pcm) / WHISPER_HZ <= LONGEST_S:
            found.append(Prompt(relative, pcm, []))
    return found


Line = Callable[[Floats, np.random.Generator], Floats]
"""float32 at 16 kHz -> the same after a line."""


def _narrow(pcm: Floats) -> Floats:
    """8 kHz mu-law (ITU-T G.711, its continuous curve), at 8 kHz."""
    sound = np.clip(soxr.resample(pcm, WHISPER_HZ, 8_000), -1, 1)
    steps = np.round(np.log1p(255 * np.abs(sound)) / np.log(256) * 127) / 127
    return (np.sign(sound) * (256**steps - 1) / 255).astype(np.float32)


def _wide(pcm: Floats) -> Floats:
    return np.asarray(soxr.resample(pcm, 8_000, WHISPER_HZ), np.float32)


def g711(pcm: Floats, _: np.random.Generator) -> Floats:
    return _wide(_narrow(pcm))


def losing(pcm: Floats, chance: np.random.Generator) -> Floats:
    """5 % of the packets lost and concealed."""
    return _wide(lost(_narrow(pcm), 8_000, chance, 0.05).astype(np.float32))


def g722(pcm: Floats, _: np.random.Generator) -> Floats:
    sound, rate_hz = G722(pcm, WHISPER_HZ)
    return np.asarray(soxr.resample(sound, rate_hz, WHISPER_HZ), np.float32)


def opus24(pcm: Floats, _: np.random.Generator) -> Floats:
    sound, rate_hz = opus(24)(pcm, WHISPER_HZ)
    return np.asarray(soxr.resample(sound, rate_hz, WHISPER_HZ), np.float32)


class Babble:
    """Six people who talk at once in four languages, so many dB below the speech; then G.711."""

    def __init__(self, snr_db: float) -> None:
        self._snr_db = snr_db
        self._talkers = [
            np.concatenate([prompt.pcm for prompt in some_of(language, 3)])
            for language in ("es", "fr", "it", "ru")
        ]

    def __call__(self, pcm: Floats, chance: np.random.Generator) -> Floats:
        noise = np.zeros(len(pcm))
        for k in range(6):
            talker = self._talkers[k % len(self._talkers)]
            at = int(chance.integers(0, len(talker) - len(pcm)))
            noise += talker[at : at + len(pcm)]
        noise *= np.sqrt(np.mean(pcm**2) / np.mean(noise**2)) * 10 ** (-self._snr_db / 20)
        return g711((0.7 * (pcm + noise)).astype(np.float32), chance)


def _track(path: Path) -> Floats:
    """A piece of music, int16 mono, at 16 kHz; it may be as long as it likes."""
    with wave.open(str(path)) as file:
        pcm = float_from_bytes(file.readframes(file.getnframes()))
        return np.asarray(soxr.resample(pcm, file.getframerate(), WHISPER_HZ), np.float32)


def nobody(seconds: int) -> Iterator[tuple[str, Floats]]:
    """Pieces of 10 s in which nobody speaks, `seconds` of each kind, over G.711."""
    chance = np.random.default_rng(9)
    time_s = np.arange(10 * WHISPER_HZ) / WHISPER_HZ
    tones = ((350, 440), (440, 480), (425,), (480, 620), (1400,), (770, 1336), (2100,))
    tracks = [_track(path) for path in sorted(MUSIC.glob("*.wav"))] if MUSIC.is_dir() else []
    for k in range(seconds // 10):
        level = 10 ** chance.uniform(-2.5, -0.6)
        white = chance.standard_normal(len(time_s))
        spectrum = np.fft.rfft(white) / np.maximum(np.arange(len(white) // 2 + 1), 20) ** chance.choice(
            [0.5, 1.0]
        )
        colour = np.fft.irfft(spectrum, len(white))
        on_s = float(chance.choice([9.0, 1.0, 0.5, 0.2, 0.1]))
        pair = tones[k % len(tones)]
        tone = sum(np.sin(2 * np.pi * hz * time_s) for hz in pair) * (time_s % (2 * on_s) < on_s)
        clicks = chance.standard_normal(len(time_s)) * (chance.random(len(time_s)) < 3e-4)
        kinds = {
            "silence": 1e-4 * white,
            "white noise": level * white / 3,
            "coloured noise": level * colour / 3 / colour.std(),
            "tones": 0.15 * tone,
            "clicks": level * clicks,
        }
        if tracks:
            track = tracks[k % len(tracks)]
            at = int(chance.integers(0, len(track) - len(time_s)))
            kinds["music"] = track[at : at + len(time_s)]
        for name, pcm in kinds.items():
            yield name, g711(np.asarray(pcm, np.float32), chance)
