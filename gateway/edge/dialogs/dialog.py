"""Dialogs as the edge sees them go by: enough to end one by ourselves when a line or a caller cannot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.edge.dialogs.transaction import Served, Timer
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.header import CSeq, Via
from gateway.edge.grammar.message import from_tag, to_tag
from gateway.edge.grammar.sdes import SrtpRule
from gateway.edge.grammar.sip_message import Request, Response
from gateway.edge.grammar.sips import wants_sips
from gateway.edge.grammar.token import RouteToken
from gateway.edge.grammar.uri import URI

DialogId = tuple[str, str]
"""SIP Call-ID and the caller's tag."""


@dataclass(eq=False, slots=True)
class Dialog:
    """One call between a caller and a line. Tags, CSeqs and routes are the wire's own text."""

    id: DialogId
    token: RouteToken
    source: str
    """the caller's address"""
    caller_from: str
    """the caller's From, with its tag"""
    caller_contact: URI
    caller_routes: list[str]
    """Record-Route that proxies in front of us left, for requests toward the caller"""
    invite: Served
    """what the call began with"""
    caller_cseq: int
    """the highest that it has used"""
    flow: Flow
    """where the caller was last heard"""
    line_tag: str = ""
    """empty until the line has answered, if only with 180"""
    answer_to: str = ""
    """the line's To, with its tag; empty until it answered"""
    line_contact: URI | None = None
    line_cseq: int = 0
    media_host: str = ""
    """whom our address in descriptions is for; empty: who sent the last request"""
    answered: bool = False
    acknowledged: bool = False
    vouched_for: bool = False
    """the caller has logged in, or is a peer that the operator named"""
    reliable: bool = False
    """the line has sent a provisional response that wants a PRACK"""
    srtp: SrtpRule = "optional"
    """whether its sound is encrypted, as the caller may have it"""
    referred: bool = False
    """we asked the caller to call somebody else: it sends NOTIFY about that"""
    caller_offers: Served | None = None
    """the caller's last INVITE or UPDATE within the dialog"""
    line_offers: Served | None = None
    """the line's last INVITE or UPDATE"""
    patience: Timer = field(default_factory=Timer)
    """runs while the caller owes us an ACK"""

    @property
    def secured(self) -> bool:
        """Whether its caller wants TLS on each hop."""
        return wants_sips(self.invite.request)

    @property
    def line_uri(self) -> URI:
        return self.line_contact or line_uri(self.token)

    def names(self, request: Request) -> bool:
        """Whether a caller's request says this dialog's Call-ID and both its tags (RFC 3261 §12.2.2)."""
        ours = self.id == (request.call_id, from_tag(request))
        return ours and self.line_tag != "" and to_tag(request) == self.line_tag

    def opened_by(self, ack: Request) -> bool:
        """Whether it is the ACK of the call's first INVITE."""
        return ack.cseq.sequence == self.invite.request.cseq.sequence

    def note_provisional(self, response: Response) -> None:
        """A 1xx of the line, but 100, went by: there is an early dialog."""
        self.line_tag = self.line_tag or to_tag(response)
        self.reliable = self.reliable or response.headers.get("RSeq") is not None

    def note_answer(self, response: Response) -> None:
        """A 2xx of the line went by."""
        self.answered = True
        self.line_tag = to_tag(response)
        self.answer_to = response.headers["To"]
        if contacts := response.contact:
            self.line_contact = contacts[0].uri

    def toward_caller(self, method: str, via: Via) -> Request:
        """A request of ours in the line's name."""
        self.line_cseq += 1
        request = Request(method, self.caller_contact)
        self._frame(request, via, self.line_cseq)
        request.headers.set("From", self.answer_to)
        request.headers.set("To", self.caller_from)
        if self.caller_routes:
            request.headers.setlist("Route", list(self.caller_routes))
        return request

    def toward_line(self, method: str, via: Via) -> Request:
        """A request of ours in the caller's name; an ACK is that of the call's first INVITE."""
        if method != "ACK":
            self.caller_cseq += 1
        request = Request(method, self.line_uri)
        invite = self.invite.request.cseq.sequence
        self._frame(request, via, invite if method == "ACK" else self.caller_cseq)
        request.headers.set("From", self.caller_from)
        request.headers.set("To", self.answer_to)
        return request

    def _frame(self, request: Request, via: Via, sequence: int) -> None:
        request.via = [via]
        request.max_forwards = 70
        request.call_id = self.id[0]
        request.cseq = CSeq(sequence, request.method)
        request.headers.set("Content-Length", "0")


def line_uri(token: RouteToken) -> URI:
    """A line whose Contact we do not know."""
    return URI.read(f"sip:127.0.0.1:{token.line_port}")


class Dialogs:
    """Those that live. Each holds a line's slot, so there are never more than slots."""

    def __init__(self) -> None:
        self._by_id: dict[DialogId, Dialog] = {}
        self._by_call: dict[str, Dialog] = {}
        self._call_ids: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, dialog_id: DialogId) -> bool:
        return dialog_id in self._by_id

    def __iter__(self) -> Iterator[Dialog]:
        return iter(list(self._by_id.values()))

    def add(self, dialog: Dialog) -> None:
        self._by_id[dialog.id] = self._by_call[dialog.token.call_id] = dialog
        self._call_ids[dialog.id[0]] += 1

    def get(self, dialog_id: DialogId) -> Dialog | None:
        return self._by_id.get(dialog_id)

    def has_call_id(self, sip_call_id: str) -> bool:
        return sip_call_id in self._call_ids

    def of_call(self, call_id: str) -> Dialog | None:
        return self._by_call.get(call_id)

    def remove(self, dialog: Dialog) -> bool:
        """False when it was gone already."""
        if self._by_id.pop(dialog.id, None) is None:
            return False
        self._by_call.pop(dialog.token.call_id, None)
        self._call_ids[dialog.id[0]] -= 1
        if not self._call_ids[dialog.id[0]]:
            del self._call_ids[dialog.id[0]]
        return True
