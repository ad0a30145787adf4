"""The lines' side: what a line says. Lines are ours, but each may be about to die."""

from __future__ import annotations

from typing import Protocol

from gateway.edge.dialogs.transaction import Served
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.header import CSeq
from gateway.edge.grammar.message import to_tag, transaction_key
from gateway.edge.grammar.responses import response
from gateway.edge.grammar.sip_message import Request, Response
from gateway.edge.proxy.forwarding import Forwarding
from gateway.edge.proxy.switchboard import Switchboard


class Leaving(Protocol):
    """The calls that lines have leave (`gateway.edge.trunks.out_calls`)."""

    def invited(self, served: Served) -> None:
        """An INVITE of a line's that opens a dialog."""

    def cancel(self, invite: Served) -> bool:
        """A CANCEL; False when its INVITE is none of these."""

    def within(self, request: Request, served: Served | None) -> bool:
        """A request within a dialog, `served` None for an ACK; False when it is none of these."""


class LinesSide:
    """See the module."""

    def __init__(self, board: Switchboard, forwarding: Forwarding, leaving: Leaving) -> None:
        self._board = board
        self._forwarding = forwarding
        self._leaving = leaving

    def take(self, message: Request | Response, flow: Flow) -> None:
        """One message of a line that is up."""
        if isinstance(message, Response):
            late = message.cseq.method == "INVITE" and 200 <= message.code < 300
            if not self._board.transactions.take(message, flow) and late:
                self._hang_up(message, flow)
        else:
            self._request(message, flow)

    def _request(self, request: Request, flow: Flow) -> None:
        key = transaction_key(request, flow)
        invite = self._board.transactions.find((key[0], key[1], "INVITE"))
        if request.method == "ACK":
            if invite is not None and invite.final >= 300:
                invite.acknowledged()
            elif not self._leaving.within(request, None):
                self._forwarding.to_caller(request, None)
            return
        if (served := self._board.transactions.find(key)) is not None:
            served.repeated()
            return
        served = self._board.transactions.serve(request, flow, key)
        if served is None:
            flow.send(bytes(response(request, flow, 503)))
        elif request.method == "CANCEL":
            served.answer(response(request, flow, 200 if invite is not None else 481))
            if invite is not None and not self._leaving.cancel(invite):
                self._forwarding.cancel(invite)
        elif request.method == "INVITE" and not to_tag(request):
            self._leaving.invited(served)
        elif self._leaving.within(request, served):
            pass
        elif request.method == "BYE":
            served.answer(response(request, flow, 200))  # a caller who vanished keeps no slot
            self._forwarding.to_caller(request, served)
            self._over(request)
        elif not self._forwarding.to_caller(request, served):
            self._board.refuse(served, 481)

    def _over(self, bye: Request) -> None:
        token = self._board.token_of(bye)
        dialog = self._board.dialogs.of_call(token.call_id) if token is not None else None
        if dialog is not None and dialog.answered and not dialog.acknowledged and _timed_out(bye):
            self._board.unheard(dialog)  # the line waits as long as we do, and came first
        elif dialog is not None:
            self._board.line_hung_up(dialog)
        elif token is not None:
            self._board.lines.release(token.line, token.call_id)

    def _hang_up(self, answer: Response, flow: Flow) -> None:
        """A line answered an INVITE that we gave up: ACK and BYE, so that it does not wait for them."""
        if not answer.contact:
            return
        for number, method in ((0, "ACK"), (1, "BYE")):
            request = Request(method, answer.contact[0].uri)
            request.via = [self._board.line_via()]
            request.max_forwards = 70
            for name in ("From", "To", "Call-ID"):
                request.headers.set(name, answer.headers[name])
            request.cseq = CSeq(answer.cseq.sequence + number, method)
            request.headers.set("Content-Length", "0")
            flow.send(bytes(request))


def _timed_out(bye: Request) -> bool:
    """Whether the line gives "Request Timeout" as its reason (RFC 3326)."""
    return "cause=408" in (bye.headers.get("Reason") or "")
