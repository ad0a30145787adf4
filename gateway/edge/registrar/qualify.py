"""OPTIONS to registered telephones: whether each is there, how far away, and so that a NAT forgets none.

Asked is who keeps no flow alive by itself (RFC 5626): most desk telephones over UDP, behind a NAT that
forgets them within a minute or two. Who does not answer is rung all the same, beside the others; it is shown
as not reachable before somebody is handed to it in vain. Times are spread, so that many are no burst.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Iterable
from functools import partial
from typing import Final, Protocol

import structlog

from gateway.edge.dialogs.identity import Identity
from gateway.edge.dialogs.transaction import Transactions
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.header import CSeq
from gateway.edge.grammar.sip_message import Request, Response
from gateway.edge.grammar.uri import URI
from gateway.edge.registrar.bindings import MOST_UNANSWERED, Held

TURN_S: Final = 1.0
ANSWERS_WITHIN_S: Final = 4.0
MOST_AT_ONCE: Final = 64
"""Questions under way: the others wait a turn."""
JITTER: Final = 0.2
"""Of the time between two questions, either way."""
SOON: Final = 0.1
"""Of that time within which a telephone is asked first, once it has registered."""
_NOT_THERE: Final = (408, 430, 480, 503)
"""What a proxy says of a telephone that it does not reach."""

log = structlog.get_logger("edge")


class ReachedTelephones(Protocol):
    """Who knows where telephones are."""

    def reached(self) -> Iterable[tuple[Held, Flow]]:
        """All that hold and that a flow leads to."""


class Qualify:
    """See the module. `every_s` 0: nobody is asked."""

    def __init__(
        self, registered: ReachedTelephones, transactions: Transactions, ourselves: Identity, every_s: float
    ) -> None:
        self._registered = registered
        self._transactions = transactions
        self._ourselves = ourselves
        self._every_s = every_s
        self._under_way = 0

    async def look_after(self) -> None:
        """Until cancelled."""
        if not self._every_s:
            await asyncio.Event().wait()
        while True:
            self.turn()
            await asyncio.sleep(TURN_S)

    def turn(self) -> None:
        """Asks those whose time has come."""
        now = time.monotonic()
        for held, flow in self._registered.reached():
            if held.watched or held.asked_at:
                continue
            if not held.ask_at:
                held.ask_at = now + random.uniform(0, SOON * self._every_s)  # noqa: S311
            if held.ask_at <= now and self._under_way < MOST_AT_ONCE:
                held.ask_at = now + self._every_s * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
                self._ask(held, flow)

    def _ask(self, held: Held, flow: Flow) -> None:
        request = Request("OPTIONS", URI.read(held.binding.contact))
        request.via = [self._ourselves.via(flow, self._transactions.branch())]
        request.max_forwards = 70
        request.headers.set("From", f"<sip:voicegate@voicegate.invalid>;tag={secrets.token_hex(6)}")
        request.headers.set("To", "<sip:telephone@voicegate.invalid>")
        request.call_id = secrets.token_hex(12)
        request.cseq = CSeq(1, "OPTIONS")
        if held.binding.path:
            request.headers.setlist("Route", list(held.binding.path))
        request.headers.set("Accept", "application/sdp")
        request.headers.set("User-Agent", "voicegate")
        request.headers.set("Content-Length", "0")
        self._under_way += 1
        held.asked_at = time.monotonic()
        answered = partial(self._answered, held, held.asked_at)
        self._transactions.send(request, flow, answered, ANSWERS_WITHIN_S)

    def _answered(self, held: Held, asked_at: float, answer: Response | None) -> None:
        """Any answer of the telephone's own says that it is there."""
        if answer is not None and answer.code < 200:
            return
        if held.asked_at != asked_at:
            return  # said again
        held.asked_at = 0.0
        self._under_way -= 1
        was_there = held.there
        if answer is None or (held.binding.path and answer.code in _NOT_THERE):
            held.unanswered += 1
        else:
            held.unanswered, held.round_trip_s = 0, time.monotonic() - asked_at
        binding = held.binding
        if was_there is True and held.there is False:
            log.warning("registrar.silent", user=binding.user, source=binding.source, after=MOST_UNANSWERED)
        elif was_there is False and held.there:
            log.info("registrar.heard_again", user=binding.user, source=binding.source)
