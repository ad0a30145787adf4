"""SIP transactions (RFC 3261 §17): one hop's request, its retransmissions and its answer.

`Served` is a request that a peer sent us: repeats of it are answered from here. `Sent` is one that we sent:
repeated by us over UDP until it is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from sipmessage import Request, Response

from gateway.edge.transport import Flow

T1: Final = 0.5
T2: Final = 4.0
LINGER_S: Final = 32.0
"""64 * T1: how long a finished transaction still answers repeats."""


class Timer:
    """One pending call; starting again cancels it."""

    def __init__(self) -> None:
        self._handle: asyncio.TimerHandle | None = None

    def start(self, delay_s: float, work: Callable[[], None]) -> None:
        self.cancel()
        self._handle = asyncio.get_running_loop().call_later(delay_s, work)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class Served:
    """A request from a peer and what we answered."""

    def __init__(self, request: Request, flow: Flow, forget: Callable[[], None]) -> None:
        self.request = request
        self.flow = flow
        self.sent: Sent | None = None
        """the request that we forwarded for it"""
        self.final = 0
        self._last: bytes | None = None
        self._forget = forget
        self._repeat = Timer()
        self._end = Timer()

    def answer(self, response: Response) -> None:
        """Sends a response; a non-2xx final one to an INVITE is repeated until its ACK comes (timer G)."""
        both_ok = 200 <= self.final < 300 and 200 <= response.code < 300  # a 2xx repeats end to end
        if self.final and not both_ok:
            return
        self._last = bytes(response)
        self.flow.send(self._last)
        if response.code >= 200:
            first = not self.final
            self.final = response.code
            if first:
                self._end.start(LINGER_S, self.close)
                if self.request.method == "INVITE" and response.code >= 300 and not self.flow.reliable:
                    self._again(T1)

    def _again(self, delay_s: float) -> None:
        def repeat() -> None:
            self.repeated()
            self._again(min(2 * delay_s, T2))

        self._repeat.start(delay_s, repeat)

    def repeated(self) -> None:
        """The peer sent it again: so do we."""
        if self._last is not None:
            self.flow.send(self._last)

    def acknowledged(self) -> None:
        self._repeat.cancel()

    def close(self) -> None:
        self._repeat.cancel()
        self._end.cancel()
        self._forget()


class Sent:
    """A request of ours under way. `answered` gets each response, or None when none came in time."""

    def __init__(
        self,
        request: Request,
        flow: Flow,
        answered: Callable[[Response | None], None],
        forget: Callable[[], None],
        *,
        within_s: float = LINGER_S,
    ) -> None:
        self.request = request
        self.flow = flow
        self.provisional = False
        self.final = 0
        self._bytes = bytes(request)
        self._answered = answered
        self._forget = forget
        self._within_s = within_s
        self._repeat = Timer()
        self._limit = Timer()

    def start(self) -> None:
        self.flow.send(self._bytes)
        self._limit.start(self._within_s, self._timed_out)
        if not self.flow.reliable:
            self._again(T1)

    def _again(self, delay_s: float) -> None:
        def repeat() -> None:
            self.flow.send(self._bytes)
            self._again(min(2 * delay_s, T2))

        self._repeat.start(delay_s, repeat)

    def take(self, response: Response) -> None:
        """A response came for it."""
        self._repeat.cancel()
        if response.code < 200:
            self.provisional = True
            if self.request.method == "INVITE":
                self._limit.start(180.0, self._timed_out)  # timer C
        elif not self.final:
            self.final = response.code
            self._limit.start(LINGER_S, self.close)
        self._answered(response)

    def _timed_out(self) -> None:
        self.close()
        self._answered(None)

    def close(self) -> None:
        self._repeat.cancel()
        self._limit.cancel()
        self._forget()
