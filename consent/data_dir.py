"""The data directory when nobody names one, for consent's commands and the gateway's settings."""

from __future__ import annotations

import os
from pathlib import Path


def default_data_dir() -> Path:
    """`voicegate` below `XDG_DATA_HOME`, else below `~/.local/share`."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "voicegate"
