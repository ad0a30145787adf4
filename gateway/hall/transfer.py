"""Handing a caller to somebody else: a target of the dialplan, never one that a caller or the model names."""

from __future__ import annotations

from typing import Final

from gateway.hall.call import Call, CallEnded

ACCEPTED_WITHIN_S: Final = 32.0
GONE_WITHIN_S: Final = 30.0


async def transfer(call: Call, target: str) -> None:
    """Asks the line to refer the caller (RFC 3515). Raises `CallEnded` when it went, returns when not."""
    address = call.offer.targets.get(target)
    if address is None:
        call.session.event("transfer_refused", target=target)
        return
    call.session.event("transfer", target=target)
    answer = await call.ask_line("transfer", ACCEPTED_WITHIN_S, target=address)
    if not answer or not answer.get("accepted"):
        call.session.event("transfer_failed", target=target)
        return
    await call.until(call.ended.wait(), GONE_WITHIN_S)
    raise CallEnded("transferred")
