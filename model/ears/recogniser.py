"""Which of some phrases an utterance says, and how well: pocketsphinx, an acoustic model, and no dictation.

One pass finds the likeliest phrase; a grammar alone takes nearly anything for one of its phrases, so a second
pass aligns that phrase's phones with the sound and `evidence` weighs how well they sit. Blocking, about 5 %
of the sound's duration; holds the interpreter's lock, so it runs in a process of its own (`ears`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import soxr

from model.api import RATE_HZ, Floats
from watermark.pcm import bytes_from_float

EAR_HZ: Final = 16_000
HOP: Final = 160
"""Samples of one frame of the recogniser (10 ms)."""
SHORTEST_S: Final = 0.2
LONGEST_S: Final = 12.0
"""Nobody takes longer to say a phrase; a longer utterance is in no grammar, and would cost most."""
QUIETEST: Final = 1e-3
GRAMMARS: Final = 32
"""Grammars kept ready; each is a few hundred kB."""


@dataclass(frozen=True, slots=True)
class Phone:
    """A phone of the phrase where it was found. `score`: a log likelihood, 0 the best a frame could have."""

    name: str
    start: int
    frames: int
    score: float


@dataclass(frozen=True, slots=True)
class Alignment:
    """A phrase laid over an utterance, frames of 10 ms."""

    phrase: str
    words: tuple[tuple[Phone, ...], ...]
    """each word's phones"""
    loud: Floats
    """`(frames,)`: each frame's level in dB below the loudest"""


class Recogniser:
    """One set of decoders; not for two threads at once."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder, get_model_path, set_loglevel

        set_loglevel("FATAL")
        model = f"{get_model_path()}/en-us"
        self._decoder: Any = Decoder(
            hmm=f"{model}/en-us",
            dict=f"{model}/cmudict-en-us.dict",
            loglevel="FATAL",
            lw=1.0,
            bestpath=False,  # its segments cannot be aligned, and a grammar this small needs no lattice
        )
        self._grammars: dict[str, None] = {}

    def sayable(self, phrase: str) -> bool:
        """Whether the dictionary has every word."""
        words = phrase.split()
        return bool(words) and all(self._decoder.lookup_word(word) for word in words)

    def align(self, pcm: Floats, phrases: Sequence[str]) -> Alignment | None:
        """The likeliest of `phrases` in `pcm` (float32 24 kHz); None when none can be found."""
        level = float(np.max(np.abs(pcm), initial=0.0))
        if level < QUIETEST or not SHORTEST_S <= len(pcm) / RATE_HZ <= LONGEST_S:
            return None
        sound = soxr.resample(pcm * np.float32(0.5 / level), RATE_HZ, EAR_HZ)
        name = self._grammar(tuple(sorted(set(phrases))))
        if name is None:
            return None
        raw = bytes_from_float(sound)
        decoder = self._decoder
        decoder.activate_search(name)
        self._run(raw)
        hypothesis = decoder.hyp()
        if hypothesis is None or not hypothesis.hypstr:
            return None
        try:
            decoder.set_alignment()
            self._run(raw)
            found = decoder.get_alignment()
        except RuntimeError:  # the phones do not fit into the sound
            return None
        finally:
            decoder.activate_search(name)
        words = tuple(
            tuple(Phone(phone.name, phone.start, phone.duration, float(phone.score)) for phone in word)
            for word in found
            if word.name[0] not in "<["
        )
        return Alignment(hypothesis.hypstr, words, _levels(sound)) if words else None

    def _run(self, raw: bytes) -> None:
        self._decoder.start_utt()
        self._decoder.process_raw(raw, full_utt=True)
        self._decoder.end_utt()

    def _grammar(self, phrases: tuple[str, ...]) -> str | None:
        """The name of these phrases' search, made once; None when the dictionary has none of them."""
        name = hashlib.sha256("|".join(phrases).encode()).hexdigest()[:16]
        if name in self._grammars:
            return name
        sayable = [phrase.split() for phrase in phrases if self.sayable(phrase)]
        if not sayable:
            return None
        # a tree of words from state 0, every phrase's last word leading to state 1, without the empty
        # transitions that a grammar file would have: an alignment cannot pass them
        states: dict[tuple[str, ...], int] = {(): 0}
        moves: dict[tuple[int, int, str], None] = {}
        for words in sayable:
            for count, word in enumerate(words[:-1], 1):
                at = states[tuple(words[: count - 1])]
                to = states.setdefault(tuple(words[:count]), len(states) + 1)
                moves[at, to, word] = None
            moves[states[tuple(words[:-1])], 1, words[-1]] = None
        decoder = self._decoder
        graph = [(at, to, 1.0, word) for at, to, word in moves]
        decoder.add_fsg(name, decoder.create_fsg(name, 0, 1, graph))
        self._grammars[name] = None
        if len(self._grammars) > GRAMMARS:
            oldest = next(iter(self._grammars))
            del self._grammars[oldest]
            decoder.remove_search(oldest)
        return name


def _levels(sound: Floats) -> Floats:
    """`(frames,)` dB of 10 ms frames, the loudest (95th percentile) being 0."""
    frames = sound[: len(sound) // HOP * HOP].reshape(-1, HOP)
    power = np.mean(frames**2, axis=1) + 1e-9
    levels: Floats = 10 * np.log10(power / np.percentile(power, 95))
    return levels.astype(np.float32)
