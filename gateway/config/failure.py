"""Why a process ended, as one line for the operator.

A process that fails writes its last error to a file of the runtime directory (`Runtime.failure`), where the
supervisor finds it, and to the log as one JSON line. Nothing heavy is imported here, since that may be what
failed.
"""

from __future__ import annotations

import contextlib
import errno
import signal
import traceback
from pathlib import Path
from typing import Final

from consent.bare_url import bare
from gateway.config import packages
from gateway.config.notes import note

LONGEST: Final = 2_000
"""Characters of a text that are kept."""


def is_ours(error: BaseException) -> bool:
    """Whether an error's text is fit for an operator's eyes: the error is of one of our packages."""
    return type(error).__module__.split(".")[0] in packages.OURS


def text_of(error: BaseException) -> str:
    """Our error's own text, another's as `Type: text`; without the passwords of URLs."""
    return bare(_text_of(error), ":***")[:LONGEST]


def _text_of(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return _text_of(error.exceptions[0])
    if isinstance(error, SystemExit):
        if isinstance(error.code, str):
            return error.code
        if error.__context__ is not None:  # click and uvicorn exit with a number while they handle an error
            return _text_of(error.__context__)
        return f"it ended with status {error.code}"
    if hasattr(error, "format_message"):  # click's
        return str(error.format_message())
    if isinstance(error, ModuleNotFoundError) and error.name:
        return packages.missing(error.name)
    if is_ours(error):
        return str(error)
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def tell(path: Path, error: BaseException, text: str = "") -> None:
    """Writes why this process fails to the file at `path`, and to the log with a stranger's traceback.

    `text` is said instead of `text_of(error)` where that cannot say it.
    """
    text = text or text_of(error)
    known = is_ours(error) or isinstance(error, SystemExit)
    more = {} if known else {"exception": "".join(traceback.format_exception(error))}
    note("error", "process.failed", error=text, **more)
    with contextlib.suppress(OSError):  # the log has it
        path.write_text(text)


def told(path: Path, status: int) -> str:
    """Why the process whose file is at `path` ended with `status`, as `ending` has it. Removes the file."""
    try:
        text = path.read_text()
        path.unlink()
    except OSError:
        text = ""
    return text or ending(status)


def ending(status: int) -> str:
    """What an exit status says; below zero it is the number of the signal that killed the process."""
    if status == errno.ENOMEM:  # `model.tasks.NO_MEMORY`
        return "no memory was left for it"
    if status >= 0:
        return f"it ended with status {status} and said nothing"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "unknown"
    hint = "; is the machine out of memory?" if -status == signal.SIGKILL else ""
    return f"it was killed by signal {-status} ({name}){hint}"
