"""W3C Trace Context of a call: what the hall tells an engine, and an engine passes on.

The ids follow from the call's id, so that whoever knows one can find the other, and say nothing of anybody.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Final

import structlog

HEADER: Final = "traceparent"
FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]{0,400})?")
"""version, trace-id, parent-id, flags; what a later version has behind them."""
SAMPLED: Final = 0x01

_current: Final[ContextVar[str | None]] = ContextVar("traceparent", default=None)


def trace_of(call_id: str) -> tuple[str, str]:
    """The ids of a call's trace and of its root span, hexadecimal; whoever knows the call's id knows them."""
    digest = hashlib.sha256(f"voicegate call {call_id}".encode()).hexdigest()
    return digest[:32], digest[32:48]


def traceparent_of(call_id: str, *, traced: bool) -> str:
    """The header of a call's requests; their parent is the call's root span. `traced`: spans are told."""
    trace, root = trace_of(call_id)
    return f"00-{trace}-{root}-{SAMPLED if traced else 0:02x}"


def read_traceparent(given: Sequence[str]) -> str | None:
    """The header as version 00 has it; None when there is not one, or one that nobody can go by (§3.2)."""
    found = FORM.fullmatch(given[0]) if len(given) == 1 else None
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5] is not None):
        return None
    if not (int(found[2], 16) and int(found[3], 16)):
        return None
    return f"00-{found[2]}-{found[3]}-{int(found[4], 16) & SAMPLED:02x}"


def enter(traceparent: str | None) -> None:
    """This task, and those that it begins, work for that trace: their log lines name it."""
    _current.set(traceparent)
    if traceparent is not None:
        structlog.contextvars.bind_contextvars(trace_id=traceparent.split("-")[1])


def current() -> str | None:
    """The trace that this task works for."""
    return _current.get()


def passed_on() -> dict[str, str]:
    """The header for a server that is asked on behalf of a call whose spans are told; else nothing."""
    traceparent = _current.get()
    return {HEADER: traceparent} if traceparent is not None and traceparent.endswith("-01") else {}
