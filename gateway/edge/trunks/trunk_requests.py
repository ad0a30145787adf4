"""Requests to a trunk outside a call: OPTIONS and REGISTER, with the password if it is asked for."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.edge.dialogs.transaction import Transactions
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.header import CSeq, Via
from gateway.edge.grammar.sip_message import Request, Response
from gateway.edge.grammar.uri import URI
from gateway.edge.trunks.digest_answer import Credentials
from gateway.edge.trunks.trunk import Trunk
from gateway.edge.trunks.trunk_ways import TrunkWay

ANSWERS_WITHIN_S: Final = 4.0
MOST_TRIES: Final = 4


class Ourselves(Protocol):
    """How a peer reaches us (`gateway.edge.dialogs.identity.Identity`)."""

    def via(self, flow: Flow, branch: str) -> Via:
        """A Via of ours."""

    def uri(self, flow: Flow, user: str = "", *, sips: bool = False) -> str:
        """Ours, as the peer reaches us."""


@dataclass(frozen=True, slots=True)
class TrunkRequests:
    """See the module. `connect` raises `NoFlow`."""

    transactions: Transactions
    ourselves: Ourselves
    connect: Callable[[TrunkWay], Awaitable[Flow]]
    told: Callable[[str, Request | Response], None] = lambda arrow, message: None
    """hears of each request and each answer"""

    def contact(self, trunk: Trunk, flow: Flow) -> str:
        """Where the trunk's calls to us are to come."""
        user = trunk.user or (trunk.numbers[0] if trunk.numbers else "voicegate")
        return f"<{self.ourselves.uri(flow, user, sips=trunk.sips)}>"

    async def ask(
        self,
        trunk: Trunk,
        way: TrunkWay,
        method: str,
        headers: Mapping[str, str],
        *,
        call_id: str = "",
        cseq: int = 0,
        contact: bool = False,
        credentials: Credentials | None = None,
    ) -> tuple[Response | None, int]:
        """The final answer (None: none came), and the highest CSeq that was used. `contact`: with ours.

        Raises `NoFlow`; `PermissionError` says why a challenge is not answered.
        """
        flow = await self.connect(way)
        known = credentials or Credentials(trunk)
        known.renew()
        uri = URI.read(f"{trunk.scheme}:{trunk.realm_host}")
        call_id, tag = call_id or secrets.token_hex(12), secrets.token_hex(6)
        user = trunk.user or (trunk.numbers[0] if trunk.numbers else "voicegate")
        who = f"<{trunk.scheme}:{user}@{trunk.realm_host}>"
        for _ in range(MOST_TRIES):
            cseq += 1
            request = Request(method, uri)
            request.via = [self.ourselves.via(flow, self.transactions.branch())]
            request.max_forwards = 70
            request.headers.set("From", f"{who};tag={tag}")
            request.headers.set("To", who if method == "REGISTER" else f"<{uri}>")
            request.call_id = call_id
            request.cseq = CSeq(cseq, method)
            if contact:
                request.headers.set("Contact", self.contact(trunk, flow))
            for name, value in headers.items():
                request.headers.set(name, value)
            request.headers.set("User-Agent", "voicegate")
            known.put(request)
            request.headers.set("Content-Length", "0")
            answer = await self._answer(request, flow)
            if answer is None or answer.code not in (401, 407):
                return answer, cseq
            if (why := known.learn(answer)) is not None:
                raise PermissionError(why)
        return answer, cseq

    async def _answer(self, request: Request, flow: Flow) -> Response | None:
        came: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()

        def answered(answer: Response | None) -> None:
            if answer is not None:
                self.told("←", answer)
            if not came.done() and (answer is None or answer.code >= 200):
                came.set_result(answer)

        self.told("→", request)
        sent = self.transactions.send(request, flow, answered, ANSWERS_WITHIN_S)
        try:
            return await came
        finally:
            if not sent.final:
                sent.close()
