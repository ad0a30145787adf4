"""Browsers' calls, as the front places them: a place on a web line, and that line's answer to the offer."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from gateway.errors import CallRefused, RpcError
from gateway.front.admission.routing import Routing
from gateway.front.calls.closing import Closing
from gateway.front.halls.hall_choice import BUSY_FOR_S, HallChoice
from gateway.ipc.call_facts import CallFacts
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.line_messages import AnswerOffer, IceReply, PressKey, RenewOffer, TrickleIce
from gateway.ipc.rpc import Peer

OFFER_WITHIN_S: Final = 5.0
LINE_BACK_S: Final = 2
"""A line that died, or lost its hall, is back by then."""


@dataclass(slots=True, eq=False)
class ConnectedWebLine:
    """A connected web line, the calls it has, and the places that offers on their way have taken."""

    peer: Peer
    hall: str
    capacity: int
    calls: set[str] = field(default_factory=set)
    taken: int = 0

    @property
    def load(self) -> int:
        """Places that are not free."""
        return len(self.calls) + self.taken

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Holds a place for an offer; whoever has the call's id by the end puts it into `calls`."""
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


@dataclass
class WebCalls:
    """The web lines that are connected, by name, and who gets a place on them."""

    routing: Routing
    closing: Closing
    halls: HallChoice
    statement: Callable[[str], Awaitable[str | None]]
    """The signed statement of a call, for its page."""
    lines: dict[str, ConnectedWebLine] = field(default_factory=dict)

    def held_by_halls(self) -> Counter[str]:
        """How many places of each hall's web lines are not free."""
        held: Counter[str] = Counter()
        for line in self.lines.values():
            held[line.hall] += line.load
        return held

    def slots(self) -> tuple[int, int]:
        """How many places browsers' calls have, and how many of them are free."""
        places = sum(line.capacity for line in self.lines.values())
        return places, places - sum(min(line.load, line.capacity) for line in self.lines.values())

    async def place(self, facts: CallFacts, offer_sdp: str) -> tuple[str, str]:
        """The new call's id and the SDP answer. Raises `CallRefused`."""
        line = self._line()
        with line.place():  # before anything is awaited: others ask meanwhile
            routed = await self.routing.offer(facts, hall=line.hall)
            line.calls.add(routed.call_id)
        try:
            return routed.call_id, await self._answer(line, routed.call_id, offer_sdp)
        except BaseException:
            line.calls.discard(routed.call_id)
            raise

    def _line(self) -> ConnectedWebLine:
        """One with a free place, of the hall that shall have the call. Raises `CallRefused`."""
        free = [line for line in self.lines.values() if line.load < line.capacity]
        if not free:
            raise CallRefused(503, "all web lines are busy", retry_after_s=BUSY_FOR_S, cause="lines busy")
        hall = self.halls.among(line.hall for line in free)
        if hall is None:
            raise self.halls.none()
        return min((line for line in free if line.hall == hall), key=lambda line: line.load)

    async def _answer(self, line: ConnectedWebLine, call_id: str, offer_sdp: str) -> str:
        """The line's SDP answer to a call's offer. Raises `CallRefused`, with the call ended in its hall."""
        try:
            answer = await line.peer.ask(
                AnswerOffer(call_id, offer_sdp, await self.statement(call_id)), OFFER_WITHIN_S
            )
        except RpcError as error:
            await self.closing.ended(call_id, CallEnding(End.FAILED, str(error)))
            why = f"no line took the call: {error}"
            raise CallRefused(503, why, retry_after_s=LINE_BACK_S, call_id=call_id, cause="line") from None
        except asyncio.CancelledError:
            await asyncio.shield(self.closing.ended(call_id, CallEnding(End.CANCELLED)))
            raise
        if answer.sdp is None:
            why = f"the offer cannot be answered: {answer.wrong}"
            await self.closing.ended(call_id, CallEnding(End.FAILED, why))
            raise CallRefused(488, why, call_id=call_id, cause="offer")
        return answer.sdp

    async def renew(self, call_id: str, offer_sdp: str) -> str:
        """The line's answer to another offer in a call that goes on. Raises `CallRefused`."""
        line = self._line_of(call_id)
        if line is None:
            raise CallRefused(481, f"no running call {call_id}")
        try:
            answer = await line.peer.ask(RenewOffer(call_id, offer_sdp), OFFER_WITHIN_S)
        except RpcError as error:
            raise CallRefused(503, f"its line does not answer: {error}", retry_after_s=LINE_BACK_S) from None
        if answer.sdp is None:
            raise CallRefused(488, f"the offer cannot be answered: {answer.wrong}", call_id=call_id)
        return answer.sdp

    async def trickle(self, call_id: str, fragment: str, etag: str) -> IceReply:
        """What a browser PATCHes to its call (RFC 9725 §4.3). Raises `CallRefused`."""
        line = self._line_of(call_id)
        if line is None:
            raise CallRefused(404, f"no running call {call_id}")
        try:
            return await line.peer.ask(TrickleIce(call_id, fragment, etag), OFFER_WITHIN_S)
        except RpcError as error:
            raise CallRefused(503, f"its line does not answer: {error}", retry_after_s=LINE_BACK_S) from None

    async def press(self, call_id: str, digit: str) -> None:
        """A key of a call's caller, as INFO said it."""
        line = self._line_of(call_id)
        if line is not None:
            with contextlib.suppress(RpcError):
                await line.peer.ask(PressKey(call_id, digit))

    def _line_of(self, call_id: str) -> ConnectedWebLine | None:
        return next((line for line in self.lines.values() if call_id in line.calls), None)

    def has(self, call_id: str) -> bool:
        """Whether one of the lines has that call."""
        return self._line_of(call_id) is not None

    def over(self, call_id: str) -> None:
        """The call's place is free."""
        for line in self.lines.values():
            line.calls.discard(call_id)
