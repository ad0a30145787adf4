"""Where a test phone dials through a trunk: an edge of the command's own, whose only line is that phone.

    phone ──loopback──→ booth ──→ the trunk, by `out_call`: password, failover, 302, SRTP, as of any call

What may leave is what the trunk's file lets out: its prefixes, its calls at once (those that a gateway beside
has are counted in) and a minute. The phone dials a word that nobody can guess, so that no other program of
this machine gets a call out, and the phone knows no number and no password. Nothing comes in: the trunk's own
calls find the gateway that is registered.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine, Iterator
from typing import Any, Final, cast

from gateway.config.certificate import Trust, asking
from gateway.config.own_address import seen_from
from gateway.edge.dialogs.transaction import Sent, Served
from gateway.edge.doors.edge_config import EdgeConfig
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.message import Unreadable, read, transaction_key
from gateway.edge.grammar.responses import response, told
from gateway.edge.grammar.sip_message import Request, Response
from gateway.edge.grammar.token import KEY_BYTES, RouteToken
from gateway.edge.proxy.forwarding import Forwarding
from gateway.edge.proxy.lineside import LinesSide
from gateway.edge.proxy.switchboard import LOOPBACK, Switchboard
from gateway.edge.router import RefusedInvite, Router
from gateway.edge.trunks.left_calls import LeftCalls
from gateway.edge.trunks.out_call import OutCall
from gateway.edge.trunks.outlets import TrunkOutlet
from gateway.edge.trunks.trunk import Trunk
from gateway.edge.trunks.trunk_tls import TrunkTls
from gateway.edge.trunks.trunk_trial import Ladder
from gateway.edge.trunks.trunk_use import TrunkUse
from gateway.edge.trunks.trunk_ways import TrunkWay, TrunkWays
from gateway.errors import NoFlow
from model.tasks import Tasks

PHONE_ASKS: Final = frozenset({"BYE", "INFO"})
"""What a test phone may ask within its call."""
LAST_WORDS: Final = 100
LAST_WORD_S: Final = 0.02
"""So often, and so long each time, the trunk's answer to the last BYE is waited for."""


class TrunkBooth:
    """One trunk's. All methods belong to one event loop."""

    def __init__(
        self,
        trunk: Trunk,
        trust: Trust = asking,
        *,
        beside: int = 0,
    ) -> None:
        """`trust` says which servers' certificates hold; `beside`: calls by the trunk that others have.

        Raises `SettingsError`.
        """
        self.trunk = trunk
        self.ladder = Ladder()
        self.use = TrunkUse(trunk)
        self.use.calls = beside
        self._tls = TrunkTls(trunk, trust)
        self.ways = TrunkWays(trunk)
        self._tasks = Tasks()
        self._numbers: dict[str, str] = {}
        """what a phone dials, and who that is"""
        self._left = LeftCalls()
        nobody = "0.0.0.0"  # noqa: S104  # the trunk's answers come from wherever it is
        config = EdgeConfig(nobody, 0, secrets.token_hex(16), secrets.token_bytes(KEY_BYTES), trust=trust)
        self._board = Switchboard(
            config,
            cast(Router, _Unheard()),
            self._spawn,
            from_caller=self._from_trunk,
            from_line=self._from_phone,
            source=lambda request, flow: flow.host,
            lost=lambda flow: None,
            trunk_of=lambda flow: None,
            trusts_trunk=lambda flow: False,
        )
        self._phones = LinesSide(self._board, Forwarding(self._board), self)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.short(work, "booth.work")

    async def open(self) -> None:
        """Looks the trunk's names up, and takes ports. Raises `OSError`; `NoFlow`: the trunk is nowhere."""
        await self.ways.look_up()
        if not self.ways.all:
            raise NoFlow("; ".join(f"{name}: {why}" for name, why in self.ways.unknown.items()))
        await self._board.loopback.open(LOOPBACK, 0)
        await self._board.ports.open(self._board.config.host, 0)

    async def close(self) -> None:
        """Once the trunk has answered the last BYE, or does not."""
        for _ in range(LAST_WORDS):
            if not any(self._unanswered()):
                break
            await asyncio.sleep(LAST_WORD_S)
        self._board.transactions.close()
        await self._tasks.stop()
        await self._board.ports.close()
        await self._board.loopback.close()

    def _unanswered(self) -> Iterator[Sent]:
        """What the trunk has not answered yet."""
        for way in self.ways.all:
            yield from self._board.transactions.toward(way.transport, way.host, way.port)

    @property
    def sound_address(self) -> str:
        """Ours, from which the trunk is reached."""
        return seen_from(self.ways.all[0].host)

    def uri_of(self, number: str) -> str:
        """What a phone dials to reach that number, once."""
        word = secrets.token_hex(16)
        self._numbers[word] = number
        return f"sip:{word}@{LOOPBACK}:{self._board.loopback.address[1]}"

    # ── from the phone ───────────────────────────────────────────────────────────────────────────────

    def invited(self, served: Served) -> None:
        """See `Leaving`."""
        request, flow = served.request, served.flow
        number = self._numbers.pop(request.uri.user or "", None)
        if number is None:
            served.answer(response(request, flow, 403))
            return
        served.answer(response(request, flow, 100))
        if (why_not := self.use.take(number)) is not None:
            served.answer(told(request, flow, 403, why_not))
            return
        token = RouteToken(number, "phone", flow.port, "udp", LOOPBACK, flow.port)
        outlet = TrunkOutlet(self, number, self.trunk.shown_as(""))
        request.headers.set("Supported", "")  # what the phone can stays between it and us
        self._left.begin(OutCall(self._board, self, served, token, outlet))

    def cancel(self, invite: Served) -> bool:
        """See `Leaving`."""
        return self._left.cancel(invite)

    def within(self, request: Request, served: Served | None) -> bool:
        """See `Leaving`."""
        call = self._left.asked(request)
        if call is None:
            return False
        if served is None:
            call.acknowledge(request)
        elif request.method in PHONE_ASKS:
            call.ask(served)
        else:
            self._board.refuse(served, 488)
        return True

    def over(self, call: OutCall, status: int) -> None:
        """See `OutOwner`."""
        self._left.over(call)
        self.use.give()

    def _from_phone(self, data: bytes, flow: Flow) -> bool:
        message = _read(data)
        if message is None or flow.host != LOOPBACK:
            return False
        self._phones.take(message, flow)
        return True

    # ── from the trunk ───────────────────────────────────────────────────────────────────────────────

    def _from_trunk(self, data: bytes, flow: Flow) -> bool:
        message = _read(data)
        if message is None or not self.ways.owns(flow.host):
            return False
        self.ladder.note("←", message)
        if isinstance(message, Response):
            self._board.transactions.take(message, flow)
            return True
        call = self._left.told(message)
        key = transaction_key(message, flow)
        if message.method == "ACK":
            if call is not None:
                call.take_ack(message)
        elif (served := self._board.transactions.find(key)) is not None:
            served.repeated()
        elif call is None:
            flow.send(bytes(response(message, flow, 481)))
        elif (served := self._board.transactions.serve(message, flow, key)) is not None:
            call.take(served)
        return True

    async def connect(self, way: TrunkWay) -> Flow:
        """See `TrunkPeer`."""
        context = self._tls.context()
        flow = await self._board.ports.connect(way.transport, way.host, way.port, way.name, context)
        return flow.overheard(self._sent)

    def is_peer(self, flow: Flow) -> bool:
        """See `TrunkPeer`: only what we opened leads here from it."""
        return self.ways.owns(flow.host)

    def _sent(self, data: bytes) -> None:
        if (message := _read(data)) is not None:
            self.ladder.note("→", message)


class _Unheard:
    """In the place of the front: nobody asks whether calls are taken, and nobody is told of refused ones."""

    def refused(self, call: RefusedInvite) -> str | None:
        """The phone says itself what it heard."""
        return None


def _read(data: bytes) -> Request | Response | None:
    try:
        return read(data)
    except Unreadable:
        return None
