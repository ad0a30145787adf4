"""Handing a caller to somebody else: a target of the dialplan, never one that a caller or the model names.

A target at a trunk or at a registered telephone is called by the caller's line, which joins the two: their
sound does not come here, and nothing of ours gets into it. A SIP address is what the caller is asked to call
(REFER).
"""

from __future__ import annotations

from typing import Final

from gateway.dialplan.target_address import is_called
from gateway.errors import RpcError
from gateway.hall.calls.call import Call
from gateway.hall.parts.inbox import CallEnded, TargetHeard, Transferred
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.line_messages import ReferCall
from gateway.store.call_events import TransferStep

ACCEPTED_WITHIN_S: Final = 32.0
"""What the target may take to answer; its phone rings meanwhile."""
RINGS_S: Final = 60.0
"""The same of a target that our line calls: it gives up by then, and says so."""
SAYS_SO_WITHIN_S: Final = 10.0
RINGING_HZ: Final = 425.0
RINGING_S: Final = 1.0
RING_EVERY_S: Final = 5.0
"""What a caller hears while a target rings that has no sound of its own yet (ITU-T E.180)."""


async def transfer(call: Call, target: str) -> None:
    """Hands the caller to a target, and waits for what comes of it.

    Raises `CallEnded` when it went; returns when it did not, and the call goes on.
    """
    address = call.offer.targets.get(target)
    if address is None:
        call.session.tell(TransferStep(step="refused", target=target))
        return
    calls = is_called(address)
    via = address.partition("/")[0] if calls else None
    call.session.tell(TransferStep(target=target, via=via))
    try:
        if calls:
            await call.line.call_target(target, RINGS_S)
            status, why = await _outcome(call, RINGS_S + SAYS_SO_WITHIN_S, rings=True)
        else:
            await call.line.ask(ReferCall(call.id, address))
            status, why = await _outcome(call, ACCEPTED_WITHIN_S)
    except RpcError as error:  # a browser cannot be referred; a phone may have hung up
        status, why = 0, str(error)
    if 200 <= status < 300:
        if calls:
            await stay_handed_over(call)
        raise CallEnded(CallEnding(End.TRANSFERRED))
    if calls:
        await call.line.leave_target()
    call.session.tell(TransferStep(step="failed", target=target, status=status, why=why))


async def stay_handed_over(call: Call) -> None:
    """A target has the caller now: waits until one of them hangs up. Raises `CallEnded`."""
    call.hand_over()
    await call.inbox.until(call.inbox.ended.wait())


async def _outcome(call: Call, within_s: float, *, rings: bool = False) -> tuple[int, str]:
    """The target's final status, (408, …) when none came. `rings`: the caller hears a ringing tone."""
    clock = call.clocks.monotonic
    deadline, ring_at = clock() + within_s, clock() + RINGING_S
    while (left_s := deadline - clock()) > 0:
        event = await call.inbox.next(min(left_s, max(0.01, ring_at - clock())) if rings else left_s)
        if isinstance(event, Transferred):
            return event.status, event.reason
        if isinstance(event, TargetHeard):
            call.session.tell(TransferStep(step="rings", status=event.status))
            rings = rings and not event.early
        if rings and clock() >= ring_at:
            ring_at = clock() + RING_EVERY_S
            call.speech.own.beep(RINGING_HZ, RINGING_S)
    return 408, "nobody said what became of it"
