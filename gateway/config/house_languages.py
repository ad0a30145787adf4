"""Which languages this installation speaks, and whether it hears its callers' words and languages."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from consent.models.model_files import locked_model
from gateway.config.paths import model_files_dir
from gateway.config.settings import Settings

SPOKEN: Final = frozenset({"en"})
"""Languages (ISO 639-1) of the voice that the package carries."""
TELLS_LANGUAGES: Final = "whisper-base"
"""The model that hears which language is spoken."""
HEARS_ENGLISH: Final = "whisper-tiny-en"
"""The model that hears English words; where it is missing, the one that tells languages hears them too."""


def spoken_languages(settings: Settings) -> frozenset[str] | None:
    """What the engine can say; None where nobody knows.

    That is Chroma, whose authors do not tell, and every engine that runs elsewhere. Which languages a
    person's voice *may* speak is another question: consent answers it, at each call.
    """
    return SPOKEN if settings.stock_only and not settings.engine_url else None


def why_no_languages(settings: Settings) -> str | None:
    """Why callers' languages cannot be told here, and the remedy; None when they can."""
    return _why_missing(TELLS_LANGUAGES, settings)


def why_unwritten(settings: Settings, language: str) -> str | None:
    """Why callers' words in this language (a tag) cannot be written down here, and the remedy; else None."""
    missing = _why_missing(TELLS_LANGUAGES, settings)
    if missing is None or language.partition("-")[0].lower() != "en":
        return missing
    return _why_missing(HEARS_ENGLISH, settings)


def _why_missing(name: str, settings: Settings) -> str | None:
    directory, model = model_files_dir(settings), locked_model(name)
    sizes = {model.file_name(file): file.size for file in model.files}
    if all(_size(directory / name) == size for name, size in sizes.items()):
        return None
    return (
        f"the model files of {model.name} are not all in {directory}; fetch them with: "
        f"voicegate models get {model.name}"
    )


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
