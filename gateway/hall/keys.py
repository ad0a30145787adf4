"""Keys that a caller presses after something was said."""

from __future__ import annotations

from gateway.hall.call import Call, Dtmf
from gateway.hall.playout import Item

TIMEOUT_S = 6.0


async def dialled(
    call: Call, prompt: Item, count: int, *, timeout_s: float = TIMEOUT_S, finish_key: str = "#"
) -> str:
    """At most `count` digits; the first one cuts the prompt. Ends at the finish key, or when no key came for
    `timeout_s` after the prompt or the last key. Raises `CallEnded`."""
    digits = ""
    while len(digits) < count:
        event = await call.next(timeout_s if prompt.done.is_set() else 0.1)
        if event is None and prompt.done.is_set():
            break
        if isinstance(event, Dtmf):
            call.playout.cut()
            if event.digit == finish_key:
                break
            digits += event.digit
    return digits
