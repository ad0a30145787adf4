"""Where things lie when nobody says so, for consent's commands and the gateway's settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

OFFICE_SOCKET: Final = "office.sock"
"""The name of the office's socket, in `consent` of the data directory unless another place is named."""


def default_data_dir() -> Path:
    """`voicegate` below `XDG_DATA_HOME`, else below `~/.local/share`."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "voicegate"
