"""The callers' side: what a request from outside becomes.

Nothing is sent to an address that a caller wrote: answers go back along the flow, requests within a dialog
to the line that our signed word names.
"""

from __future__ import annotations

from sipmessage import Request, Response

from gateway.edge.call_admission import BUSY_RETRY_S, DRAIN_RETRY_S, Admission
from gateway.edge.dialog import Dialog
from gateway.edge.doors import Doors, Turned
from gateway.edge.forwarding import Forwarding
from gateway.edge.message import Key, from_tag, to_tag, transaction_key
from gateway.edge.responses import ALLOW, refusal, response
from gateway.edge.switchboard import Switchboard
from gateway.edge.token import RouteToken
from gateway.edge.transport import Flow


class CallersSide:
    """See the module."""

    def __init__(self, board: Switchboard, doors: Doors, forwarding: Forwarding) -> None:
        self._board = board
        self._doors = doors
        self._forwarding = forwarding
        self._admission = Admission(board, forwarding)

    def take(self, message: Request | Response, flow: Flow) -> None:
        """One message of a caller."""
        if isinstance(message, Response):
            if not self._board.transactions.take(message, flow):
                self._doors.dropped["stray_response"] += 1
            return
        source = self._doors.source(message, flow)
        if self._doors.admits(message, source):
            self._request(message, flow, source)

    def _request(self, request: Request, flow: Flow, source: str) -> None:
        key = transaction_key(request, flow)
        served = self._board.transactions.find(key)
        if request.method == "ACK":
            self._ack(request, key)
        elif served is not None:
            served.repeated()
        elif request.method == "CANCEL":
            self._cancel(request, flow, key, source)
        elif to_tag(request):
            self._within(request, flow, key, source)
        elif not self._doors.in_time(source):
            pass  # dropped: an answer to each would only help a flood
        elif (turned := self._doors.unfit(request, within=False)) is not None:
            self._turn_away(request, flow, turned)
        elif request.method == "INVITE":
            self._invite(request, flow, key, source)
        else:
            self._options(request, flow)

    def _turn_away(
        self, request: Request, flow: Flow, turned: Turned, retry_after_s: int | None = None
    ) -> None:
        """An answer without state: a repeat gets the same one again, its ACK is nobody's."""
        self._board.refused[turned.status] += 1
        answer = refusal(
            request, flow, turned.status, turned.reason, retry_after_s=retry_after_s, extra=turned.extra
        )
        flow.send(bytes(answer))

    def _options(self, request: Request, flow: Flow) -> None:
        """Whether a call would be taken now (RFC 3261 §11.2)."""
        if self._board.draining:
            self._turn_away(request, flow, Turned(503, "going down"), DRAIN_RETRY_S)
        elif not self._board.lines.free:
            self._turn_away(request, flow, Turned(503, "all lines are busy"), BUSY_RETRY_S)
        else:
            extra = {"Allow": ALLOW, "Accept": "application/sdp"}
            flow.send(bytes(response(request, flow, 200, extra)))

    def _invite(self, request: Request, flow: Flow, key: Key, source: str) -> None:
        user = self._doors.authenticate(request, flow, source)
        if isinstance(user, Turned):
            self._turn_away(request, flow, user)
            return
        if self._admission.known(request):
            self._turn_away(request, flow, Turned(482))
            return
        served = self._board.transactions.serve(request, flow, key)
        if served is None:
            self._turn_away(request, flow, Turned(503, "too much is going on"), BUSY_RETRY_S)
            return
        served.answer(response(request, flow, 100))
        self._board.spawn(self._admission.admit(served, source, user))

    # ── within a dialog ──────────────────────────────────────────────────────────────────────────────

    def _within(self, request: Request, flow: Flow, key: Key, source: str) -> None:
        board = self._board
        token, dialog = self._vouched(request)
        if token is None:
            if self._doors.in_time(source):
                board.counts["forged_in_dialog"] += 1
                self._turn_away(request, flow, Turned(481))
            return
        if not self._doors.in_time_within(token.call_id):
            return
        if (turned := self._doors.unfit(request, within=True)) is not None:
            self._turn_away(request, flow, turned)
            return
        if not board.lines.reachable(token.line, token.line_port):
            self._turn_away(request, flow, Turned(481, "its line is gone"))
            return
        served = board.transactions.serve(request, flow, key)
        if served is None:
            self._turn_away(request, flow, Turned(503, "too much is going on"), BUSY_RETRY_S)
            return
        if not self._forwarding.to_line(served, token, dialog):
            board.refuse(served, 513)
        elif dialog is not None:
            self._note(dialog, request, flow)

    def _vouched(self, request: Request) -> tuple[RouteToken | None, Dialog | None]:
        """Our signed word in a request, if it is this call's, and the dialog, if we know it.

        We do not know those from before a restart; but a word for one call opens no other one that we know.
        """
        dialogs, token = self._board.dialogs, self._board.token_of(request)
        if token is None:
            return None, None
        dialog = dialogs.of_call(token.call_id)
        if dialog is not None:
            known = dialog.id == (request.call_id, from_tag(request))
            return (token, dialog) if known else (None, None)
        return (None if dialogs.has_call_id(request.call_id) else token), None

    def _note(self, dialog: Dialog, request: Request, flow: Flow) -> None:
        """What a request of the caller's changes."""
        dialog.caller_cseq = max(dialog.caller_cseq, request.cseq.sequence)
        dialog.flow = flow  # a phone behind a NAT, or one that opened another connection
        if request.method in ("INVITE", "UPDATE") and request.contact:
            dialog.caller_contact = request.contact[0].uri
        if request.method == "BYE":
            self._board.caller_hung_up(dialog)

    def _ack(self, request: Request, key: Key) -> None:
        invite = self._board.transactions.find((key[0], key[1], "INVITE"))
        if invite is not None and invite.final >= 300:
            invite.acknowledged()
            return
        token, dialog = self._vouched(request)
        if token is None:
            return  # of a refusal that we keep no state of, or forged
        if dialog is not None and dialog.answered:
            self._board.acknowledged(dialog)
        if self._board.lines.reachable(token.line, token.line_port):
            self._forwarding.ack_to_line(request, token, dialog)

    def _cancel(self, request: Request, flow: Flow, key: Key, source: str) -> None:
        """RFC 3261 §9.2: answered by itself, whatever becomes of the INVITE."""
        invite = self._board.transactions.find((key[0], key[1], "INVITE"))
        mine = None if invite is None else self._board.transactions.serve(request, flow, key)
        if invite is None or mine is None:
            if self._doors.in_time(source):
                self._turn_away(request, flow, Turned(481))
            return
        mine.answer(response(request, flow, 200))
        self._forwarding.cancel(invite)
