"""Handing a caller to somebody else: a target of the dialplan, never one that a caller or the model names."""

from __future__ import annotations

from typing import Final

from gateway.errors import RpcError
from gateway.hall.calls.call import Call
from gateway.hall.parts.inbox import CallEnded, Transferred
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.line_messages import ReferCall

ACCEPTED_WITHIN_S: Final = 32.0
"""What the target may take to answer; its phone rings meanwhile."""


async def transfer(call: Call, target: str) -> None:
    """Refers the caller (RFC 3515) and waits for what comes of it (RFC 3515 §2.4.4's NOTIFY).

    Raises `CallEnded` when it went; returns when it did not, and the call goes on.
    """
    address = call.offer.targets.get(target)
    if address is None:
        call.session.event("transfer_refused", target=target)
        return
    call.session.event("transfer", target=target)
    try:
        await call.line.ask(ReferCall(call.id, address))
        status, why = await _outcome(call)
    except RpcError as error:  # a browser cannot be transferred; a phone may have hung up
        status, why = 0, str(error)
    if 200 <= status < 300:
        raise CallEnded(CallEnding(End.TRANSFERRED))
    call.session.event("transfer_failed", target=target, status=status, why=why)


async def _outcome(call: Call) -> tuple[int, str]:
    """The final status of the REFER, (408, …) when none came."""
    deadline = call.clocks.monotonic() + ACCEPTED_WITHIN_S
    while (left_s := deadline - call.clocks.monotonic()) > 0:
        event = await call.inbox.next(left_s)
        if isinstance(event, Transferred):
            return event.status, event.reason
    return 408, "nobody said what became of it"
