"""Keys that a caller presses after something was said."""

from __future__ import annotations

from typing import Final

from gateway.hall.calls.call import Call
from gateway.hall.parts.inbox import Dtmf
from gateway.hall.parts.playout import Item

TIMEOUT_S: Final = 6.0


async def dialled(
    call: Call, prompt: Item | None, count: int, *, timeout_s: float = TIMEOUT_S, finish_key: str = "#"
) -> str:
    """At most `count` digits; the first one cuts the prompt (None: it is over).

    Ends at the finish key, or when no key came for `timeout_s` after the prompt or the last key. Raises
    `CallEnded`, and `EngineGone` when the prompt will never be heard.
    """
    digits = ""
    while len(digits) < count:
        asking = None if prompt is None or prompt.done.is_set() else prompt
        if call.inbox.refused is not None and asking is not None:
            await call.played(asking)
        event = await call.inbox.next(timeout_s, after=None if asking is None else asking.done)
        if event is None:
            break
        if isinstance(event, Dtmf):
            if prompt is not None and not prompt.done.is_set():
                call.speech.cut()
            if event.digit == finish_key:
                break
            digits += event.digit
    return digits
