"""A line's SIP on the loopback: its socket, and requests of ours until they have their answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import structlog

from gateway.edge.dialogs.transaction import LINGER_S, Sent, Transactions, ack_of, of_transaction
from gateway.edge.flows.transport import Flow, UdpPort
from gateway.edge.grammar.message import Unreadable, read, transaction_key
from gateway.edge.grammar.responses import response
from gateway.edge.grammar.sip_message import Request, Response
from gateway.edge.grammar.uri import URI
from gateway.errors import LineError
from model.tasks import failed

LOOPBACK: Final = "127.0.0.1"
TRIES_S: Final = 60.0
"""How long the edge may take to find somebody who answers a target's INVITE, if only by 100."""

log = structlog.get_logger("rtp")


class LineWire:
    """One line's. `open` first. `take` gets every request that comes; one that it breaks on has 500."""

    def __init__(self, port: int, take: Callable[[Request, Flow], None]) -> None:
        """`port` is UDP's; 0: any that is free."""
        self.transactions = Transactions(lambda served, answer: None)
        self._port = port
        self._take = take
        self._sip = UdpPort(self._received)
        self._asked: set[Request] = set()
        """requests of ours without a final answer"""
        self._quiet = asyncio.Event()

    async def open(self) -> None:
        """Raises `LineError` when the port is taken."""
        try:
            await self._sip.open(LOOPBACK, self._port)
        except OSError as error:
            raise LineError(f"cannot listen on UDP {LOOPBACK}:{self._port}: {error}") from None

    async def falls_quiet(self, within_s: float) -> None:
        """Waits so long for the answers to requests of ours."""
        if self._asked:
            self._quiet.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._quiet.wait(), within_s)

    async def close(self) -> None:
        """After the last call."""
        self.transactions.close()
        await self._sip.close()

    @property
    def port(self) -> int:
        """Where the edge reaches us."""
        return self._sip.address[1]

    def _received(self, data: bytes, flow: Flow) -> bool:
        """One message of the edge's."""
        try:
            message = read(data, from_edge=True)
        except Unreadable as error:
            log.warning("line.unreadable", error=str(error))
            return False
        try:
            if isinstance(message, Response):
                self.transactions.take(message, flow)
            else:
                self._take(message, flow)
        except Exception as error:  # ours; who asked is told, and other calls go on
            failed("rtp.sip", error)
            if isinstance(message, Request):
                served = self.transactions.find(transaction_key(message, flow))
                if served is not None and not served.final:
                    served.answer(response(message, flow, 500))
        return True

    # ── requests of ours ─────────────────────────────────────────────────────────────────────────────

    def send(self, request: Request, flow: Flow, answered: Callable[[Response | None], None]) -> None:
        """Sends a request that has no Via yet; `answered` gets its responses, or None when none came."""
        self._with_via(request)
        self._asked.add(request)

        def taken(answer: Response | None) -> None:
            if answer is not None and request.method == "INVITE" and answer.code >= 300:
                flow.send(bytes(ack_of(request, answer)))
            if answer is None or answer.code >= 200:
                self._asked.discard(request)
                if not self._asked:
                    self._quiet.set()
            answered(answer)

        self.transactions.send(request, flow, taken, LINGER_S)

    def invite(self, invite: Request, flow: Flow, answered: Callable[[Response | None], None]) -> Sent:
        """Sends an INVITE that has no Via yet; `answered` gets all its responses, or None when none came.

        Its ACK is the caller's to send, whatever the answer.
        """
        self._with_via(invite)
        return self.transactions.send(invite, flow, answered, TRIES_S)

    def cancel(self, sent: Sent) -> None:
        """Sends a CANCEL as soon as one may go out."""

        def send() -> None:
            cancel = of_transaction(sent.request, "CANCEL")
            cancel.headers.set("To", sent.request.headers["To"])
            sent.flow.send(bytes(cancel))  # on the loopback: it is not lost

        sent.cancel(send)

    def send_ack(self, ack: Request, flow: Flow) -> None:
        """Sends an ACK that has no Via yet."""
        self._with_via(ack)
        flow.send(bytes(ack))

    def _with_via(self, request: Request) -> None:
        host, port = self._sip.address
        request.headers.set("Via", f"SIP/2.0/UDP {host}:{port};rport;branch={self.transactions.branch()}")

    def contact(self) -> str:
        """Where requests of a dialog are to come."""
        host, port = self._sip.address
        return f"<sip:{host}:{port}>"

    def flow(self, port: int) -> Flow:
        """The way to a port of this host."""
        return self._sip.flow(LOOPBACK, port)

    def flow_to(self, uri: URI, otherwise: Flow) -> Flow:
        """The way to a SIP URI of this host's; `otherwise` to all others."""
        return self._sip.flow(uri.host, uri.port) if uri.host == LOOPBACK and uri.port else otherwise
