"""A process that is an engine's own, begun by `model.worker`: how it is watched, and how it ends.

A device that failed stays failed for its process: every later call of it fails too. A thread that hangs in a
driver cannot be ended, nor told. So a process whose engine cannot go on ends at once, with a status from
`Cause`; its server, which it tells the reason through a pipe, ends with it, and its calls go on elsewhere.

Two things watch. A thread looks whether what the engine does (`within`) takes longer than it may. And since a
thread needs the interpreter, which a native call may keep, that thread winds an alarm clock of the kernel's
again and again: when nobody winds it any more, SIGALRM ends the process, whoever holds what. Either leaves in
the pipe where each thread was.

In any other process (a test, a benchmark) nothing is watched, and `end` raises `EngineEnds`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final, NoReturn

import structlog

from model.errors import EngineEnds

log = structlog.get_logger("engine")

SWITCH_INTERVAL_S: Final = 0.0005
"""As in a line: the thread of the weights gets the interpreter back from the loop within that."""
LOOK_S: Final = 0.25
"""How often the watch looks, and winds the alarm."""
LOADING_HELD_S: Final = 300.0
HELD_S: Final = 20.0
"""How long a native call may keep the interpreter: while libraries are loaded, and from then on."""


class Cause(IntEnum):
    """Why an engine ended its process; the number is its status."""

    DEVICE = 70
    STEP = 71
    MEMORY = 72
    HUNG = 73


WHY: Final = {
    Cause.DEVICE: "the device failed, and stays so for a process that saw it",
    Cause.STEP: "a step failed, and what it left behind is unknown",
    Cause.MEMORY: "a step ran out of the device's memory",
    Cause.HUNG: "what the engine did took longer than it may",
    -signal.SIGALRM: "something kept the interpreter and gave it to no other thread",
}
"""What a status says."""


@dataclass(frozen=True, slots=True, eq=False)
class _Doing:
    what: str
    within_s: float


class _Own:
    """The process; `reasons`: the pipe's end, an int, that its server reads."""

    def __init__(self, reasons: int) -> None:
        self.reasons = reasons
        self.doing: _Doing | None = None
        self.held_s = LOADING_HELD_S

    def wind(self) -> None:
        """The alarm does not ring before that time is over."""
        signal.setitimer(signal.ITIMER_REAL, self.held_s)

    def watch(self) -> None:
        """In a thread of its own. Time is counted by looks: it stands still while the machine does."""
        seen, looks = None, 0
        while True:
            self.wind()
            time.sleep(LOOK_S)
            doing = self.doing
            looks = looks + 1 if doing is seen else 0
            seen = doing
            if doing is not None and looks * LOOK_S >= doing.within_s:
                end(Cause.HUNG, f"{doing.what} takes more than {doing.within_s:g} s")

    def tell(self, words: str) -> None:
        with contextlib.suppress(OSError):  # full, or nobody reads it
            os.write(self.reasons, words.encode()[:4096])


_own: _Own | None = None


def begin(reasons: int) -> None:
    """From now on this process is an engine's own; `reasons`: a pipe, which may be full."""
    global _own
    _own = _Own(reasons)
    os.set_blocking(reasons, False)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    faulthandler.enable(reasons)
    faulthandler.register(signal.SIGALRM, reasons, all_threads=True, chain=True)
    threading.Thread(target=_own.watch, name="watch", daemon=True).start()


def is_own() -> bool:
    return _own is not None


def prepares(doing: str, done: int, of: int, **facts: float) -> None:
    """Logs how far an engine is that prepares itself; the time of what it does (`within`) begins anew."""
    log.info("engine.preparing", doing=doing, done=done, of=of, **facts)
    if _own is not None and _own.doing is not None:
        _own.doing = replace(_own.doing)


def loaded() -> None:
    """Nothing long is left to do at once: from now on the watch is strict."""
    if _own is not None:
        _own.held_s = HELD_S
        _own.wind()


@contextlib.contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """Around what the engine does: it hangs, if it is not over by then. One thing at a time."""
    if _own is None:
        yield
        return
    before, _own.doing = _own.doing, _Doing(what, seconds)
    try:
        yield
    finally:
        _own.doing = before


def end(cause: Cause, reason: str) -> NoReturn:
    """Ends the process, from whichever thread, without another word to anybody but its server.

    Raises `EngineEnds` where it is not the engine's own.
    """
    if _own is None:
        raise EngineEnds(f"{WHY[cause]}: {reason}")
    _own.tell(f"{reason}\n")
    if cause is Cause.HUNG:
        with contextlib.suppress(OSError):
            faulthandler.dump_traceback(_own.reasons, all_threads=True)
    log.critical("engine.ends", cause=cause.name.lower(), why=WHY[cause], reason=reason)
    os._exit(cause)
