"""A dialog as the edge sees it go by: enough to end it by ourselves when a line or a caller cannot."""

from __future__ import annotations

from dataclasses import dataclass, field

from sipmessage import URI, CSeq, Request, Response, Via

from gateway.edge.token import RouteToken
from gateway.edge.transaction import Timer
from gateway.edge.transport import Flow


@dataclass(eq=False, slots=True)
class Dialog:
    """One call between a caller and a line. Tags, CSeqs and routes are the wire's own text."""

    token: RouteToken
    sip_call_id: str
    caller_from: str
    """the caller's From, with its tag"""
    caller_contact: str
    caller_routes: list[str]
    """Record-Route that proxies in front of us left, for requests toward the caller"""
    caller_cseq: int
    flow: Flow
    answer_to: str = ""
    """the line's To, with its tag; empty until it answered"""
    line_contact: str = ""
    line_cseq: int = 0
    answered: bool = False
    acknowledged: bool = False
    patience: Timer = field(default_factory=Timer)
    """runs while the caller owes us an ACK"""

    def note_answer(self, response: Response) -> None:
        """A 2xx of the line went by."""
        self.answered = True
        self.answer_to = response.headers["To"]
        if contacts := response.contact:
            self.line_contact = str(contacts[0].uri)

    def toward_caller(self, method: str, via: Via) -> Request:
        """A request of ours in the line's name."""
        self.line_cseq += 1
        request = Request(method, URI.parse(self.caller_contact))
        _frame(request, via, self.sip_call_id, CSeq(max(1, self.line_cseq), method))
        request.headers.set("From", self.answer_to)
        request.headers.set("To", self.caller_from)
        for route in self.caller_routes:
            request.headers.add("Route", route)
        return request

    def toward_line(self, method: str, via: Via) -> Request:
        """A request of ours in the caller's name; an ACK takes the INVITE's CSeq."""
        if method != "ACK":
            self.caller_cseq += 1
        uri = self.line_contact or f"sip:127.0.0.1:{self.token.line_port}"
        request = Request(method, URI.parse(uri))
        _frame(request, via, self.sip_call_id, CSeq(self.caller_cseq, method))
        request.headers.set("From", self.caller_from)
        request.headers.set("To", self.answer_to)
        return request


def _frame(request: Request, via: Via, call_id: str, cseq: CSeq) -> None:
    request.via = [via]
    request.max_forwards = 70
    request.call_id = call_id
    request.cseq = cseq
    request.headers.set("Content-Length", "0")
