"""What pjsua2 calls us back by, and what its errors say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pjsua2 as pj

from gateway.config.notes import note

F = TypeVar("F", bound=Callable[..., None])


def guarded(callback: F) -> F:
    """pjsua2 prints an exception of a callback and goes on; we log it instead."""

    def run(*args: Any) -> None:
        try:
            callback(*args)
        except Exception as error:
            note("error", "phone.callback_failed", callback=callback.__name__, error=reason_of(error))

    return run  # type: ignore[return-value]  # same arguments, same None


def reason_of(error: BaseException) -> str:
    """What an error says; pjsua2's own have it in a field."""
    return str(error.reason) if isinstance(error, pj.Error) else f"{type(error).__name__}: {error}"
