"""What callers left, over HTTP: listed, and heard. A name in an address is never a path."""

from __future__ import annotations

import asyncio
import re
import wave
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import structlog
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from gateway.front.http.api_shapes import RecordingsAsked
from gateway.front.http.operations import query_of
from gateway.front.http.problems import refusal

DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
FILE: Final = re.compile(r"([A-Za-z0-9._~-]{1,64})-([0-9]{1,12})\.wav", re.ASCII)
"""A call's id, and when it was left, seconds since the epoch."""

WAV_HEADER: Final = 44
"""Bytes, as the hall writes it."""
ROUNDED_S: Final = 2.5
"""A file's name is at most so much before its first sample."""
LONGEST: Final = 400

log = structlog.get_logger("http")


class RecordingDesk:
    """The handlers. `folder` holds a folder for each day."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def listed(self, request: Request) -> Response:
        """The newest first."""
        asked = query_of(request, RecordingsAsked)
        if isinstance(asked, Response):
            return asked
        return JSONResponse({"recordings": await asyncio.to_thread(self._list, asked)})

    def _list(self, asked: RecordingsAsked) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        days = (day for day in self._folder.glob("*") if DAY.fullmatch(day.name) and day.is_dir())
        for day in sorted(days, reverse=True):
            named = [(file, match) for file in day.iterdir() if (match := FILE.fullmatch(file.name))]
            for file, match in sorted(named, key=lambda one: int(one[1][2]), reverse=True):
                if asked.call_id in ("", match[1]) and _is_plain(file):
                    about = {"day": day.name, "file": file.name, "call_id": match[1], "at": float(match[2])}
                    found.append({**about, "bytes": file.stat().st_size})
                if len(found) == asked.limit:
                    return found
        return found

    async def of_call(self, call_id: str, events: Iterable[Mapping[str, Any]]) -> list[dict[str, object]]:
        """Those of one call, the oldest first: href, began_at (seconds since the epoch), duration_s.

        `events` are the call's: one whose end is told began when it had lasted so long; a file's name has
        whole seconds only.
        """
        found = await asyncio.to_thread(self._list, RecordingsAsked(call_id=call_id))
        told = {
            str(event["data"].get("path", ""))[-LONGEST:].rpartition("/")[2]: event
            for event in events
            if event.get("kind") == "recorded"
        }
        return [
            await asyncio.to_thread(self._drawn, one, told.get(str(one["file"]))) for one in reversed(found)
        ]

    def _drawn(self, one: Mapping[str, Any], told: Mapping[str, Any] | None) -> dict[str, object]:
        duration_s = _duration_s(self._folder / one["day"] / one["file"], one["bytes"])
        began_at = float(one["at"])
        if told is not None and 0 <= (exact := float(told["at"]) - duration_s) - began_at < ROUNDED_S:
            began_at = round(exact, 3)
        href = f"/api/recordings/{one['day']}/{one['file']}"
        return {"href": href, "began_at": began_at, "duration_s": duration_s}

    async def heard(self, request: Request) -> Response:
        """One of them; who heard it stands in the log."""
        day, name = request.path_params["day"], request.path_params["file"]
        file = self._folder / day / name
        if not DAY.fullmatch(day) or not FILE.fullmatch(name) or not await asyncio.to_thread(_is_plain, file):
            return refusal(404, "there is no such recording")
        log.info("recording.read", file=f"{day}/{name}", asker=request.state.asker.name)
        return FileResponse(file, media_type="audio/wav")


def _duration_s(file: Path, size: int) -> float:
    """Seconds, by the file's size: one that is being written does not say yet how long it is."""
    try:
        with wave.open(str(file)) as sound:
            a_second = sound.getframerate() * sound.getsampwidth() * sound.getnchannels()
    except (OSError, EOFError, wave.Error):
        return 0.0
    return round(max(0, size - WAV_HEADER) / a_second, 3) if a_second else 0.0


def _is_plain(file: Path) -> bool:
    return file.is_file() and not file.is_symlink() and not file.parent.is_symlink()
