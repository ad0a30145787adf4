"""Requests and responses on their way through the edge, from callers to lines and from lines to callers.

A request toward a line carries one Via (ours) and few headers; what was taken off is put back on its
response. Toward a caller everything of the line's goes on, but for what tells addresses or allows transfers.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from gateway.edge.dialogs.dialog import Dialog, line_uri
from gateway.edge.dialogs.transaction import LINGER_S, Sent, Served, ack_of, of_transaction
from gateway.edge.doors.doors import SUPPORTED
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar import sdp
from gateway.edge.grammar.header import Address
from gateway.edge.grammar.message import stamped, to_tag
from gateway.edge.grammar.responses import ALLOW, response, tagged
from gateway.edge.grammar.session_part import SDP, session_part
from gateway.edge.grammar.sip_message import Request, Response, SipMessage
from gateway.edge.grammar.sips import SIPS, in_the_clear, wants_sips
from gateway.edge.grammar.token import RouteToken
from gateway.edge.proxy.switchboard import Switchboard
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.line_signature import signature

MAX_TO_LINE: Final = 16_384
"""Bytes, of what was made lean."""
INVITE_WITHIN_S: Final = 4.0
"""A line says 100 Trying by itself; one that does not is stuck."""
TO_LINE: Final = frozenset(
    {"from", "to", "call-id", "cseq", "contact", "content-type", "supported", "require", "allow",
     "session-expires", "min-se", "rack", "rseq", "reason", "event", "info-package",
     "subscription-state", "retry-after", "unsupported", "warning"}
)  # fmt: skip
"""Headers that a line needs; whatever else a caller sends stays here."""
HOP_BY_HOP: Final = frozenset({"via", "route", "record-route", "max-forwards", "contact", "content-length"})
WITHOUT_CONTACT: Final = ("ACK", "BYE", "CANCEL", "PRACK")


class Forwarding:
    """See the module."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board

    # ── to a line ────────────────────────────────────────────────────────────────────────────────────

    def to_line(self, served: Served, token: RouteToken, dialog: Dialog | None) -> bool:
        """Sends a caller's request on; False when it is too large for a line."""
        board, source = self._board, served.request
        request = self._lean(source, served.flow, token, dialog)
        first = source.method == "INVITE" and not to_tag(source)
        if first:
            word = token.sign(board.config.route_key)
            ours = board.toward_lines.record_route(board.line_flow(token), word)
            request.headers.setlist("Record-Route", [ours, *source.headers.getlist("Record-Route")])
            rule = board.srtp(dialog, served.flow)
            request.headers.set("X-VG-Call", token.call_id)
            request.headers.set("X-VG-SRTP", rule)
            said = signature(board.config.boot_token, token.call_id, source.call_id, rule)
            request.headers.set("X-VG-Auth", said)
        if len(bytes(request)) > MAX_TO_LINE:
            return False
        served.sent = board.transactions.send(
            request,
            board.line_flow(token),
            partial(self._line_answered, served, token, dialog),
            INVITE_WITHIN_S if first else LINGER_S,
        )
        return True

    def ack_to_line(self, ack: Request, flow: Flow, token: RouteToken, dialog: Dialog | None) -> None:
        """A caller's ACK of a 2xx, which has no answer."""
        on = self._lean(ack, flow, token, dialog)
        if len(bytes(on)) <= MAX_TO_LINE:
            self._board.line_flow(token).send(bytes(on))

    def _lean(self, source: Request, flow: Flow, token: RouteToken, dialog: Dialog | None) -> Request:
        board, uri = self._board, dialog.line_uri if dialog is not None else line_uri(token)
        session = session_part(source) if source.body else None
        rule = board.srtp(dialog, flow)
        body = source.body if session is None else sdp.lean(session, board.config.families, rule)
        request = Request(source.method, uri, body)
        request.via = [board.line_via()]
        request.max_forwards = (source.max_forwards if source.max_forwards is not None else 70) - 1
        for name in source.headers.keys():  # noqa: SIM118 - not a dict
            if name.lower() in TO_LINE:
                request.headers.setlist(name, source.headers.getlist(name))
        if session is not None:
            request.headers.set("Content-Type", SDP)
        if source.method == "INVITE" and not source.headers.getlist("Contact"):  # from before RFC 3261
            request.headers.set("Contact", f"<{source.from_address.uri}>")
        request.headers.set("Content-Length", str(len(request.body)))
        return request

    def _line_answered(
        self, served: Served, token: RouteToken, dialog: Dialog | None, answer: Response | None
    ) -> None:
        board, request = self._board, served.request
        opens = request.method == "INVITE" and not to_tag(request)
        if answer is None:
            self._line_is_silent(served, dialog if opens else None)
            return
        if answer.code == 100:
            return
        sent = served.sent
        if request.method == "INVITE" and answer.code >= 300 and sent is not None:
            sent.flow.send(bytes(ack_of(sent.request, answer)))
        back = _returned(served, answer)
        secured = wants_sips(request) if dialog is None else dialog.secured
        self._ours_in(back, token, served.flow, request, sips=secured)
        if answer.body:
            address = self._media_address(request, served.flow, dialog)
            back.body = self._fit_for(served.flow, sdp.at_address(answer.body, address))
        back.headers.set("Content-Length", str(len(back.body)))
        if answer.code == 503 and answer.headers.get("Retry-After") is None:
            back.headers.set("Retry-After", "5")
        if request.method == "BYE" and 200 <= answer.code < 300 and dialog is None:
            board.lines.release(token.line, token.call_id)  # a call from before our restart
        if opens and 200 <= answer.code < 300 and board.config.notice is not None:
            address = board.toward_callers.address(served.flow.host)
            board.config.notice.put(back, token.call_id, address)
        if opens and dialog is not None:
            self._watch(dialog, answer)
        served.answer(back)

    def _media_address(self, request: Request, flow: Flow, dialog: Dialog | None) -> str:
        """Our address as the caller's sound reaches it: its sound may be of another family than its SIP."""
        rule = self._board.srtp(dialog, flow)
        host = sdp.offered_host(session_part(request) or b"", self._board.config.families, rule)
        seen_by = host if (":" in host) != (":" in flow.host) and host else flow.host
        if dialog is not None:
            dialog.media_host = seen_by
        return self._board.toward_callers.address(seen_by)

    def _line_is_silent(self, served: Served, opening: Dialog | None) -> None:
        sent = served.sent
        if sent is not None and sent.provisional and served.request.method == "INVITE":
            self._send_cancel(sent)  # RFC 3261 §16.8
        if opening is None:
            self._board.refuse(served, 408)
            return
        self._board.refuse(served, 503, "the line does not answer", 5)
        self._board.over(opening, CallEnding(End.LINE_SILENT))

    def _watch(self, dialog: Dialog, answer: Response) -> None:
        if answer.code < 200:
            dialog.note_provisional(answer)
        elif answer.code < 300:
            first = not dialog.answered
            dialog.note_answer(answer)
            if first and dialog.id in self._board.dialogs:
                self._board.answered(dialog)
        elif not dialog.answered:
            cancelled = answer.code == 487
            refused = CallEnding(End.FAILED, f"the line answered {answer.code}")
            self._board.over(dialog, CallEnding(End.CANCELLED) if cancelled else refused)

    # ── to a caller ──────────────────────────────────────────────────────────────────────────────────

    def to_caller(self, request: Request, served: Served | None) -> bool:
        """Sends a line's request to where its caller is (never to what a Contact says); False: nowhere.

        `served` None: it is an ACK.
        """
        board = self._board
        token = board.token_of(request)
        dialog = board.dialogs.of_call(token.call_id) if token is not None else None
        flow = board.caller_flow(token, dialog) if token is not None else None
        if token is None or flow is None:
            return False
        if dialog is None:
            board.tap.known(request.call_id, to_tag(request), token.call_id, standing="old")
        if served is not None and not flow.secure and _refers_to_sips(request):
            board.turn(served, in_the_clear(spoken=True))
            return True
        on = Request(request.method, request.uri if dialog is None else dialog.caller_contact, request.body)
        on.via = [board.toward_callers.via(flow, board.transactions.branch())]
        on.max_forwards = 70
        for name in request.headers.keys():  # noqa: SIM118 - not a dict
            if name.lower() not in HOP_BY_HOP:
                on.headers.setlist(name, request.headers.getlist(name))
        if dialog is not None:
            on.headers.set("To", dialog.caller_from)
        if beyond := _without_first(request.headers.getlist("Route")):
            on.headers.setlist("Route", beyond)
        secured = request.uri.scheme == SIPS if dialog is None else dialog.secured
        self._ours_in(on, token, flow, request, sips=secured)
        if request.body:
            seen_by = (dialog.media_host if dialog is not None else "") or flow.host
            on.body = self._fit_for(flow, sdp.at_address(request.body, board.toward_callers.address(seen_by)))
        on.headers.set("Content-Length", str(len(on.body)))
        if dialog is not None:
            dialog.line_cseq = max(dialog.line_cseq, request.cseq.sequence)
            self._note_line(dialog, request, served)
        if served is None:
            flow.send(bytes(on))
            return True
        served.sent = board.transactions.send(on, flow, partial(self._caller_answered, served, dialog))
        return True

    def _note_line(self, dialog: Dialog, request: Request, served: Served | None) -> None:
        """What a line's request changes for the caller's."""
        if request.method == "INVITE" or (request.method == "UPDATE" and request.body):
            dialog.line_offers = served
        elif request.method == "REFER":
            dialog.referred = True  # before its answer: a NOTIFY may overtake that

    def _caller_answered(self, served: Served, dialog: Dialog | None, answer: Response | None) -> None:
        if answer is None:
            if served.sent is not None and served.sent.provisional:
                self._send_cancel(served.sent)
            self._board.refuse(served, 408)
            return
        if answer.code == 100:
            return
        if dialog is not None and served.request.method == "REFER" and answer.code >= 300:
            dialog.referred = False
        targets = served.request.method in ("INVITE", "UPDATE") and 200 <= answer.code < 300
        if dialog is not None and targets and (contacts := answer.contact):
            dialog.caller_contact = contacts[0].uri
        if served.request.method == "INVITE" and answer.code >= 300 and served.sent is not None:
            served.sent.flow.send(bytes(ack_of(served.sent.request, answer)))
        back = _returned(served, answer, TO_LINE)
        if targets and answer.headers.get("Contact"):
            back.headers.setlist("Contact", answer.headers.getlist("Contact"))
        session = session_part(answer) if answer.body else None
        if session is not None:
            rule = self._board.srtp(dialog, served.sent.flow if served.sent is not None else served.flow)
            back.body = sdp.lean(session, self._board.config.families, rule)
            back.headers.set("Content-Type", SDP)
        back.headers.set("Content-Length", str(len(back.body)))
        if len(bytes(back)) > MAX_TO_LINE:
            back = response(served.request, served.flow, 513)
        served.answer(back)

    def _fit_for(self, flow: Flow, body: bytes) -> bytes:
        """A line's description, without its keys where others read along: a call may have moved there."""
        return body if self._board.config.srtp.takes_keys(flow) else sdp.without_keys(body)

    # ── both ways ────────────────────────────────────────────────────────────────────────────────────

    def cancel(self, served: Served) -> None:
        """The peer does not want its INVITE's answer any more (RFC 3261 §16.10)."""
        if served.final:
            return
        sent = served.sent
        if sent is None:
            self._board.refuse(served, 487)  # still with the router, who will be told
        else:
            sent.cancel(partial(self._send_cancel, sent))

    def _send_cancel(self, sent: Sent) -> None:
        invite = sent.request
        cancel = of_transaction(invite, "CANCEL")
        cancel.headers.set("To", invite.headers["To"])
        self._board.transactions.send(cancel, sent.flow, lambda _: None)

    def _ours_in(
        self, message: SipMessage, token: RouteToken, flow: Flow, request: Request, *, sips: bool
    ) -> None:
        """Our Contact and Record-Route as this peer reaches us; transfers are not offered."""
        word = token.sign(self._board.config.route_key)
        answer = message if isinstance(message, Response) else None
        if request.method not in WITHOUT_CONTACT and (answer is None or answer.code < 300):
            message.headers.set("Contact", self._board.toward_callers.contact(flow, word, sips=sips))
        if answer is not None and request.method == "INVITE" and not to_tag(request):
            mine = self._board.toward_callers.record_route(flow, word, sips=sips)
            message.headers.setlist("Record-Route", [mine, *request.headers.getlist("Record-Route")])
        if message.headers.get("Allow") is not None:
            message.headers.set("Allow", ALLOW)
        if message.headers.get("Supported") is not None:
            ours = [option for option in message.supported if option in SUPPORTED]
            message.headers.set("Supported", ", ".join(ours))


def _refers_to_sips(request: Request) -> bool:
    """Whether somebody is asked to call who wants to be called over TLS alone (RFC 5630 §5.1.1.3)."""
    if request.method != "REFER":
        return False
    try:
        return Address.read(request.headers.get("Refer-To") or "").uri.scheme == SIPS
    except ValueError:
        return False


def _returned(served: Served, answer: Response, only: frozenset[str] | None = None) -> Response:
    """An answer with the Via of the request that we served, without what is ours to say."""
    back = Response(answer.code, answer.phrase, answer.body)
    back.headers.setlist("Via", stamped(served.request.headers.getlist("Via"), served.flow))
    for name in answer.headers.keys():  # noqa: SIM118 - not a dict
        values = answer.headers.getlist(name)
        if name.lower() not in HOP_BY_HOP and (only is None or name.lower() in only):
            back.headers.setlist(name, values)
    # its peer may have written them anew
    back.headers.set("From", served.request.headers["From"])
    back.headers.set("To", tagged(served.request, to_tag(answer)))
    return back


def _without_first(routes: list[str]) -> list[str]:
    """Route lines less the first route, which is us."""
    if not routes:
        return []
    rest = routes[0].partition(",")[2].strip()
    return [*([rest] if rest else []), *routes[1:]]
