"""The plans of this house, read by its settings, as whoever has to take them must read them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from gateway.config.house_languages import spoken_languages
from gateway.config.paths import dialplan_dir
from gateway.config.settings import Settings
from gateway.dialplan.dialplan import Dialplan


def read_house_plan(
    settings: Settings,
    voices: Collection[str] | None = None,
    *,
    folder: Path | None = None,
    recordings: bool = True,
) -> Dialplan:
    """The plans of `folder`, or of the house's own. `voices`, `recordings`: see `Dialplan.load`.

    Raises `DialplanError`.
    """
    return Dialplan.load(
        folder or dialplan_dir(settings),
        voices,
        spoken=spoken_languages(settings),
        words_leave=settings.words_leave,
        emergency=settings.emergency_numbers,
        recordings=recordings,
        mails=settings.mails,
    )
