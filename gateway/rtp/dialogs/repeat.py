"""An answer that is sent again and again until the other side is known to have it (RFC 3261 §13.3.1.4)."""

from __future__ import annotations

from functools import partial

from gateway.edge.dialogs.transaction import T1, T2, Timer
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.sip_message import Response


class Repeat:
    """One answer's: after .5 s, 1, 2, and then each 4 s, until `cancel`."""

    __slots__ = ("_timer",)

    def __init__(self) -> None:
        self._timer = Timer()

    def start(self, flow: Flow, answer: Response) -> None:
        """It has been sent once."""
        self._wait(flow, bytes(answer), T1)

    def _wait(self, flow: Flow, answer: bytes, after_s: float) -> None:
        self._timer.start(after_s, partial(self._again, flow, answer, after_s))

    def _again(self, flow: Flow, answer: bytes, after_s: float) -> None:
        flow.send(answer)
        self._wait(flow, answer, min(2 * after_s, T2))

    def cancel(self) -> None:
        """The other side has it, or the call is over."""
        self._timer.cancel()
