"""Calls by SIP whose sound is WebRTC's (DTLS-SRTP with ICE, RFC 8827): the edge answers for a web line.

It is their user agent: no line for telephones sees such an offer, whatever it came by (WebSocket, TLS, UDP),
and none would be heard there. The router has the web line answer the offer; what the caller says later
(hold, keys, hang-up) goes to that line by the router too, since web lines speak no SIP.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import structlog

from gateway.edge.dialogs.transaction import Served
from gateway.edge.dialogs.web_dialog import WebDialog
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar import sdp
from gateway.edge.grammar.dtmf_info import DTMF_TYPES, media_type, pressed
from gateway.edge.grammar.message import Key, from_tag
from gateway.edge.grammar.responses import ALLOW, Turned, response, tagged
from gateway.edge.grammar.session_part import SDP, session_part
from gateway.edge.grammar.sip_message import Request, Response
from gateway.edge.grammar.sips import SIPS, in_the_clear, wants_sips
from gateway.edge.grammar.token import WEB_LINE, RouteToken
from gateway.edge.proxy.info_fit import unfit_info
from gateway.edge.proxy.switchboard import ACK_WITHIN_S, Switchboard
from gateway.edge.router import Refuse
from gateway.ipc.call_facts import CallFacts
from gateway.ipc.ending import CallEnding, End

log = structlog.get_logger("edge")

BYE_WITHIN_S: Final = 8.0


class WebAgent:
    """See the module."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board

    # ── a new call ───────────────────────────────────────────────────────────────────────────────────

    def wants(self, request: Request) -> bool:
        """Whether an INVITE's offer is for a web line."""
        return sdp.is_webrtc(session_part(request) or b"")

    async def answer(self, served: Served, facts: CallFacts) -> None:
        """Ends with the INVITE answered, or refused."""
        board, request = self._board, served.request
        offer = (session_part(request) or b"").decode(errors="replace")
        verdict = await board.router.web_offered(facts, offer)
        served.call_id = verdict.call_id
        if isinstance(verdict, Refuse):
            board.refuse(served, verdict.status, verdict.reason, verdict.retry_after_s)
            return
        board.tap.known(request.call_id, from_tag(request), verdict.call_id)
        if served.final:  # cancelled meanwhile
            await board.router.ended(verdict.call_id, CallEnding(End.CANCELLED))
            return
        dialog = WebDialog(
            id=(request.call_id, from_tag(request)),
            call_id=verdict.call_id,
            caller_from=request.headers["From"],
            caller_contact=request.contact[0].uri,
            routes=list(request.headers.getlist("Record-Route")),
            flow=served.flow,
            caller_cseq=request.cseq.sequence,
        )
        dialog.to = tagged(request, dialog.own_tag)
        board.web_dialogs.add(dialog)
        answer = self._agreed(served, dialog, verdict.sdp)
        answer.headers.setlist("Record-Route", list(request.headers.getlist("Record-Route")))
        if board.config.notice is not None:
            address = board.toward_callers.address(served.flow.host)
            board.config.notice.put(answer, dialog.call_id, address)
        self._send_agreed(served, dialog, answer)

    def _agreed(self, served: Served, dialog: WebDialog, answer_sdp: str) -> Response:
        answer = response(served.request, served.flow, 200, {"Allow": ALLOW})
        answer.headers.set("To", dialog.to)
        sips = wants_sips(served.request)
        contact = self._board.toward_callers.contact(served.flow, self._word(dialog), sips=sips)
        answer.headers.set("Contact", contact)
        answer.headers.set("Content-Type", SDP)
        answer.body = answer_sdp.encode()
        answer.headers.set("Content-Length", str(len(answer.body)))
        return answer

    def _send_agreed(self, served: Served, dialog: WebDialog, answer: Response) -> None:
        served.answer(answer)
        if served.request.method == "INVITE":
            dialog.owe(answer, partial(self._unheard, dialog), ACK_WITHIN_S)

    def _word(self, dialog: WebDialog) -> str:
        flow = dialog.flow
        token = RouteToken(dialog.call_id, WEB_LINE, 0, flow.transport, flow.host, flow.port)
        return token.sign(self._board.config.route_key)

    def _unheard(self, dialog: WebDialog) -> None:
        """The caller never acknowledged our answer."""
        self._board.counts["never_acknowledged"] += 1
        self.hang_up(dialog.call_id)
        self._over(dialog, CallEnding(End.UNACKNOWLEDGED))

    # ── what the caller says in its call ─────────────────────────────────────────────────────────────

    def owns(self, request: Request, flow: Flow) -> bool:
        """Whether a request within a dialog is of a web line's call: by its tags, and from the caller's own
        socket or with our signed word."""
        token = self._board.token_of(request)
        dialog = self._board.web_dialogs.get((request.call_id, from_tag(request)))
        if dialog is None:  # from before a restart: only its end means something to us
            return token is not None and token.line == WEB_LINE
        if not dialog.names(request):
            return False
        if token is None:
            return flow.same_sender(dialog.flow)
        return token.call_id == dialog.call_id

    def acknowledged(self, ack: Request) -> None:
        dialog = self._board.web_dialogs.get((ack.call_id, from_tag(ack)))
        if dialog is not None:
            dialog.acknowledged(ack.cseq.sequence)

    def take(self, request: Request, flow: Flow, key: Key, turned: Turned | None) -> None:
        """A request that this agent owns; neither ACK nor CANCEL, and not a repeat.

        `turned`: why it is unfit.
        """
        board = self._board
        served = board.transactions.serve(request, flow, key)
        if served is None:
            board.turn_away(request, flow, Turned(503, "too much is going on", retry_after_s=10))
            return
        dialog = board.web_dialogs.get((request.call_id, from_tag(request)))
        if dialog is None:
            self._from_before(served)
            return
        if dialog.caller_contact.scheme == SIPS and not flow.secure:
            board.turn(served, in_the_clear(spoken=True))
            return
        if request.cseq.sequence <= dialog.caller_cseq:
            board.refuse(served, 500, "its CSeq is not higher than the last one's")  # RFC 3261 §12.2.2
            return
        dialog.caller_cseq, dialog.flow = request.cseq.sequence, flow
        if turned is not None:
            board.turn(served, turned)
        elif request.method == "BYE":
            served.answer(response(request, flow, 200))
            if board.web_dialogs.remove(dialog):
                board.spawn(board.router.ended(dialog.call_id, CallEnding(End.CALLER)))
        elif request.method == "INFO":
            self._info(served, dialog)
        elif request.method == "INVITE" or (request.method == "UPDATE" and request.body):
            self._offer(served, dialog)
        elif request.method in ("OPTIONS", "UPDATE"):
            extra = {"Allow": ALLOW, "Accept": ", ".join((SDP, *DTMF_TYPES))}
            if request.method == "UPDATE" and request.contact:
                dialog.caller_contact = request.contact[0].uri
            served.answer(response(request, flow, 200, extra))
        else:
            board.refuse(served, 489 if request.method in ("NOTIFY", "SUBSCRIBE") else 481)

    def _from_before(self, served: Served) -> None:
        """Of a call from before our restart we know the id alone, by our signed word."""
        board, token = self._board, self._board.token_of(served.request)
        if served.request.method == "BYE" and token is not None:
            served.answer(response(served.request, served.flow, 200))
            board.spawn(board.router.ended(token.call_id, CallEnding(End.CALLER)))
        else:
            board.refuse(served, 481)

    def _info(self, served: Served, dialog: WebDialog) -> None:
        request = served.request
        if (turned := unfit_info(request)) is not None:
            self._board.turn(served, turned)
            return
        served.answer(response(request, served.flow, 200))
        if request.body and (digit := pressed(media_type(request.headers.get("Content-Type")), request.body)):
            self._board.spawn(self._board.router.web_pressed(dialog.call_id, digit))

    def _offer(self, served: Served, dialog: WebDialog) -> None:
        board, body = self._board, session_part(served.request) or b""
        if dialog.renewing:
            board.refuse(served, 500, "your last offer is not answered yet", 1)  # RFC 3261 §14.2
        elif not sdp.is_webrtc(body):
            board.refuse(served, 488, "this call's sound is WebRTC's: UDP/TLS/RTP/SAVPF, please")
        else:
            if served.request.method == "INVITE":
                served.answer(response(served.request, served.flow, 100))
            dialog.renewing = True
            board.spawn(self._renew(served, dialog, body.decode(errors="replace")))

    async def _renew(self, served: Served, dialog: WebDialog, offer: str) -> None:
        board = self._board
        try:
            verdict = await board.router.web_renewed(dialog.call_id, offer)
        except Exception:
            log.exception("edge.renewal_failed", call_id=dialog.call_id)
            verdict = Refuse(500, "Server Internal Error")
        finally:
            dialog.renewing = False
        if isinstance(verdict, Refuse):
            board.refuse(served, verdict.status, verdict.reason, verdict.retry_after_s)
        elif not served.final:
            if served.request.contact:
                dialog.caller_contact = served.request.contact[0].uri
            self._send_agreed(served, dialog, self._agreed(served, dialog, verdict.sdp))

    # ── ends ─────────────────────────────────────────────────────────────────────────────────────────

    def hang_up(self, call_id: str) -> None:
        """The call is over, whoever ended it: a caller who has not said so hears BYE."""
        board = self._board
        dialog = board.web_dialogs.of_call(call_id)
        if dialog is None or not board.web_dialogs.remove(dialog):
            return
        flow = dialog.flow
        if not flow.open:
            found = board.ports.flow(flow.transport, flow.host, flow.port)
            if found is None:
                return  # it hung up its connection, and hears it when its sound ends
            flow = found
        via = board.toward_callers.via(flow, board.transactions.branch())
        board.transactions.send(dialog.request("BYE", via), flow, lambda _: None, BYE_WITHIN_S)

    def _over(self, dialog: WebDialog, how: CallEnding) -> None:
        self._board.web_dialogs.remove(dialog)
        self._board.spawn(self._board.router.ended(dialog.call_id, how))
