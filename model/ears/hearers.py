"""All that can hear in the ears' process: Whisper's weights, or pocketsphinx where there are none. Blocking.

English is tiny.en's; every other language, and which language it is, are base's, which is loaded when
somebody first asks. Without any weights pocketsphinx tells which of some phrases was said.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import soxr
import structlog

from consent.errors import LanguageError, ModelFileError, ModelFileMissing
from consent.whisper.features import RATE_HZ as WHISPER_HZ
from consent.whisper.whisper import ENGLISH, MANY, Whisper
from model.api import RATE_HZ, Floats
from model.ears.evidence import NOTHING, weigh
from model.ears.language_choice import chosen
from model.ears.recogniser import Recogniser
from model.ears.words_heard import Words

log = structlog.get_logger("ears")

DOUBTED: Final = 0.5
"""Times the chance of a phrase that may have been said: below what anybody is believed at."""
ENOUGH_S: Final = 1.5
"""Of sound, to tell a language by."""


class Hearers:
    """Weights, each kept once for all threads that hear."""

    def __init__(self, models: Path, workers: int, *, languages: bool = False) -> None:
        """Loads English from the directory of model files; `workers` threads may hear at once.

        `languages`: what tells them apart is loaded too, before somebody asks.
        """
        self._models = models
        self._workers = workers
        self._loaded: dict[str, Whisper | None] = {}
        self._locks = {ENGLISH: threading.Lock(), MANY: threading.Lock()}
        """one each: English is heard while the other is being loaded"""
        self._phrases: Recogniser | None = None
        self._phrases_lock = threading.Lock()
        """pocketsphinx is not for two threads at once"""
        self._english = self._whisper(ENGLISH) or self._whisper(MANY)
        if self._english is None:
            self._phrases = Recogniser()
        if languages:
            self._whisper(MANY)

    def _whisper(self, name: str) -> Whisper | None:
        """The weights of that name, loaded once; None, said once, where they are not to be had."""
        with self._locks[name]:
            if name not in self._loaded:
                self._loaded[name] = self._load(name)
            return self._loaded[name]

    def _load(self, name: str) -> Whisper | None:
        remedy = f"voicegate models get {name}"
        try:
            return Whisper.load(name, self._models, self._workers)
        except ModelFileMissing as error:
            log.warning("ears.no_weights", error=str(error), remedy=remedy)
        except ModelFileError as error:
            log.error("ears.weights_refused", error=str(error), remedy=remedy)
        return None

    def words(
        self, pcm: Floats, language: str, phrases: Sequence[str], wanted: Callable[[], bool] = lambda: True
    ) -> Words:
        """What `pcm` (float32 24 kHz) says; an empty `language` is found out first."""
        seconds = len(pcm) / RATE_HZ
        if not language:
            language, _ = self.language(pcm, ())
            language = language or "en"
        if language == "en" and self._phrases is not None:
            return self._phrase(self._phrases, pcm, phrases, seconds)
        whisper = self._english if language == "en" else self._whisper(MANY)
        if whisper is None:
            return Words("", language, 0.0, seconds, "no weights")
        try:
            found = whisper.transcribe(soxr.resample(pcm, RATE_HZ, WHISPER_HZ), language, wanted)
        except LanguageError as error:
            log.warning("ears.language", error=str(error))
            return Words("", language, 0.0, seconds, "language")
        confidence = math.exp(found.log_probability) if found.text else 0.0
        return Words(found.text, language, min(1.0, confidence), seconds, found.refused)

    def language(self, pcm: Floats, among: Sequence[str]) -> tuple[str, float]:
        """The language of `pcm` among these (none: all), or a stranger's, and its chance; see `chosen`.

        Empty where it cannot be told: not clear, less than `ENOUGH_S` of sound, or no weights.
        """
        if len(pcm) < ENOUGH_S * RATE_HZ or (whisper := self._whisper(MANY)) is None:
            return "", 0.0
        return chosen(whisper.languages(soxr.resample(pcm, RATE_HZ, WHISPER_HZ)), among)

    def unsayable(self, phrases: Sequence[str]) -> list[str]:
        """Those of `phrases` with a word that pocketsphinx does not know, where that is what hears."""
        if self._phrases is None:
            return []
        with self._phrases_lock:
            return [phrase for phrase in phrases if not self._phrases.sayable(phrase)]

    def _phrase(self, recogniser: Recogniser, pcm: Floats, phrases: Sequence[str], seconds: float) -> Words:
        with self._phrases_lock:
            found = recogniser.align(pcm, phrases) if phrases else None
        hearing = NOTHING if found is None else weigh(found)
        if hearing.phrase is None:
            return Words("", "en", 0.0, seconds, "no phrase")
        confidence = hearing.confidence if hearing.sure else DOUBTED * hearing.confidence
        return Words(hearing.phrase, "en", confidence, seconds)
