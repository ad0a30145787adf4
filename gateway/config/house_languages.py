"""Which languages this installation speaks, and whether it can tell those of its callers."""

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


def spoken_languages(settings: Settings) -> frozenset[str] | None:
    """What the engine can say; None where nobody knows.

    That is Chroma, whose authors do not tell, and every engine that runs elsewhere. Which languages a
    person's voice *may* speak is another question: consent answers it, at each call.
    """
    return SPOKEN if settings.stock_only and not settings.engine_url else None


def why_no_languages(settings: Settings) -> str | None:
    """Why callers' languages cannot be told here, and the remedy; None when they can."""
    directory, model = model_files_dir(settings), locked_model(TELLS_LANGUAGES)
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
