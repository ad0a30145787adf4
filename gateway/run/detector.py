"""The detector that anyone may ask, as a process of this gateway: its log is the gateway's."""

from __future__ import annotations

import sys

from model import json_log
from watermark.cli import serve


def main() -> None:
    """Serves until the process is told to stop; the arguments are those of `voicegate watermark serve`."""
    json_log.configure("detector")
    serve.main(sys.argv[1:], standalone_mode=False)
