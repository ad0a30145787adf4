"""The clip of the stock voice, rendered once for an engine that has no voice of its own.

It has a process of its own, which loads the embedded engine's models and is gone when they are not needed.
"""

from __future__ import annotations

import asyncio
import contextlib

from consent.errors import ConsentError
from consent.service.front_questions import AskStockClip, KeepStockClip
from consent.service.office_client import OfficeClient
from gateway.config.paths import office_socket
from gateway.config.settings import load
from gateway.errors import StartError
from model import json_log


def main() -> None:
    """Renders the clip and has the consent office keep it. Raises `StartError`."""
    settings = load()
    json_log.configure("clip", settings.log_level)
    try:
        with contextlib.closing(OfficeClient(office_socket(settings))) as office:
            if not office.ask(AskStockClip()):
                from model.embedded import clip  # half a second, and seldom needed

                office.ask(KeepStockClip(asyncio.run(clip.render()).tobytes(), clip.WORDS))
    except ConsentError as error:
        raise StartError(str(error)) from None
