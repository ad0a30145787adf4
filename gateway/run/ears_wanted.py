"""Whether this house needs ears of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import structlog

from consent.models.model_files import locked_model
from gateway.config import packages
from gateway.config.paths import dialplan_dir, model_files_dir
from gateway.config.settings import Settings
from gateway.dialplan import Dialplan

log = structlog.get_logger("supervisor")

WEIGHTS: Final = ("whisper-tiny-en", "whisper-base")
"""Either will do: who has neither hears phrases of a plan, and nothing else."""


def wants_ears(settings: Settings, *, hears_languages: bool = False) -> bool:
    """Whether a process of this house hears words.

    It does for the embedded engine and for the cascade; where the dialplan leads callers by their language;
    to write down what callers say to an engine that does not, where some route keeps transcripts; and where
    the settings want turns to end by words. That it could not is said once, and no call is the worse for it.
    """
    if hears_languages or (settings.stock_only and not settings.engine_url):
        return True
    plan = Dialplan.load(
        dialplan_dir(settings),
        None,
        words_leave=settings.words_leave,
        emergency=settings.emergency_numbers,
        recordings=False,
    )
    keeps = any(route.keep.transcript for route in plan.routes)
    if not keeps and settings.turns_by_words != "on":
        return False
    absent, folder = packages.absent(packages.NEEDED["ears process"]), model_files_dir(settings)
    if absent is None and any(_are_there(name, folder) for name in WEIGHTS):
        return True
    remedy = (
        f"voicegate models get {WEIGHTS[0]}"
        if absent is None
        else packages.missing(absent, "the ears process")
    )
    # an engine that transcribes, or hears early, needs none
    log.warning("transcripts.no_ears" if keeps else "turns.no_ears", remedy=remedy)
    return False


def _are_there(name: str, folder: Path) -> bool:
    return all(path.is_file() for path in locked_model(name).paths(folder))
