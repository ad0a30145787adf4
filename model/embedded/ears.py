"""The embedded engine's hearing: pocketsphinx against a grammar of the phrases that have an answer.

An utterance is decoded when it is over (some 40 ms of CPU for a short sentence), in a worker thread, against
the grammar and against free phones; the difference tells how far the sound is from anything in the grammar.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import soxr

from model.api import RATE_HZ, Floats

EAR_HZ: Final = 16_000
SHORTEST_S: Final = 0.2
SURE: Final = -0.085
"""Per-frame log difference of grammar to free phones above which a phrase is taken as said."""
POSSIBLE: Final = -0.12
"""Above this the caller is asked to confirm; below, nothing was understood."""


@dataclass(frozen=True, slots=True)
class Hearing:
    """What an utterance was taken for. `phrase` is None when it was like nothing in the grammar."""

    phrase: str | None
    confidence: float
    sure: bool


NOTHING: Final = Hearing(None, 0.0, False)


class Ears:
    """Decoders for all conversations; one utterance at a time."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder, get_model_path, set_loglevel

        set_loglevel("FATAL")
        model = f"{get_model_path()}/en-us"
        common = {"hmm": f"{model}/en-us", "loglevel": "FATAL"}
        self._grammar: Any = Decoder(**common, dict=f"{model}/cmudict-en-us.dict", lw=1.0)
        self._phones: Any = Decoder(
            **common, allphone=f"{model}/en-us-phone.lm.bin", lw=2.0, beam=1e-20, pbeam=1e-20
        )
        self._known: set[str] = set()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ears")

    async def understand(self, pcm: Floats, phrases: Iterable[str]) -> Hearing:
        """Which of `phrases` (lower case words) `pcm` (float32 24 kHz) says."""
        words = tuple(sorted(set(phrases)))
        if not words or len(pcm) < SHORTEST_S * RATE_HZ:
            return NOTHING
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._decode, pcm, words)

    def _decode(self, pcm: Floats, words: tuple[str, ...]) -> Hearing:
        level = float(np.max(np.abs(pcm)))
        if level < 1e-3:
            return NOTHING
        sound = soxr.resample(pcm * (0.5 / level), RATE_HZ, EAR_HZ)
        raw = (sound * 32767).astype("<i2").tobytes()
        self._grammar.activate_search(self._search(words))
        phrase, score = _run(self._grammar, raw)
        if phrase is None:
            return NOTHING
        _, free = _run(self._phones, raw)
        frames = max(1, len(raw) // 320)
        margin = (score - free) / frames
        confidence = float(np.clip((margin - POSSIBLE) / (SURE - POSSIBLE) * 0.5 + 0.25, 0.0, 1.0))
        if margin < POSSIBLE:
            return Hearing(None, confidence, False)
        return Hearing(phrase, confidence, margin >= SURE)

    def _search(self, words: tuple[str, ...]) -> str:
        """The grammar of these phrases, made once."""
        name = "g" + hashlib.sha256("|".join(words).encode()).hexdigest()[:16]
        if name not in self._known:
            sayable = [
                phrase for phrase in words if all(self._grammar.lookup_word(w) for w in phrase.split())
            ]
            rule = " | ".join(sayable)
            self._grammar.add_jsgf_string(name, f"#JSGF V1.0;\ngrammar {name};\npublic <said> = {rule};\n")
            self._known.add(name)
        return name

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _run(decoder: Any, raw: bytes) -> tuple[str | None, float]:
    """(words, acoustic score) of an utterance."""
    decoder.start_utt()
    decoder.process_raw(raw, full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    score = float(sum(segment.ascore for segment in decoder.seg())) if hypothesis else 0.0
    return (hypothesis.hypstr or None if hypothesis else None), score
