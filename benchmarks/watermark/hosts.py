"""Excerpts to be marked: stretches of one voice's speech, the same in every run.

Voices that no mark here learnt from are those of `host_speech`. A stretch is 30 s, and shorter looks hear its
beginning, so that all lengths see the same speech. What a voice says is kept on disk once it was made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.watermark.host_speech import ESPEAK, PROMPTS, RATE_HZ, VOICES, speech
from watermark.pcm import float_from_int16, int16_from_float

STRETCH_S: Final = 30
CLIPS: Final = 17
"""Stretches of each voice: with six voices beside espeak's, 102."""


@dataclass(frozen=True)
class HostSpeech:
    """`speech`: float32 `(n,)` at 24 kHz, 30 s. `number` counts the stretches of its voice."""

    voice: str
    number: int
    speech: np.ndarray

    @property
    def is_espeak(self) -> bool:
        """Whether a formant synthesizer speaks, which all figures hold apart."""
        return self.voice in ESPEAK

    @property
    def name(self) -> str:
        return f"{self.voice} {self.number}"


@cache
def said(voice: str, clips: int, folder: Path, prompts: Path = PROMPTS) -> np.ndarray | None:
    """All stretches of a voice, float32 `(clips, n)`, fewer where it has less to say; None when it is not
    installed. Kept in `folder` as 16 bits."""
    kept = folder / f"{voice}-{clips}.npy"
    if not kept.exists():
        whole = speech(voice, float(clips * STRETCH_S), prompts)
        if whole is None:
            return None
        length = STRETCH_S * RATE_HZ
        count = len(whole) // length
        folder.mkdir(parents=True, exist_ok=True)
        np.save(kept, int16_from_float(whole[: count * length]).reshape(count, length))
    return float_from_int16(np.load(kept))


def rounds(clips: int, folder: Path, voices: tuple[str, ...] = VOICES) -> Iterator[list[HostSpeech]]:
    """The first stretch of every voice, then the second: whoever stops early has heard all voices."""
    missing = [voice for voice in voices if said(voice, clips, folder) is None]
    for voice in missing:
        print(f"voice {voice}: not installed, left out")
    for number in range(clips):
        hosts = []
        for voice in voices:
            stretches = said(voice, clips, folder)
            if stretches is not None and number < len(stretches):
                hosts.append(HostSpeech(voice, number, stretches[number]))
        yield hosts


def babble(seconds: float, rng: np.random.Generator, folder: Path, besides: str) -> np.ndarray:
    """Five voices at once, backwards, without this one: float32 at 24 kHz."""
    others = [each for voice in VOICES if voice != besides and (each := said(voice, 1, folder)) is not None]
    streams = []
    for chosen in rng.choice(len(others), 5, replace=len(others) < 5):
        one = np.roll(others[int(chosen)][0][::-1], int(rng.integers(STRETCH_S * RATE_HZ)))
        streams.append(one / (np.sqrt(np.mean(np.square(one))) + 1e-6) * 0.05)
    return np.asarray(np.resize(np.sum(streams, axis=0), round(seconds * RATE_HZ)), np.float32)
