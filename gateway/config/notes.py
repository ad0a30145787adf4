"""JSON log lines without structlog: of a process that fails to begin, and of the test phone."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Any

_process = "voicegate"


def named(process: str) -> None:
    """Names this process in each of its log lines."""
    global _process
    _process = process


def note(level: str, event: str, /, **facts: Any) -> None:
    """Writes one JSON line to stderr."""
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06d}Z"
    line = json.dumps({"process": _process, **facts, "event": event, "level": level, "timestamp": stamp})
    with contextlib.suppress(OSError):  # a closed stderr must not end a call
        os.write(2, line.encode() + b"\n")
