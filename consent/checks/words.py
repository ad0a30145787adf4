"""Hearing words: the seam for a recogniser, and Whisper base behind it.

What the recogniser cannot know is for people to hear: `WordsUnknown` says why. It is told the language and
never the words that are expected, since a model that is prompted writes what it was told.

A second question may follow, about an answer already given: how well other texts fit the sound than those
that were heard. Whoever asks it can turn a refusal into a review, and never anything into a pass.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from consent.checks.sound import MAX_S, Floats
from consent.errors import LanguageError, ModelFileError
from consent.models.model_files import locked_model
from consent.statements.comparison import HeardText
from consent.whisper.features import RATE_HZ
from consent.whisper.whisper import MANY, Whisper

KEPT_S: Final = 300.0
"""The weights are let go so long after the last statement."""
SPOKEN: Final = 0.5
"""Where the statement's language is less likely than this, in the mean over its seconds, somebody listens:
Whisper translates what is said in another one."""
FOREIGN: Final = (6.0, 0.1)
"""Somebody listens, too, where a piece of at least so many seconds is in that language with less than this
probability. Shorter pieces, a name and a few numbers, may be in any."""


class WordsUnknown(Exception):
    """What was said is for people to hear; the text says why. The verdict is `review`."""


class Recogniser(Protocol):
    """Speech to text, by a machine that has not seen the statement."""

    name: str

    def transcribe(self, pcm_16k: Floats, language: str) -> HeardText:
        """float32 at 16 kHz -> what was said, in the language (ISO 639-1). Raises `WordsUnknown`."""
        ...

    def log_likelihoods(
        self, pcm_16k: Floats, language: str, piece: int, texts: Sequence[str]
    ) -> Sequence[float]:
        """How well each text fits a piece (`HeardText.pieces`) of the same sound, as natural logarithms.

        Asked of answers already given. Raises `WordsUnknown`.
        """
        ...


class HouseRecogniser:
    """Whisper base, from the house's model files.

    Its weights come into memory with the first statement and go after `kept_s` without one. One statement is
    heard at a time, by one thread of the CPU.
    """

    def __init__(self, models: Path, kept_s: float = KEPT_S) -> None:
        """Reads nothing yet. Raises `WordsUnknown` when the model's files were not fetched to `models`."""
        model = locked_model(MANY)
        try:
            model.look(models)
        except ModelFileError as error:
            raise WordsUnknown(str(error)) from None
        self.name = f"{MANY}/{model.files[0].sha256[:12]}"
        self._models = models
        self._kept_s = kept_s
        self._lock = threading.Lock()
        self._whisper: Whisper | None = None
        self._used_at = 0.0
        self._clock: threading.Timer | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._whisper is not None

    def transcribe(self, pcm_16k: Floats, language: str) -> HeardText:
        """All that was said in float32 mono at 16 kHz, at most `MAX_S` of it.

        Raises `WordsUnknown` for what is longer, for a language that the model does not know or that was not
        spoken, and when it is not sure of a part.
        """
        if len(pcm_16k) > MAX_S * RATE_HZ:
            raise WordsUnknown(f"it is longer than {MAX_S:.0f} s")
        with self._lock:
            try:
                return self._heard(self._loaded(), pcm_16k, language)
            except (ModelFileError, LanguageError) as error:
                raise WordsUnknown(str(error)) from None
            finally:
                self._let_go_later()

    def log_likelihoods(
        self, pcm_16k: Floats, language: str, piece: int, texts: Sequence[str]
    ) -> list[float]:
        """How likely each text is as the words of one of the pieces that `transcribe` heard.

        Natural logarithms. Raises `WordsUnknown` as `transcribe` does.
        """
        with self._lock:
            try:
                return self._loaded().log_likelihoods(pcm_16k, language, piece, texts)
            except (ModelFileError, LanguageError) as error:
                raise WordsUnknown(str(error)) from None
            finally:
                self._let_go_later()

    def _loaded(self) -> Whisper:
        if self._whisper is None:
            self._whisper = Whisper.load(MANY, self._models)
        return self._whisper

    def _heard(self, whisper: Whisper, pcm_16k: Floats, language: str) -> HeardText:
        """The pieces' words. Ends with the first that the model cannot tell, since people listen then."""
        texts: list[str] = []
        words: list[tuple[str, float]] = []
        counts: list[int] = []
        spoken: list[tuple[float, float]] = []
        for piece in whisper.pieces(pcm_16k, language):
            if piece.transcript.refused not in ("", "silence"):
                raise WordsUnknown(f"{MANY} is not sure of what was said ({piece.transcript.refused})")
            spoken.append((piece.seconds, piece.spoken))
            if piece.seconds >= FOREIGN[0] and piece.spoken < FOREIGN[1]:
                raise WordsUnknown(f"{MANY} hears another language than {language!r}")
            texts.append(piece.transcript.text)
            words += piece.words
            counts.append(len(piece.words))
        if sum(seconds * likely for seconds, likely in spoken) < SPOKEN * sum(
            seconds for seconds, _ in spoken
        ):
            raise WordsUnknown(f"{MANY} hears another language than {language!r}")
        return HeardText(" ".join(filter(None, texts)), tuple(words), tuple(counts))

    # ── memory ───────────────────────────────────────────────────────────────────────────────────────────

    def _let_go_later(self) -> None:
        self._used_at = time.monotonic()
        if self._clock is not None:
            self._clock.cancel()
        self._clock = threading.Timer(self._kept_s, self._let_go)
        self._clock.daemon = True
        self._clock.start()

    def _let_go(self) -> None:
        with self._lock:
            if time.monotonic() - self._used_at >= self._kept_s:
                self._whisper = None
