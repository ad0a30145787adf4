"""The lines of each call's log, from all processes of the house: kept beside the call.

Processes hand lines on over a unix socket of the runtime directory (`model.log_ear`). What comes there is
judged: a line is an object of JSON with the id of a call, and short; there are not too many in a second.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from gateway.store.call_trails import MAX_FIELDS, LogLine
from gateway.store.sessions import Sessions
from model.log_ear import MAX_LINE

LINES_PER_S: Final = 500.0
BURST: Final = 2000.0
"""Lines at once, after a pause."""
MOST_SPEAKERS: Final = 128
"""Connections."""
LONGEST_FIELD: Final = 240
LONGEST_NAME: Final = 64
KEPT_LEVELS: Final = frozenset({"info", "warning", "error", "critical"})
_CALL_ID: Final = re.compile(r"[0-9a-f]{16}", re.ASCII)
"""As `gateway.front.admission.routing` makes them; an engine's own sessions have others."""
_OWN: Final = frozenset({"call_id", "event", "level", "timestamp", "process"})


class CallLog:
    """Keeps them while it is open."""

    def __init__(self, sessions: Sessions, path: Path) -> None:
        self._pen = sessions.logs()
        self._path = path
        self._server: asyncio.Server | None = None
        self._speakers: set[_LogSpeaker] = set()
        self._room = BURST
        self._at = time.monotonic()
        self.lost = 0
        """lines that were too many"""

    async def open(self) -> None:
        """Raises `OSError`."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _LogSpeaker(self), str(self._path))
        self._path.chmod(0o600)

    def close(self) -> None:
        """Nothing is kept any more."""
        if self._server is not None:
            self._server.close()
        for speaker in list(self._speakers):
            speaker.end()

    def joined(self, speaker: _LogSpeaker) -> bool:
        """Whether one more process may speak."""
        if len(self._speakers) >= MOST_SPEAKERS:
            return False
        self._speakers.add(speaker)
        return True

    def left(self, speaker: _LogSpeaker) -> None:
        """Its connection ended."""
        self._speakers.discard(speaker)

    def take(self, text: bytes) -> None:
        """One line; what is not a call's is nothing."""
        now = time.monotonic()
        self._room = min(BURST, self._room + (now - self._at) * LINES_PER_S)
        self._at = now
        if self._room < 1:
            self.lost += 1
            return
        self._room -= 1
        found = read_line(text)
        if found is not None:
            self._pen.line(*found)


class _LogSpeaker(asyncio.Protocol):
    """A process that hands lines on."""

    def __init__(self, log: CallLog) -> None:
        self._log = log
        self._begun = b""
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        if not self._log.joined(self):
            transport.close()

    def data_received(self, data: bytes) -> None:
        *lines, self._begun = (self._begun + data).split(b"\n")
        for line in lines:
            if line:
                self._log.take(line)
        if len(self._begun) > MAX_LINE:
            self.end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._log.left(self)

    def end(self) -> None:
        """Hears no more."""
        if self._transport is not None:
            self._transport.close()


def read_line(text: bytes) -> tuple[str, LogLine] | None:
    """A call's id and its line; None for what is neither."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    call_id, event, level = said.get("call_id"), said.get("event"), said.get("level")
    if not isinstance(call_id, str) or _CALL_ID.fullmatch(call_id) is None:
        return None
    if not isinstance(event, str) or not isinstance(level, str) or level not in KEPT_LEVELS:
        return None
    process = str(said.get("process", ""))[:LONGEST_NAME]
    return call_id, LogLine(
        _epoch(said.get("timestamp")), process, level, event[:LONGEST_FIELD], _fields(said)
    )


def _epoch(written: object) -> float:
    try:
        return datetime.fromisoformat(str(written)).timestamp()
    except (ValueError, OverflowError, OSError):
        return time.time()


def _fields(said: Mapping[str, Any]) -> dict[str, Any]:
    """The line's other fields, clipped: of a long one its end, where an exception says what it is."""
    kept: dict[str, Any] = {}
    room = MAX_FIELDS - 200  # for the rest of the line
    for name, value in said.items():
        if name in _OWN:
            continue
        known = value is None or isinstance(value, bool | int | float)
        text = value if isinstance(value, str) else json.dumps(value)
        short: Any = value if known else text if len(text) <= LONGEST_FIELD else f"… {text[-LONGEST_FIELD:]}"
        room -= len(json.dumps(short)) + len(name) + 6
        if room < 0:
            kept["…"] = "more fields were left out"
            break
        kept[name[:LONGEST_NAME]] = short
    return kept
