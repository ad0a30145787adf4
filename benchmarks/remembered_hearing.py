"""Consent's recogniser with a memory: the same sound is heard once, however often a benchmark asks.

What it remembers stands in benchmarks/out/hearing, by piece of sound and by the weights that heard it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from consent.checks.sound import Floats
from consent.checks.words import HouseRecogniser
from consent.whisper.transcript import HeardPiece, Transcript
from consent.whisper.whisper import MANY, Whisper
from gateway.config.paths import model_files_dir
from gateway.config.settings import load as load_settings

FOLDER: Final = Path(__file__).parent / "out" / "hearing"


class RememberingWhisper(Whisper):
    """Whisper, whose pieces and likelihoods are kept. `heard_s` counts the sound that was really heard."""

    heard_s: float = 0.0

    def _closely(self, pcm: Floats, language: str) -> HeardPiece:
        place = self._place("piece", pcm, language)
        if place.exists():
            told = json.loads(place.read_text())
            return HeardPiece(
                Transcript(**told["transcript"]), told["seconds"], told["spoken"],
                tuple((word, sure) for word, sure in told["words"]),
            )  # fmt: skip
        heard = super()._closely(pcm, language)
        self.heard_s += heard.seconds
        _keep(place, asdict(heard))
        return heard

    def _likelihoods(self, piece: Floats, language: str, texts: list[str]) -> list[float]:
        place = self._place("likelihoods", piece, language)
        told: dict[str, float] = json.loads(place.read_text()) if place.exists() else {}
        if missing := [text for text in texts if text not in told]:
            told |= dict(zip(missing, super()._likelihoods(piece, language, missing), strict=True))
            _keep(place, told)
        return [told[text] for text in texts]

    def _place(self, what: str, pcm: Floats, language: str) -> Path:
        sound = hashlib.sha256(np.ascontiguousarray(pcm, np.float32).tobytes()).hexdigest()[:32]
        return FOLDER / self.sha256[:12] / f"{what}-{language}-{sound}.json"


def _keep(place: Path, told: Any) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    new = place.with_suffix(".part")
    new.write_text(json.dumps(told, ensure_ascii=False))
    new.rename(place)


class RememberingRecogniser(HouseRecogniser):
    """The house's recogniser over such a Whisper; it never lets the weights go."""

    def __init__(self) -> None:
        """Raises `WordsUnknown` when the model's files were not fetched."""
        self._directory = model_files_dir(load_settings())
        super().__init__(self._directory, kept_s=86_400.0)

    def _loaded(self) -> Whisper:
        if self._whisper is None:
            self._whisper = RememberingWhisper.load(MANY, self._directory)
        return self._whisper
