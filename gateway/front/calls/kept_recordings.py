"""Recordings of calls on disk, each for as long as the settings say."""

from __future__ import annotations

from pathlib import Path

import structlog

from consent.errors import ClockError, OfficeAway
from consent.service.front_office import FrontOffice

log = structlog.get_logger("front")


class KeptRecordings:
    """The WAV files of a folder's folders, which are kept for `keep_s` seconds."""

    def __init__(self, folder: Path, keep_s: float, office: FrontOffice) -> None:
        """`office` says what time it is, by a clock that may be believed."""
        self._folder = folder
        self._keep_s = keep_s
        self._office = office

    def delete_old(self) -> None:
        """Deletes those past their time; without a believable clock none."""
        try:
            oldest = self._office.now() - self._keep_s
        except (ClockError, OfficeAway) as error:
            log.error("recordings.not_deleted", error=str(error))
            return
        old = [path for path in self._folder.glob("*/*.wav") if path.stat().st_mtime < oldest]
        for path in old:
            path.unlink(missing_ok=True)
        if old:
            log.info("recordings.deleted", count=len(old))
