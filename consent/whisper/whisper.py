"""One set of Whisper's weights, called through CTranslate2: sound in, words out, or why there are none.

Blocking; one CPU thread computes each call. The encoder sees a window of 10 s instead of its own 30 s:
shorter ones make it repeat itself without end, longer ones cost more and hear no better. Sound is decoded
greedily and without a prompt, since words suggested to these models turn up in what they hear.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from consent.errors import LanguageError, ModelFileError
from consent.models.model_files import LockedModel, locked_model
from consent.whisper.certainty import Spellings, certain_words
from consent.whisper.features import HOP, RATE_HZ, Floats, log_mel
from consent.whisper.transcript import HeardPiece, Refusal, Transcript
from consent.whisper.vocabulary import TokenNumbers, text_of
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
MOST_SCORED: Final = 200
"""Tokens of a text whose likelihood is asked; Whisper's own texts end at 224."""
LEAST_PROBABILITY: Final = 1e-12
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

        try:
            with model.verified(directory) as folder:
                self._model = ctranslate2.models.Whisper(
                    str(folder), "cpu", compute_type="int8", inter_threads=workers, intra_threads=1
                )
                vocabulary = (folder / "vocabulary.txt").read_bytes().decode()
        except (RuntimeError, ValueError) as error:
            raise ModelFileError(f"{model.name} cannot be used here: {error}") from None
        self._view = ctranslate2.StorageView.from_array
        self._gates = GATES[model.name]
        self.name = model.name
        self.sha256 = model.files[0].sha256
        self.multilingual = bool(self._model.is_multilingual)
        self._vocabulary = vocabulary.split("\n")
        self._known = _languages(self._vocabulary) if self.multilingual else frozenset({"en"})

    @cached_property
    def _spellings(self) -> Spellings:
        return Spellings(self._vocabulary)

    @cached_property
    def _token_numbers(self) -> TokenNumbers:
        return TokenNumbers(self._vocabulary)

    @classmethod
    def load(cls, name: str, directory: Path, workers: int = 1) -> Self:
        """The model `name` of `models.lock` (`ENGLISH` or `MANY`) from a directory of model files.

        Raises `ModelFileMissing` when it was not fetched, `ModelFileError` when a file is another one.
        """
        return cls(locked_model(name), directory, workers)

    def transcribe(
        self, pcm_16k: Floats, language: str, wanted: Callable[[], bool] = lambda: True
    ) -> Transcript:
        """What float32 `(n,)` at 16 kHz, of any length, says in the language (ISO 639-1).

        `wanted` is asked between the steps of the work; where it says no, the rest is left.

        Raises `LanguageError` for a language that the model does not know.
        """
        self._refuse(language)
        pcm = np.ascontiguousarray(pcm_16k, np.float32)
        pieces = [self._piece(piece, language, wanted) for piece in _pieces(pcm)]
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

    def pieces(self, pcm_16k: Floats, language: str) -> Iterator[HeardPiece]:
        """The pieces of which `transcribe` makes one text, as they are heard, with those that a gate refused.

        For whoever must not miss or mistake a word. Raises `LanguageError` for a language that the model does
        not know, and where it knows but one.
        """
        self._refuse(language)
        self._refuse_single()
        return (
            self._closely(piece, language) for piece in _pieces(np.ascontiguousarray(pcm_16k, np.float32))
        )

    def log_likelihoods(
        self, pcm_16k: Floats, language: str, number: int, texts: Sequence[str]
    ) -> list[float]:
        """How likely each of the texts is as the words of piece `number` of `pieces`: natural logarithms.

        That piece is not heard again: what is asked is how well words fit that somebody else has written.
        Whether the text ends there is not asked. Raises `LanguageError` as `pieces` does.
        """
        self._refuse(language)
        self._refuse_single()
        piece = _pieces(np.ascontiguousarray(pcm_16k, np.float32))[number]
        return self._likelihoods(piece, language, list(texts))

    def _likelihoods(self, piece: Floats, language: str, texts: list[str]) -> list[float]:
        encoded = self._encoded(piece, WINDOW_S)
        prompt = ["<|startoftranscript|>", f"<|{language}|>", "<|transcribe|>"]
        start = [self._vocabulary.index(token) for token in prompt]
        out = []
        for text in texts:  # CTranslate2 puts "no timestamps" behind the prompt by itself
            tokens = self._token_numbers.of(text)[:MOST_SCORED]
            found = self._model.align(encoded, start, [tokens], max(1, len(piece) // HOP)) if tokens else []
            told = found[0].text_token_probs if found else []
            out.append(float(np.log(np.maximum(told, LEAST_PROBABILITY)).sum()))
        return out

    def languages(self, pcm_16k: Floats) -> list[tuple[str, float]]:
        """Which language the beginning of float32 `(n,)` at 16 kHz is in, the best first.

        Each comes with its probability; what comes after `LONGEST_S` is not heard.

        Raises `LanguageError` where the model knows but one.
        """
        self._refuse_single()
        pcm = np.ascontiguousarray(pcm_16k[: round(LONGEST_S * RATE_HZ)], np.float32)
        return self._languages(self._encoded(pcm, WINDOW_S))

    def _languages(self, encoded: StorageView) -> list[tuple[str, float]]:
        found = self._model.detect_language(encoded)[0]
        return [(token[2:-2], float(probability)) for token, probability in found]

    def _refuse(self, language: str) -> None:
        if language not in self._known:
            raise LanguageError(f"{self.name} does not know the language {language!r}")

    def _refuse_single(self) -> None:
        if not self.multilingual:
            raise LanguageError(f"{self.name} knows English only")

    def _encoded(self, pcm: Floats, window_s: float) -> StorageView:
        mel = log_mel(pcm, round(window_s * RATE_HZ / HOP))
        return self._model.encode(self._view(mel[None]))

    def _piece(self, pcm: Floats, language: str, wanted: Callable[[], bool]) -> tuple[Transcript, int]:
        """The words of at most `LONGEST_S`, and how many tokens they are."""
        if not somebody_speaks(pcm):
            return Transcript("", language, 0.0, 1.0, "silence"), 0
        for window_s in (WINDOW_S, WIDER_S):
            encoded = self._encoded(pcm, window_s) if wanted() else None
            if encoded is None or not wanted():
                return Transcript("", language, 0.0, 1.0, "taken back"), 0
            result = self._generated(encoded, pcm, language)
            heard = self._judged(result, pcm, language)
            if heard.refused != "loop":
                break
        return heard, len(result.sequences[0])

    def _closely(self, pcm: Floats, language: str) -> HeardPiece:
        seconds = len(pcm) / RATE_HZ
        if not somebody_speaks(pcm):
            return HeardPiece(Transcript("", language, 0.0, 1.0, "silence"), seconds, 1.0)
        spoken = 0.0
        for window_s in (WINDOW_S, WIDER_S):
            encoded = self._encoded(pcm, window_s)
            spoken = max(spoken, dict(self._languages(encoded))[language])
            result = self._generated(encoded, pcm, language, closely=True)
            heard = self._judged(result, pcm, language)
            if heard.refused != "loop":
                break
        scores = (np.asarray(step, np.float32).ravel() for step in result.logits[0])
        certainties = map(self._spellings.certainty, scores, result.sequences_ids[0])
        words = certain_words(result.sequences[0], list(certainties))
        return HeardPiece(heard, seconds, spoken, tuple(words))

    def _generated(self, encoded: StorageView, pcm: Floats, language: str, *, closely: bool = False) -> Any:
        """What CTranslate2 generates; `closely` with its scores for every token."""
        prompt = ["<|startoftranscript|>", "<|notimestamps|>"]
        if self.multilingual:
            prompt[1:1] = [f"<|{language}|>", "<|transcribe|>"]
        return self._model.generate(
            encoded, [prompt], beam_size=1,
            return_scores=True, return_no_speech_prob=True, return_logits_vocab=closely,
            max_length=2 * _most_tokens(pcm),  # of which CTranslate2 gives the half to what is generated
        )[0]  # fmt: skip

    def _judged(self, result: Any, pcm: Floats, language: str) -> Transcript:
        tokens = result.sequences[0]
        count = len(tokens)
        log_probability = float(result.scores[0]) * count / (count + 1)  # the end counts as a token
        no_speech = float(result.no_speech_prob)
        text = text_of(tokens)
        refused = self._refused(text, log_probability, no_speech, endless=count >= _most_tokens(pcm))
        return Transcript("" if refused else text, language, log_probability, no_speech, refused)

    def _refused(self, text: str, log_probability: float, no_speech: float, *, endless: bool) -> Refusal:
        if no_speech > self._gates.most_no_speech:
            return "no speech"
        if log_probability < self._gates.least_log_probability:
            return "improbable"
        if endless or (text and compression(text) > MOST_COMPRESSION):
            return "loop"
        return ""


def _most_tokens(pcm: Floats) -> int:
    return round(TOKENS + TOKENS_A_SECOND * len(pcm) / RATE_HZ)


def compression(text: str) -> float:
    """How many times smaller the text is when packed."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw))


def _languages(vocabulary: Sequence[str]) -> frozenset[str]:
    """The languages for which a vocabulary has a token (`<|en|>`): two or three letters."""
    tokens = [line[2:-2] for line in vocabulary if line.startswith("<|") and line.endswith("|>")]
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
