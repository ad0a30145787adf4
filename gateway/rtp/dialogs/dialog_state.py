"""What a SIP dialog is to one of its two ends (RFC 3261 §12): who talks with whom, by which way."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.edge.grammar.header import CSeq
from gateway.edge.grammar.session_part import SDP
from gateway.edge.grammar.sip_message import Request, SipMessage
from gateway.edge.grammar.uri import URI


@dataclass(slots=True)
class DialogState:
    """`local` and `remote` are From and To of requests of ours, with their tags."""

    call_id: str
    """SIP's"""
    local: str
    remote: str
    target: URI
    """the other side's Contact"""
    routes: list[str] = field(default_factory=list)
    """the route set, the first hop first"""
    sequence: int = 0
    """of our last request, except ACKs"""

    def request(self, method: str, sequence: int | None = None) -> Request:
        """A request within the dialog, without Via and Contact. `sequence`: its INVITE's, for an ACK."""
        if sequence is None:
            self.sequence += 1
            sequence = self.sequence
        request = Request(method, self.target)
        request.max_forwards = 70
        request.headers.set("From", self.local)
        request.headers.set("To", self.remote)
        request.call_id = self.call_id
        request.cseq = CSeq(sequence, method)
        if self.routes:
            request.headers.setlist("Route", self.routes)
        request.headers.set("Content-Length", "0")
        return request


def describe(message: SipMessage, body: str) -> None:
    """Puts a session's description into a message; an empty one leaves it as it is."""
    if body:
        message.body = body.encode()
        message.headers.set("Content-Type", SDP)
        message.headers.set("Content-Length", str(len(message.body)))
