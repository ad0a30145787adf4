"""Hearing words: the seam for a recogniser, and faster-whisper behind it.

No weights come with this program. The operator names a directory of them and pins it by its hash; without a
recogniser the words of a statement are for a human to hear.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from consent.checks.sound import Floats


class RecogniserUnavailable(Exception):
    """There is no recogniser here: the verdict is `needs review`."""


class Recogniser(Protocol):
    """Speech to text, by a machine that has not seen the statement."""

    name: str

    def transcribe(self, pcm_16k: Floats, language: str) -> str:
        """float32 at 16 kHz -> what was said, in the language (ISO 639-1). Raises `RecogniserUnavailable`."""
        ...


class FasterWhisper:
    """A CTranslate2 Whisper model from a local directory; nothing is ever downloaded."""

    def __init__(self, directory: Path, sha256: str) -> None:
        """Opens the weights in `directory`.

        Raises `RecogniserUnavailable` when the package is not installed or the weights are not the pinned
        ones.
        """
        if importlib.util.find_spec("faster_whisper") is None:
            raise RecogniserUnavailable(
                "faster-whisper is not installed; it comes with voicegate's extra `speaker` (see the README)"
            )
        if not (directory / "tokenizer.json").is_file():  # faster-whisper would fetch it from the network
            raise RecogniserUnavailable(f"{directory} holds no tokenizer.json")
        found = directory_sha256(directory)
        if found != sha256:
            raise RecogniserUnavailable(f"the weights in {directory} are not the pinned ones (now {found})")
        self._directory = directory
        self._model: Any = None
        self.name = f"faster-whisper/{sha256[:12]}"

    def transcribe(self, pcm_16k: Floats, language: str) -> str:
        """The words of float32 mono at 16 kHz."""
        if self._model is None:
            from faster_whisper import WhisperModel

            try:
                self._model = WhisperModel(str(self._directory), device="cpu", local_files_only=True)
            except (RuntimeError, OSError, ValueError) as error:
                raise RecogniserUnavailable(f"the weights in {self._directory}: {error}") from None
        # no prompt and no text carried over: it shall write what it hears, not what it was told to expect
        segments, _ = self._model.transcribe(
            np.asarray(pcm_16k, np.float32), language=language, beam_size=5, temperature=0.0,
            condition_on_previous_text=False,
        )  # fmt: skip
        return " ".join(segment.text.strip() for segment in segments)


def directory_sha256(directory: Path) -> str:
    """Over names and contents of the files in a directory, in the order of their names.

    Raises `RecogniserUnavailable`.
    """
    whole = hashlib.sha256()
    try:
        files = sorted(path for path in directory.iterdir() if path.is_file())
        if not files:
            raise RecogniserUnavailable(f"{directory} holds no weights")
        for path in files:
            with path.open("rb") as file:
                whole.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    except OSError as error:
        raise RecogniserUnavailable(f"{directory}: {error.strerror}") from None
    return whole.hexdigest()
