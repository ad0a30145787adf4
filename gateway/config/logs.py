"""structlog, as JSON lines on stderr; every line of a call carries its `call_id`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any, Final, TextIO

import structlog

LIMIT: Final = 50 * 1024 * 1024
"""Bytes of a log file; a larger one is put aside at the next start."""
SECRET_WORDS = ("token", "password", "secret", "pin", "authorization")


def _hide_secrets(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for key in event:
        if any(word in key.lower() for word in SECRET_WORDS):
            event[key] = "***"
    return event


def open_file(path: Path) -> TextIO:
    """The log file at `path`, to append to."""
    if path.exists() and path.stat().st_size > LIMIT:
        path.replace(path.with_suffix(".log.1"))
    return path.open("a", buffering=1)


def configure(process: str, level: str = "info", to: TextIO | None = None) -> None:
    """Sets up this process's log; `process` names it in each line. Call it once.

    Lines go to stderr, or to the file `to`.
    """
    to = sys.stderr if to is None else to
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _hide_secrets,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=to),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    logging.basicConfig(level=logging.WARNING, stream=to, format="%(name)s %(levelname)s %(message)s")
