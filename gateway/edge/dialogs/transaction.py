"""SIP transactions (RFC 3261 §17): one hop's request, its retransmissions and its answer.

`Served` is a request that a peer sent us: repeats of it are answered from here. `Sent` is one that we sent:
repeated by us over UDP until it is answered. `Transactions` holds both kinds, never more than `MAX_HELD`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.header import CSeq
from gateway.edge.grammar.message import MAGIC, Key, branch_of
from gateway.edge.grammar.sip_message import Request, Response

T1: Final = 0.5
T2: Final = 4.0
LINGER_S: Final = 32.0
"""64 * T1: how long a finished transaction still answers repeats, and how long one waits for an answer."""
TIMER_C_S: Final = 180.0
"""How long an INVITE may stay without a final answer once it had a provisional one (RFC 3261 §16.8)."""
MAX_HELD: Final = 4096
"""Transactions of each kind."""


class Timer:
    """One pending call; starting again cancels it."""

    __slots__ = ("_handle",)

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

    __slots__ = (
        "_end",
        "_final",
        "_forget",
        "_last",
        "_repeat",
        "call_id",
        "final",
        "flow",
        "request",
        "sent",
    )

    def __init__(
        self,
        request: Request,
        flow: Flow,
        forget: Callable[[], None],
        final: Callable[[Served, Response], None],
    ) -> None:
        self.request = request
        self.flow = flow
        self.call_id: str | None = None
        """of the call that it opens, once it has one"""
        self.sent: Sent | None = None
        """the request that we forwarded for it"""
        self.final = 0
        self._last: bytes | None = None
        self._forget = forget
        self._final = final
        self._repeat = Timer()
        self._end = Timer()

    def answer(self, response: Response) -> None:
        """Sends a response; a non-2xx final one to an INVITE is repeated until its ACK comes (timer G)."""
        both_ok = 200 <= self.final < 300 and 200 <= response.code < 300  # a 2xx repeats end to end
        if self.final and not both_ok:
            return
        self._last = bytes(response)
        self.flow.send(self._last)
        if response.code >= 200 and not self.final:
            self.final = response.code
            self._final(self, response)
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
        self.sent = None  # it knows us, and two that know each other stay until the collector comes by
        self._forget()


class Sent:
    """A request of ours under way. `answered` gets each response, or None when none came in time."""

    __slots__ = (
        "_answered", "_bytes", "_cancel", "_forget", "_limit", "_repeat", "_within_s", "final", "flow",
        "provisional", "request",
    )  # fmt: skip

    def __init__(
        self,
        request: Request,
        flow: Flow,
        answered: Callable[[Response | None], None],
        forget: Callable[[], None],
        within_s: float,
    ) -> None:
        self.request = request
        self.flow = flow
        self.provisional = False
        self.final = 0
        self._bytes = bytes(request)
        self._answered = answered
        self._forget = forget
        self._within_s = within_s
        self._cancel: Callable[[], None] | None = None
        self._repeat = Timer()
        self._limit = Timer()

    def start(self) -> None:
        self.flow.send(self._bytes)
        self._limit.start(self._within_s, self.fail)
        if not self.flow.reliable:
            self._again(T1)

    def _again(self, delay_s: float) -> None:
        def repeat() -> None:
            self.flow.send(self._bytes)
            self._again(min(2 * delay_s, T2))

        self._repeat.start(delay_s, repeat)

    def take(self, response: Response) -> None:
        """A response came for it."""
        invite = self.request.method == "INVITE"
        if response.code < 200:
            if self.final:
                return
            self.provisional = True
            if invite:
                self._repeat.cancel()
                if self._cancel is None:
                    self._limit.start(TIMER_C_S, self.fail)
                else:
                    self._send_cancel()
            elif not self.flow.reliable:
                self._again(T2)  # timer E in Proceeding: the final answer may get lost
        elif not self.final:
            self._repeat.cancel()
            self.final = response.code
            self._limit.start(LINGER_S, self.close)
        self._answered(response)

    def cancel(self, send: Callable[[], None]) -> None:
        """Calls `send` once a CANCEL may go out: after a provisional response (RFC 3261 §9.1)."""
        if self.final or self._cancel is not None:
            return
        self._cancel = send
        if self.provisional:
            self._send_cancel()

    def _send_cancel(self) -> None:
        assert self._cancel is not None  # noqa: S101  # for mypy: both callers have just seen it set
        send, self._cancel = self._cancel, _nothing
        self._limit.start(LINGER_S, self.fail)
        send()

    def fail(self) -> None:
        """No answer will come."""
        answered = self._answered
        self.close()
        if not self.final:
            self.final = 408
            answered(None)

    def close(self) -> None:
        self._repeat.cancel()
        self._limit.cancel()
        self._answered, self._cancel = _unheard, _nothing  # both know what we were sent for, which knows us
        self._forget()


class Transactions:
    """Those that are going on, and those that still answer repeats.

    `final` is told of each peer's request and its first final answer.
    """

    def __init__(self, final: Callable[[Served, Response], None]) -> None:
        self._final = final
        self._served: dict[Key, Served] = {}
        self._sent: dict[tuple[str, str], Sent] = {}

    def __len__(self) -> int:
        return len(self._served) + len(self._sent)

    def find(self, key: Key) -> Served | None:
        return self._served.get(key)

    def serve(self, request: Request, flow: Flow, key: Key) -> Served | None:
        """A new one of a peer; None when there are too many."""
        if len(self._served) >= MAX_HELD:
            return None
        served = Served(request, flow, partial(_drop, self._served, key), self._final)
        self._served[key] = served
        return served

    def branch(self) -> str:
        """One that nobody can guess: a forged response matches nothing."""
        return MAGIC + secrets.token_hex(12)

    def send(
        self,
        request: Request,
        flow: Flow,
        answered: Callable[[Response | None], None],
        within_s: float = LINGER_S,
    ) -> Sent:
        """Sends a request whose topmost Via has a branch of ours (a CANCEL has its INVITE's)."""
        key = (branch_of(request), request.method)
        sent = Sent(request, flow, answered, partial(_drop, self._sent, key), within_s)
        self._sent[key] = sent
        sent.start()
        return sent

    def take(self, response: Response, flow: Flow) -> bool:
        """Gives a response to its request; False when it has none, or comes from elsewhere."""
        sent = self.awaiting(response, flow)
        if sent is None:
            return False
        sent.take(response)
        return True

    def awaiting(self, response: Response, flow: Flow) -> Sent | None:
        """The request that a response is for; None when it has none, or comes from elsewhere."""
        sent = self._sent.get((branch_of(response), response.cseq.method))
        return sent if sent is not None and sent.flow.same_peer(flow) else None

    def toward(self, transport: str, host: str, port: int) -> Iterator[Sent]:
        """What is under way to that peer, unanswered."""
        peer = (transport, host, port)
        for sent in list(self._sent.values()):
            if not sent.final and (sent.flow.transport, sent.flow.host, sent.flow.port) == peer:
                yield sent

    def close(self) -> None:
        for served in list(self._served.values()):
            served.close()
        for sent in list(self._sent.values()):
            sent.close()


def ack_of(invite: Request, answer: Response) -> Request:
    """The ACK of a non-2xx, which is this hop's (RFC 3261 §17.1.1.3)."""
    ack = of_transaction(invite, "ACK")
    ack.headers.set("To", answer.headers["To"])
    return ack


def of_transaction(invite: Request, method: str) -> Request:
    """A CANCEL or an ACK in the INVITE's transaction."""
    request = Request(method, invite.uri)
    for name in ("Via", "Route"):
        if invite.headers.get(name) is not None:
            request.headers.setlist(name, invite.headers.getlist(name))
    for name in ("From", "Call-ID"):
        request.headers.set(name, invite.headers[name])
    request.cseq = CSeq(invite.cseq.sequence, method)
    request.max_forwards = 70
    request.headers.set("Content-Length", "0")
    return request


def _drop(table: dict[Any, Any], key: tuple[str, ...]) -> None:
    table.pop(key, None)


def _nothing() -> None:
    """What is left to do for a CANCEL that has been sent."""


def _unheard(_: Response | None) -> None:
    """Takes an answer that nobody waits for any more."""
