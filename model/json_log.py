"""A process's log as JSON lines: structlog's, the standard library's, and what Python itself complains of.

Engines and the gateway's processes call `configure` once, when they begin. What may have to be said without
structlog is written by `gateway.config.notes`.

A log must not stop a call. Where nothing more can be written (a full disk), or whoever reads the log does not
read (a pipe), lines are lost and counted, and the next line that can be written is preceded by `log.lost`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import stat
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TextIO

import structlog

from model.log_ear import EAR_VARIABLE, LogEar

LEVEL_VARIABLE: Final = "VOICEGATE_LOG_LEVEL"
"""What a process that reads no settings takes its level from; the supervisor sets it."""
FRAMES: Final = 6
"""Of a traceback whose error may not be quoted."""
SECRET_WORDS: Final = ("token", "password", "secret", "pin", "authorization")


def configure(process: str, level: str | None = None, to: TextIO | None = None) -> None:
    """Sets up this process's log; `process` names it in each line.

    Lines go to stderr, or to the file `to`. `level` is debug, info, warning or error; None: what
    `VOICEGATE_LOG_LEVEL` says, else info. Lines of a call also go to the ear that `VOICEGATE_LOG_EAR` names.
    """
    out = _Unstopped(process, sys.stderr if to is None else to)
    path = os.environ.get(EAR_VARIABLE)
    ear = LogEar(path) if path else None
    to_json = structlog.processors.JSONRenderer()
    known = logging.getLevelNamesMapping()
    number = known.get((level or os.environ.get(LEVEL_VARIABLE) or "info").upper(), logging.INFO)

    def name(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event.setdefault("process", process)  # by no context variable: threads have their own
        return event

    def render(logger: Any, method: str, event: structlog.typing.EventDict) -> str | bytes:
        text = to_json(logger, method, event)
        if ear is not None and "call_id" in event and event["level"] != "debug":
            ear.tell(str(text))
        return text

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            name,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _hide_secrets,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=out),  # type: ignore[arg-type]  # what it uses of a file
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_Retold()], force=True)
    logging.captureWarnings(True)
    threading.excepthook = lambda args: _unheard("thread.failed", args.exc_value, thread=str(args.thread))
    sys.unraisablehook = lambda args: _unheard("unraisable", args.exc_value, where=repr(args.object))


class _Unstopped:
    """Where the lines of the process of that name go. Writing one neither fails nor waits."""

    def __init__(self, process: str, out: TextIO) -> None:
        self._process = process
        self._put = _putting(out)
        self._torn = False
        """the last line is there in part"""
        self.lost = 0
        """lines that were not written, since the last time this was said"""
        self._why = ""

    def write(self, text: str) -> int:
        """Writes whole lines; those that cannot be written are counted."""
        if self.lost and not self._written(self._loss()):
            self.lost += 1
            return len(text)
        self.lost = 0
        if not self._written(text):
            self.lost = 1
        return len(text)

    def flush(self) -> None:
        """Nothing waits here."""

    def _loss(self) -> str:
        at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        facts = {"process": self._process, "lines": self.lost, "error": self._why}
        return json.dumps({**facts, "event": "log.lost", "level": "error", "timestamp": at}) + "\n"

    def _written(self, text: str) -> bool:
        data = text.encode(errors="backslashreplace")
        if self._torn:
            data = b"\n" + data
        try:
            put = self._put(data)
        except (OSError, ValueError) as error:  # the latter of a file that was closed
            self._why = getattr(error, "strerror", None) or str(error)
            return False
        self._torn = put < len(data)
        if self._torn:
            self._why = "there was no room for the whole line"
        return not self._torn


def _putting(out: TextIO) -> Callable[[bytes], int]:
    """Writes to `out` without waiting for a reader, and says how many bytes it took. Raises `OSError`."""
    try:
        descriptor = out.fileno()
    except (OSError, ValueError, AttributeError):
        descriptor = -1
    if descriptor < 0 or (out is sys.stderr and out is not sys.__stderr__):  # somebody reads in this process
        return partial(_put_text, out)
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(kind):  # journald
        return partial(_put_packet, socket.socket(fileno=os.dup(descriptor)))
    if stat.S_ISFIFO(kind):
        with contextlib.suppress(OSError):  # opened anew: others who write there may want to wait
            descriptor = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return partial(os.write, descriptor)


def _put_text(out: TextIO, data: bytes) -> int:
    out.write(data.decode())
    out.flush()
    return len(data)


def _put_packet(peer: socket.socket, data: bytes) -> int:
    return peer.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def untold(error: BaseException) -> dict[str, str]:
    """What a log may say of an error whose text may hold what a caller said: its kind, and where it arose."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames)]
    return {"error": type(error).__name__, "where": ", ".join(places)}


class _Retold(logging.Handler):
    """Says in structlog what a library says by the standard library."""

    def __init__(self) -> None:
        super().__init__()
        self._log: Any = structlog.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line; a record that cannot be read is said with its error."""
        try:
            said = record.getMessage()
        except Exception as error:  # its arguments do not fit; the line tells where it comes from
            said = f"{record.msg} ({type(error).__name__}: {error})"
        exception = record.exc_info if record.exc_info and record.exc_info[0] is not None else None
        level = min(
            max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL
        )  # structlog has no others
        self._log.log(
            level, said, logger=record.name, **({} if exception is None else {"exc_info": exception})
        )


def _unheard(event: str, error: BaseException | None, **facts: str) -> None:
    said = f"{type(error).__name__}: {error}"
    structlog.get_logger().error(event, error=said, exc_info=error, **facts)


def _hide_secrets(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for key in event:
        if any(word in key.lower() for word in SECRET_WORDS):
            event[key] = "***"
    return event
