"""One set of Whisper's weights, called through CTranslate2: sound in, words out, or why there are none.

Blocking; one CPU thread computes each call. The encoder sees a window of 10 s instead of its own 30 s:
shorter ones make it repeat itself without end, longer ones cost more and hear no better. Sound is decoded
greedily and without a prompt, since words suggested to these models turn up in what they hear.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from consent.errors import LanguageError, ModelFileError
from consent.models.model_files import LockedModel, locked_model
from consent.whisper.features import HOP, RATE_HZ, Floats, log_mel
from consent.whisper.transcript import Refusal, Transcript
from consent.whisper.vocabulary import text_of
from consent.whisper.voice_gate import somebody_speaks

if TYPE_CHECKING:
    from ctranslate2 import StorageView

ENGLISH: Final = "whisper-tiny-en"
MANY: Final = "whisper-base"
WINDOW_S: Final = 10.0
WIDER_S: Final = 15.0
"""A sentence that went round in circles is heard once more through this window."""
LONGEST_S: Final = 9.5
"""Of one piece: what is longer is cut where it is quietest."""
EARLIEST_CUT_S: Final = 6.0
QUIET_S: Final = 0.2
TOKENS: Final = 16
TOKENS_A_SECOND: Final = 12
"""Nobody speaks faster; only a model that repeats itself needs more."""
MOST_COMPRESSION: Final = 2.0
"""Bytes of text over its bytes when packed: no sentence packs so well, a repeated one does."""


@dataclass(frozen=True, slots=True)
class Gates:
    """From where on a model is not believed; the two models differ in which sign of doubt they show."""

    most_no_speech: float
    least_log_probability: float


GATES: Final = {ENGLISH: Gates(0.6, -np.inf), MANY: Gates(1.0, -0.8)}


class Whisper:
    """Weights in memory. Its calls may come from as many threads as `workers`; more wait for each other."""

    def __init__(self, model: LockedModel, directory: Path, workers: int = 1) -> None:
        """Reads `model`'s files from a directory of model files; use `load`."""
        import ctranslate2  # 60 MB, and most processes that import `consent` never listen

        files = {file.name: model.read(directory, file.name) for file in model.files}
        try:
            self._model = ctranslate2.models.Whisper(
                model.name, "cpu", compute_type="int8", inter_threads=workers, intra_threads=1, files=files
            )
        except (RuntimeError, ValueError) as error:
            raise ModelFileError(f"{model.name} cannot be used here: {error}") from None
        self._view = ctranslate2.StorageView.from_array
        self._gates = GATES[model.name]
        self.name = model.name
        self.sha256 = model.files[0].sha256
        self.multilingual = bool(self._model.is_multilingual)
        self._known = _languages(files["vocabulary.txt"]) if self.multilingual else frozenset({"en"})

    @classmethod
    def load(cls, name: str, directory: Path, workers: int = 1) -> Self:
        """The model `name` of `models.lock` (`ENGLISH` or `MANY`) from a directory of model files.

        Raises `ModelFileMissing` when it was not fetched, `ModelFileError` when a file is another one.
        """
        return cls(locked_model(name), directory, workers)

    def transcribe(self, pcm_16k: Floats, language: str) -> Transcript:
        """What float32 `(n,)` at 16 kHz, of any length, says in the language (ISO 639-1).

        Raises `LanguageError` for a language that the model does not know.
        """
        pieces = list(self._heard(pcm_16k, language))
        kept = [(transcript, tokens) for transcript, tokens in pieces if not transcript.refused]
        if not kept:
            return pieces[0][0]
        count = sum(tokens for _, tokens in kept)
        return Transcript(
            " ".join(transcript.text for transcript, _ in kept if transcript.text),
            language,
            sum(transcript.log_probability * tokens for transcript, tokens in kept) / max(count, 1),
            max(transcript.no_speech for transcript, _ in kept),
        )

    def pieces(self, pcm_16k: Floats, language: str) -> Iterator[Transcript]:
        """The pieces of which `transcribe` makes one text, as they are heard, with those that a gate refused.

        For whoever must not miss any of it. Raises as `transcribe` does.
        """
        return (transcript for transcript, _ in self._heard(pcm_16k, language))

    def languages(self, pcm_16k: Floats) -> list[tuple[str, float]]:
        """Which language the beginning of float32 `(n,)` at 16 kHz is in, the best first.

        Each comes with its probability; what comes after `LONGEST_S` is not heard.

        Raises `LanguageError` where the model knows but one.
        """
        if not self.multilingual:
            raise LanguageError(f"{self.name} knows English only")
        pcm = np.ascontiguousarray(pcm_16k[: round(LONGEST_S * RATE_HZ)], np.float32)
        found = self._model.detect_language(self._encoded(pcm, WINDOW_S))[0]
        return [(token[2:-2], float(probability)) for token, probability in found]

    def _heard(self, pcm_16k: Floats, language: str) -> Iterator[tuple[Transcript, int]]:
        """Each piece's words, and how many tokens they are."""
        if language not in self._known:
            raise LanguageError(f"{self.name} does not know the language {language!r}")
        pcm = np.ascontiguousarray(pcm_16k, np.float32)
        return (self._piece(piece, language) for piece in _pieces(pcm))

    def _encoded(self, pcm: Floats, window_s: float) -> StorageView:
        mel = log_mel(pcm, round(window_s * RATE_HZ / HOP))
        return self._model.encode(self._view(mel[None]))

    def _piece(self, pcm: Floats, language: str) -> tuple[Transcript, int]:
        """The words of at most `LONGEST_S`, and how many tokens they are."""
        if not somebody_speaks(pcm):
            return Transcript("", language, 0.0, 1.0, "silence"), 0
        heard = self._decoded(pcm, language, WINDOW_S)
        return heard if heard[0].refused != "loop" else self._decoded(pcm, language, WIDER_S)

    def _decoded(self, pcm: Floats, language: str, window_s: float) -> tuple[Transcript, int]:
        prompt = ["<|startoftranscript|>", "<|notimestamps|>"]
        if self.multilingual:
            prompt[1:1] = [f"<|{language}|>", "<|transcribe|>"]
        most = round(TOKENS + TOKENS_A_SECOND * len(pcm) / RATE_HZ)
        result = self._model.generate(
            self._encoded(pcm, window_s), [prompt], beam_size=1,
            return_scores=True, return_no_speech_prob=True,
            max_length=2 * most,  # of which CTranslate2 gives the half to what is generated
        )[0]  # fmt: skip
        tokens = result.sequences[0]
        count = len(tokens)
        log_probability = float(result.scores[0]) * count / (count + 1)  # the end counts as a token
        no_speech = float(result.no_speech_prob)
        text = text_of(tokens)
        refused = self._refused(text, log_probability, no_speech, endless=count >= most)
        return Transcript("" if refused else text, language, log_probability, no_speech, refused), count

    def _refused(self, text: str, log_probability: float, no_speech: float, *, endless: bool) -> Refusal:
        if no_speech > self._gates.most_no_speech:
            return "no speech"
        if log_probability < self._gates.least_log_probability:
            return "improbable"
        if endless or (text and compression(text) > MOST_COMPRESSION):
            return "loop"
        return ""


def compression(text: str) -> float:
    """How many times smaller the text is when packed."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw))


def _languages(vocabulary: bytes) -> frozenset[str]:
    """The languages for which a vocabulary has a token (`<|en|>`): two or three letters."""
    tokens = [
        line[2:-2]
        for line in vocabulary.decode().split("\n")
        if line.startswith("<|") and line.endswith("|>")
    ]
    return frozenset(token for token in tokens if len(token) in (2, 3) and token.isalpha())


def _pieces(pcm: Floats) -> Sequence[Floats]:
    """`pcm` cut into pieces of at most `LONGEST_S`, each cut in the middle of the quietest `QUIET_S`."""
    pieces, longest = [], round(LONGEST_S * RATE_HZ)
    quiet, hop = round(QUIET_S * RATE_HZ), RATE_HZ // 50
    while len(pcm) > longest:
        start = round(EARLIEST_CUT_S * RATE_HZ)
        energy = np.cumsum(np.concatenate(([0.0], pcm[start:longest].astype(np.float64) ** 2)))
        starts = np.arange(0, longest - start - quiet, hop)
        cut = start + int(starts[np.argmin(energy[starts + quiet] - energy[starts])]) + quiet // 2
        pieces.append(pcm[:cut])
        pcm = pcm[cut:]
    return [*pieces, pcm]
