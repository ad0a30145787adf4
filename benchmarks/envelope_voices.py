"""Whose speech the envelope layer's network learns from; nobody of them speaks in a test or a benchmark of
the mark.

The corpus of `benchmarks/synthetic_corpus.py` (which says what it needs in its folder), without those whom
the mark's tests, its benchmark and its study hear: Debian's Asterisk prompts (seven people), hibari's
heart, flite, Festival (and the reader behind festvox-ru), espeak-ng's English and German. Beside it all of
LibriSpeech that one of the corpus's repositories holds, whole, and espeak-ng in other languages and with
other variants.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import soxr

from benchmarks.synthetic_corpus import RATE_HZ, SOURCES, Corpus, decoded, texts
from watermark import sound
from watermark.pcm import float_from_int16, int16_from_float


@dataclass(frozen=True)
class Family:
    """`share`: of the training's speech."""

    name: str
    share: float
    origin: str
    licence: str


def _family(name: str, share: float) -> Family:
    source = next(source for source in SOURCES if source.family == name)
    return Family(name, share, source.origin, source.licence)


ESPEAK: Final = {
    "fr+m3": "fr", "es+f4": "es", "it+m1": "it", "es-419+m6": "es", "fr-be+f1": "fr", "pt-br+f3": "es",
    "nl+m7": "es", "it+f2": "it",
}  # fmt: skip
"""espeak-ng's voice -> the language of the texts that it reads, whether they are its own or not."""
READERS: Final = Family(
    "LibriSpeech", 0.5, "resemble-ai/Resemblyzer 15d828e: 261 readers of LibriSpeech", "CC-BY-4.0"
)
FORMANTS: Final = Family(
    "espeak-ng, other voices", 0.08, f"Debian espeak-ng 1.51: {', '.join(ESPEAK)}", "GPL-3+"
)
FAMILIES: Final = (
    READERS,
    _family("Fillets", 0.06),
    _family("KTuberling", 0.06),
    _family("FSDD", 0.03),
    _family("pico", 0.1),
    _family("open_jtalk", 0.04),
    _family("piper", 0.05),
    _family("tortoise", 0.08),
    FORMANTS,
)
TRIED_ON: Final = {"LibriSpeech": "test-other", "pico": "en-GB", "tortoise": "emma"}
"""Voices that the network does not learn from, by which its training is judged while it runs."""
ESPEAK_S: Final = 40.0
LOUD: Final = 0.003


@dataclass(frozen=True)
class Voice:
    """One voice and its clips, each float32 `(n,)` at 16 kHz, 5 s and longer where it has them."""

    family: str
    name: str
    clips: list[np.ndarray]
    learnt: bool


@cache
def voices(folder: Path) -> list[Voice]:
    """All voices of training, made below `folder` when they are not there; always in the same order."""
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    names = {family.name for family in FAMILIES} - {READERS.name, FORMANTS.name}
    for clip in Corpus(folder).clips():
        if clip.family in names:
            found.setdefault((clip.family, clip.person), []).append(clip.sound)
    for path in _readers(folder):
        reader = path.parent.name if "test-other" in str(path) else path.stem.split("-")[0]
        tried = "test-other " if "test-other" in str(path) else ""
        found.setdefault((READERS.name, tried + reader), []).append(_kept(folder, path))
    for voice, language in ESPEAK.items():
        found[FORMANTS.name, voice] = _espeak(folder, voice, language)
    return [
        Voice(family, name, [trimmed(clip) for clip in clips], not name.startswith(TRIED_ON.get(family, "?")))
        for (family, name), clips in found.items()
    ]


def trimmed(clip: np.ndarray) -> np.ndarray:
    loud = np.flatnonzero(np.abs(clip) > LOUD)
    return clip[max(0, loud[0] - 800) : loud[-1] + 1_600] if len(loud) else clip[:0]


def _readers(folder: Path) -> list[Path]:
    data = folder / "git" / "resemblyzer" / "audio_data"
    alone = sorted((data / "librispeech_train-clean-100").glob("*.flac"))
    return alone + sorted((data / "librispeech_test-other").glob("*/*.flac"))


def _kept(folder: Path, path: Path) -> np.ndarray:
    kept = folder / "readers" / f"{path.stem}.npy"
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        np.save(kept, decoded(path))
    return float_from_int16(np.load(kept))


def _espeak(folder: Path, voice: str, language: str) -> list[np.ndarray]:
    kept = folder / "readers" / f"espeak {voice}.npy"
    if not kept.exists():
        parts: list[np.ndarray] = []
        for number, text in enumerate(texts(language, 8)):
            speed, pitch = str(130 + 12 * number), str(30 + 6 * number)
            command = ["espeak-ng", "-v", voice, "-s", speed, "-p", pitch, "--stdout", text]
            said = sound.parse(subprocess.run(command, capture_output=True, check=True).stdout)
            parts.append(np.asarray(soxr.resample(said.channels[0], said.rate_hz, RATE_HZ), np.float32))
        kept.parent.mkdir(exist_ok=True)
        np.save(kept, int16_from_float(np.concatenate(parts)[: round(ESPEAK_S * RATE_HZ)]))
    whole = float_from_int16(np.load(kept))
    return [whole[at : at + 8 * RATE_HZ] for at in range(0, len(whole) - 4 * RATE_HZ, 8 * RATE_HZ)]


def stream(folder: Path, rng: np.random.Generator, seconds: float, learnt: bool = True) -> np.ndarray:
    """Speech of `seconds`, voice after voice, each as loud as the others: float32 at 16 kHz."""
    by_family: dict[str, list[Voice]] = {}
    for voice in voices(folder):
        if voice.learnt is learnt:
            by_family.setdefault(voice.family, []).append(voice)
    present = [family for family in FAMILIES if family.name in by_family]
    shares = np.array([family.share for family in present])
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < seconds * RATE_HZ:
        family = present[int(rng.choice(len(present), p=shares / shares.sum()))]
        among = by_family[family.name]
        clips = among[int(rng.integers(len(among)))].clips
        clip = clips[int(rng.integers(len(clips)))]
        clip = clip[: 15 * RATE_HZ]
        if len(clip) > RATE_HZ:
            parts.append(clip * (0.06 / (np.sqrt(np.mean(np.square(clip))) + 1e-6)))
    return np.asarray(np.concatenate(parts)[: round(seconds * RATE_HZ)], np.float32)


def sources() -> list[dict[str, str]]:
    """What stands beside the weights."""
    return [{"family": each.name, "origin": each.origin, "licence": each.licence} for each in FAMILIES]
