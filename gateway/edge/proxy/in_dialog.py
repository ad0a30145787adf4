"""What a caller asks within its call: whose call it is, whether it comes in order, and who answers it.

A request belongs to a call by our signed word, which it bears because its sender must repeat our Contact and
our Record-Route (RFC 3261 §12.2.1.1), and by the Call-ID and both tags of the dialog. Some peers drop the
word, or ask the address that they dialled; while this edge lives, the Call-ID and the tags find the dialog
for them (§12.2.2), but only from the socket where the caller was last heard. The word is a secret that
nobody can make. Call-ID and tags are not: a caller may choose bad ones, logs and billing records are full of
them, and the line's tag is meant to be unique, not secret. So who knows all three ends a call with them only
from the caller's own address and port, and a caller that moves to others (another network, a NAT that forgot)
needs the word. A request with a wrong tag belongs to no call, with the word or without.
"""

from __future__ import annotations

import secrets
from typing import Final

from gateway.edge.dialogs.dialog import Dialog
from gateway.edge.dialogs.transaction import Served
from gateway.edge.doors.doors import Doors
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar import sdp
from gateway.edge.grammar.dtmf_info import DTMF_TYPES, media_type, pressed
from gateway.edge.grammar.message import Key, from_tag
from gateway.edge.grammar.responses import ALLOW, Extra, Turned, response
from gateway.edge.grammar.session_part import session_part
from gateway.edge.grammar.sip_message import Request
from gateway.edge.grammar.sips import in_the_clear
from gateway.edge.grammar.token import WEB_LINE, RouteToken
from gateway.edge.proxy.forwarding import Forwarding
from gateway.edge.proxy.info_fit import unfit_info
from gateway.edge.proxy.lines import CODECS
from gateway.edge.proxy.switchboard import Switchboard

OFFERING: Final = ("INVITE", "UPDATE")
EVENTS: Final = {"Allow-Events": "refer"}
"""The one package of which we take NOTIFY: how a transfer of ours goes (RFC 3515)."""
PENDING_RETRY_S: Final = 10
"""At most (RFC 3261 §14.2)."""


class InDialog:
    """See the module."""

    def __init__(self, board: Switchboard, doors: Doors, forwarding: Forwarding) -> None:
        self._board = board
        self._doors = doors
        self._forwarding = forwarding

    def call_of(self, request: Request, flow: Flow) -> tuple[RouteToken | None, Dialog | None]:
        """Which call a request belongs to, and its dialog, if we know it; (None, None): to none.

        We do not know dialogs from before a restart, and their lines check the tags; but a word for one call
        opens no other one that we know.
        """
        dialogs, token = self._board.dialogs, self._board.token_of(request)
        if token is not None and token.line == WEB_LINE:
            return None, None  # whose caller is not who sent it
        if token is None:
            dialog = dialogs.get((request.call_id, from_tag(request)))
            if dialog is None or not dialog.names(request) or not flow.same_sender(dialog.flow):
                return None, None
            return dialog.token, dialog
        dialog = dialogs.of_call(token.call_id)
        if dialog is not None:
            return (token, dialog) if dialog.names(request) else (None, None)
        return (None if dialogs.has_call_id(request.call_id) else token), None

    def take(self, request: Request, flow: Flow, key: Key, token: RouteToken, dialog: Dialog | None) -> None:
        """A request of the call that it belongs to; neither ACK nor CANCEL, and not a repeat.

        Answers have state, since a repeat is not a request out of order.
        """
        board = self._board
        served = board.transactions.serve(request, flow, key)
        if served is None:
            board.turn_away(request, flow, Turned(503, "too much is going on", retry_after_s=PENDING_RETRY_S))
            return
        turned = self._out_of_order(served, dialog) or self._unfit(served, token, dialog)
        if turned is not None:
            board.turn(served, turned)
        elif request.method == "OPTIONS" or (request.method == "INFO" and not _says_key(request)):
            self._answer(served, token, dialog)
        elif not self._forwarding.to_line(served, token, dialog):
            board.refuse(served, 513)
        elif dialog is not None:
            self._note(dialog, served)

    def _answer(self, served: Served, token: RouteToken, dialog: Dialog | None) -> None:
        """What no line is needed for: a ping, and an INFO that says nothing."""
        if dialog is None and not self._board.lines.may_have(token.line, token.call_id):
            self._board.refuse(served, 481)
            return
        extra: Extra = {}
        if served.request.method == "OPTIONS":
            extra = {"Allow": ALLOW, "Accept": ", ".join(("application/sdp", *DTMF_TYPES))}
        served.answer(response(served.request, served.flow, 200, extra))

    def _note(self, dialog: Dialog, served: Served) -> None:
        """What a request that went to the line changes."""
        request = served.request
        if request.method in OFFERING:
            dialog.caller_offers = served
            if request.contact:
                dialog.caller_contact = request.contact[0].uri
        if request.method == "BYE":
            self._board.caller_hung_up(dialog)

    # ── why not ──────────────────────────────────────────────────────────────────────────────────────

    def _out_of_order(self, served: Served, dialog: Dialog | None) -> Turned | None:
        """An old one, perhaps somebody's copy, moves nothing; a new one says where the caller is now: a phone
        behind a NAT, or one that opened another connection."""
        if dialog is None:
            return None
        if dialog.secured and not served.flow.secure:
            return in_the_clear(spoken=True)  # it would take the call there
        sequence = served.request.cseq.sequence
        if sequence <= dialog.caller_cseq:
            return Turned(500, "its CSeq is not higher than the last one's")  # RFC 3261 §12.2.2
        dialog.caller_cseq, dialog.flow = sequence, served.flow
        return None

    def _unfit(self, served: Served, token: RouteToken, dialog: Dialog | None) -> Turned | None:
        """Why the line does not get a request."""
        request = served.request
        if (turned := self._doors.unfit(request, served.flow, within=True)) is not None:
            return turned
        if not self._board.lines.reachable(token.line, token.line_port):
            return Turned(481, "its line is gone")
        match request.method:
            case "INFO":
                return unfit_info(request)
            case "NOTIFY":
                return _unfit_notify(request, dialog)
            case "SUBSCRIBE":
                return Turned(489, extra=EVENTS)
            case "PRACK" if dialog is not None and not dialog.reliable:
                return Turned(481, "nothing waits for a PRACK")  # RFC 3262 §3
            case "INVITE" | "UPDATE":
                return self._unfit_offer(served, token, dialog)
        return None

    def _unfit_offer(self, served: Served, token: RouteToken, dialog: Dialog | None) -> Turned | None:
        """Two offers at once (RFC 3261 §14.2, RFC 3311 §5.2), keys that others may read, or codecs that the
        line does not speak."""
        request, policy = served.request, self._board.config.srtp
        offers = request.method == "INVITE" or bool(request.body)
        if dialog is not None and _overlaps(request, dialog, offers=offers):
            wait_s = secrets.randbelow(PENDING_RETRY_S + 1)
            return Turned(500, "your last offer is not answered yet", retry_after_s=wait_s)
        if dialog is not None and offers and _pending(dialog.line_offers):
            return Turned(491, "our offer is not answered yet")
        if dialog is not None and offers and (barred := policy.barred(dialog.srtp, served.flow)):
            return Turned(488, barred)
        line = self._board.lines.named(token.line)
        body = session_part(request)
        if not body or line is None:
            return None
        families = self._board.config.families
        rule = self._board.srtp(dialog, served.flow)
        codecs = sdp.offered_codecs(body, families, rule)
        if not codecs:
            return Turned(488, sdp.why_none(body, families, rule))
        if CODECS[line.info.kind].isdisjoint(codecs):
            return Turned(488, f"this call can have {', '.join(sorted(CODECS[line.info.kind]))} only")
        return None


def _pending(served: Served | None) -> bool:
    return served is not None and not served.final


def _overlaps(request: Request, dialog: Dialog, *, offers: bool) -> bool:
    """Whether one of the caller's own is still to be answered; what a reliable 18x answered is."""
    last = dialog.caller_offers
    if last is not None and _pending(last) and (offers or request.method == last.request.method):
        return True
    early = request.method == "UPDATE" and dialog.reliable
    return offers and _pending(dialog.invite) and not early


def _says_key(info: Request) -> bool:
    """Whether there is something for a line in an INFO that is fit for one."""
    return bool(info.body and pressed(media_type(info.headers.get("Content-Type")), info.body))


def _unfit_notify(request: Request, dialog: Dialog | None) -> Turned | None:
    """Only about a transfer that the line asked for; of one before our restart the line knows."""
    package = (request.headers.get("Event") or "").partition(";")[0].strip().lower()
    if package == "refer" and (dialog is None or dialog.referred):
        return None
    return Turned(489, extra=EVENTS)
