"""The clip of the stock voice, rendered once for an engine that has no voice of its own.

It has a process of its own, which loads the embedded engine's models and is gone when they are not needed.
"""

from __future__ import annotations

import asyncio

from consent.errors import ConsentError
from consent.office.office import ConsentOffice
from gateway.config.paths import consent_dir
from gateway.config.settings import load
from gateway.errors import StartError
from model import json_log


def main() -> None:
    """Renders the clip and has the consent office keep it. Raises `StartError`."""
    settings = load()
    json_log.configure("clip", settings.log_level)
    try:
        office = ConsentOffice.open(settings.sql, consent_dir(settings))
        try:
            if not office.has_stock_clip:
                from model.embedded import clip  # half a second, and seldom needed

                office.keep_stock_clip(asyncio.run(clip.render()), clip.WORDS)
        finally:
            office.close()
    except ConsentError as error:
        raise StartError(str(error)) from None
