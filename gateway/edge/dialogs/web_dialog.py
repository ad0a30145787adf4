"""A dialog whose other end is a web line: the edge is the user agent, since the line speaks no SIP."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from gateway.edge.dialogs.dialog import DialogId
from gateway.edge.dialogs.transaction import T1, T2, Timer
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.header import CSeq, Via
from gateway.edge.grammar.message import from_tag, to_tag
from gateway.edge.grammar.sip_message import Request, Response
from gateway.edge.grammar.uri import URI


@dataclass(eq=False, slots=True)
class WebDialog:
    """One call between a caller and a web line (RFC 3261 §12). Texts are the wire's own."""

    id: DialogId
    call_id: str
    """ours"""
    caller_from: str
    caller_contact: URI
    routes: list[str]
    """Record-Route of the INVITE: the way to the caller through its proxies"""
    flow: Flow
    """where the caller was last heard"""
    caller_cseq: int
    to: str = ""
    """our To, with our tag; empty until we answered"""
    own_cseq: int = 0
    own_tag: str = field(default_factory=lambda: secrets.token_hex(16))
    renewing: bool = False
    """an offer of the caller's waits for its answer"""
    _owed: dict[int, tuple[bytes, Timer, Timer]] = field(default_factory=dict)
    """2xx of INVITEs that wait for their ACK, by CSeq; what repeats each, and what gives it up"""

    def names(self, request: Request) -> bool:
        """Whether a caller's request says this dialog's Call-ID and both its tags (RFC 3261 §12.2.2)."""
        return self.id == (request.call_id, from_tag(request)) and to_tag(request) == self.own_tag

    def owe(self, answer: Response, give_up: Callable[[], None], within_s: float) -> None:
        """Repeats a 2xx that was sent until its ACK comes (RFC 3261 §13.3.1.4); else calls `give_up`."""
        sequence, text = answer.cseq.sequence, bytes(answer)
        repeat, patience = Timer(), Timer()
        self._owed[sequence] = (text, repeat, patience)

        def again(delay_s: float) -> None:
            def send() -> None:
                self.flow.send(text)
                again(min(2 * delay_s, T2))

            repeat.start(delay_s, send)

        again(T1)  # over a connection too: who acknowledges is not the next hop
        patience.start(within_s, give_up)

    def acknowledged(self, sequence: int) -> None:
        """The ACK of that INVITE came."""
        owed = self._owed.pop(sequence, None)
        if owed is not None:
            owed[1].cancel()
            owed[2].cancel()

    def rest(self) -> None:
        """Nothing is repeated any more."""
        for sequence in list(self._owed):
            self.acknowledged(sequence)

    def request(self, method: str, via: Via) -> Request:
        """A request of ours."""
        self.own_cseq += 1
        made = Request(method, self.caller_contact)
        made.via = [via]
        made.max_forwards = 70
        made.headers.set("From", self.to)
        made.headers.set("To", self.caller_from)
        made.call_id = self.id[0]
        made.cseq = CSeq(self.own_cseq, method)
        if self.routes:
            made.headers.setlist("Route", list(self.routes))
        made.headers.set("Content-Length", "0")
        return made


class WebDialogs:
    """Those that live; web lines bound their number."""

    def __init__(self) -> None:
        self._by_id: dict[DialogId, WebDialog] = {}
        self._by_call: dict[str, WebDialog] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, dialog_id: DialogId) -> bool:
        return dialog_id in self._by_id

    def __iter__(self) -> Iterator[WebDialog]:
        return iter(list(self._by_id.values()))

    def add(self, dialog: WebDialog) -> None:
        self._by_id[dialog.id] = self._by_call[dialog.call_id] = dialog

    def get(self, dialog_id: DialogId) -> WebDialog | None:
        return self._by_id.get(dialog_id)

    def of_call(self, call_id: str) -> WebDialog | None:
        return self._by_call.get(call_id)

    def remove(self, dialog: WebDialog) -> bool:
        """False when it was gone already."""
        dialog.rest()
        self._by_call.pop(dialog.call_id, None)
        return self._by_id.pop(dialog.id, None) is not None
