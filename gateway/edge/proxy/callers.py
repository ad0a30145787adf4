"""The callers' side: what a request from outside becomes.

Nothing is sent to an address that a caller wrote: answers go back along the flow, requests within a dialog
to the line that our signed word names, or our memory of the dialog.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import structlog

from gateway.config.emergency import NO_HELP
from gateway.edge.dialogs.transaction import Served
from gateway.edge.doors.doors import Doors
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.message import Key, from_tag, to_tag, transaction_key
from gateway.edge.grammar.peer_headers import peer_headers
from gateway.edge.grammar.responses import ALLOW, Turned, response
from gateway.edge.grammar.sip_message import Request, Response
from gateway.edge.proxy.call_admission import BUSY_RETRY_S, DRAIN_RETRY_S, Admission
from gateway.edge.proxy.forwarding import Forwarding
from gateway.edge.proxy.in_dialog import InDialog
from gateway.edge.proxy.switchboard import Switchboard
from gateway.edge.proxy.web_agent import WebAgent
from gateway.edge.registrar.registrar import SipRegistrar

log = structlog.get_logger("edge")


class Left(Protocol):
    """A call that left by a trunk (`gateway.edge.trunks.out_call`)."""

    def take(self, served: Served) -> None:
        """A request of the trunk's within its dialog."""

    def take_ack(self, ack: Request) -> None:
        """The ACK of a 2xx."""


class CallersSide:
    """See the module."""

    def __init__(
        self,
        board: Switchboard,
        doors: Doors,
        forwarding: Forwarding,
        registrar: SipRegistrar | None,
        left: Callable[[Request, Flow], Left | None],
    ) -> None:
        """`registrar` None: nobody may register, which the doors say. `left` finds the call that left by a
        trunk and to which a request belongs."""
        self._left = left
        self._board = board
        self._doors = doors
        self._registrar = registrar
        self._forwarding = forwarding
        self._admission = Admission(board, forwarding)
        self._in_dialog = InDialog(board, doors, forwarding)
        self.web = WebAgent(board)

    def take(self, message: Request | Response, flow: Flow, data: bytes) -> None:
        """One message of a caller; `data` is what was read."""
        if isinstance(message, Response):
            sent = self._board.transactions.awaiting(message, flow)
            if sent is None:
                self._doors.dropped["stray_response"] += 1
                return
            self._board.tap.came(message, data, flow)
            sent.take(message)
            return
        source = self._doors.source(message, flow)
        if self._doors.admits(message, source, flow):
            self._board.tap.came(message, data, flow)
            self._request(message, flow, source)

    def _request(self, request: Request, flow: Flow, source: str) -> None:
        key = transaction_key(request, flow)
        served = self._board.transactions.find(key)
        if request.method == "ACK":
            self._ack(request, flow, key)
        elif served is not None:
            served.repeated()
        elif request.method == "CANCEL":
            self._cancel(request, flow, key, source)
        elif to_tag(request):
            self._within(request, flow, key, source)
        elif not self._in_time(request, flow, source):
            pass  # an answer to each would only help a flood
        elif (turned := self._doors.unfit(request, flow, within=False)) is not None:
            self._board.turn_away(request, flow, turned)
        elif request.method == "INVITE":
            self._invite(request, flow, key, source)
        elif request.method == "REGISTER" and self._registrar is not None:
            self._register(self._registrar, request, flow, key, source)
        else:
            self._options(request, flow)

    def _in_time(self, request: Request, flow: Flow, source: str) -> bool:
        """Whether a source may ask now; if not, only who is known is told so."""
        if self._doors.in_time(source):
            return True
        if (turned := self._doors.too_fast(source, flow)) is not None:
            self._board.turn_away(request, flow, turned)
        return False

    def _options(self, request: Request, flow: Flow) -> None:
        """Whether a call would be taken now (RFC 3261 §11.2)."""
        if self._board.draining:
            self._board.turn_away(request, flow, Turned(503, "going down", retry_after_s=DRAIN_RETRY_S))
        elif not self._board.lines.free:
            self._board.turn_away(
                request, flow, Turned(503, "all lines are busy", retry_after_s=BUSY_RETRY_S)
            )
        elif self._board.router.hall_for(self._board.lines.halls_with_room()) is None:
            none = self._board.router.no_hall()
            turned = Turned(none.status, none.reason, retry_after_s=none.retry_after_s)
            self._board.turn_away(request, flow, turned)
        else:
            extra = {"Allow": ALLOW, "Accept": "application/sdp"}
            flow.send(bytes(response(request, flow, 200, extra)))

    def _invite(self, request: Request, flow: Flow, key: Key, source: str) -> None:
        user = self._doors.authenticate(request, flow, source)
        if isinstance(user, Turned):
            self._board.turn_away(request, flow, user)
            return
        if self._doors.is_emergency(request) and not self._board.router.answers_emergencies():
            self._board.counts["emergency_calls_refused"] += 1
            self._board.turn_away(request, flow, Turned(380, NO_HELP))  # RFC 3261 §21.3.5
            return
        if self._admission.known(request) or (request.call_id, from_tag(request)) in self._board.web_dialogs:
            self._board.turn_away(request, flow, Turned(482))
            return
        served = self._board.transactions.serve(request, flow, key)
        if served is None:
            self._board.turn_away(
                request, flow, Turned(503, "too much is going on", retry_after_s=BUSY_RETRY_S)
            )
            return
        served.answer(response(request, flow, 100))
        named = self._doors.named(source, flow)
        trusted = self._doors.trusts(flow) or self._board.trusts_trunk(flow)
        headers = peer_headers(request) if trusted else None
        if (signed := self._board.config.signed) is not None:
            headers = {**(headers or {}), **signed.judge(request, trusted=trusted).to_headers()}
        self._board.spawn(
            self._admission.admit(served, source, user, named=named, web=self.web, headers=headers)
        )

    def _register(self, registrar: SipRegistrar, request: Request, flow: Flow, key: Key, source: str) -> None:
        user = self._doors.authenticate(request, flow, source)
        if isinstance(user, Turned):
            self._board.turn_away(request, flow, user)
        elif self._board.draining:
            self._board.turn_away(request, flow, Turned(503, "going down", retry_after_s=DRAIN_RETRY_S))
        elif (served := self._board.transactions.serve(request, flow, key)) is None:
            self._board.turn_away(
                request, flow, Turned(503, "too much is going on", retry_after_s=BUSY_RETRY_S)
            )
        else:
            self._board.spawn(self._registered(registrar, served, source, user))

    async def _registered(self, registrar: SipRegistrar, served: Served, source: str, user: str) -> None:
        """Answers a REGISTER. Never raises."""
        try:
            done = await registrar.register(served.request, served.flow, source, user)
        except Exception:
            log.exception("edge.register_failed", source=source, sip_call_id=served.request.call_id)
            done = Turned(500)
        if isinstance(done, Turned):
            self._board.turn(served, done)
        else:
            served.answer(response(served.request, served.flow, 200, done))

    # ── within a dialog ──────────────────────────────────────────────────────────────────────────────

    def _within(self, request: Request, flow: Flow, key: Key, source: str) -> None:
        if self.web.owns(request, flow):
            if request.method == "BYE" or self._doors.in_time_within(request.call_id):
                self.web.take(request, flow, key, self._doors.unfit(request, flow, within=True))
            elif (turned := self._doors.too_fast(source, flow)) is not None:
                self._board.turn_away(request, flow, turned)
            return
        if (call := self._left(request, flow)) is not None:
            if self._doors.in_time_within(request.call_id):
                self._within_left(call, request, flow, key)
            return
        token, dialog = self._in_dialog.call_of(request, flow)
        if token is None:
            if self._in_time(request, flow, source):
                self._board.counts["forged_in_dialog"] += 1
                self._board.turn_away(request, flow, Turned(481))
            return
        ends = request.method == "BYE" and dialog is not None  # there is but one of these
        if ends or self._doors.in_time_within(token.call_id):
            self._in_dialog.take(request, flow, key, token, dialog)
        elif (turned := self._doors.too_fast(source, flow)) is not None:
            self._board.turn_away(request, flow, turned)

    def _within_left(self, call: Left, request: Request, flow: Flow, key: Key) -> None:
        """A trunk's request in a call that left by it."""
        board = self._board
        if (served := board.transactions.serve(request, flow, key)) is None:
            board.turn_away(request, flow, Turned(503, "too much is going on", retry_after_s=BUSY_RETRY_S))
        elif (turned := self._doors.unfit(request, flow, within=True)) is not None:
            board.turn(served, turned)
        else:
            call.take(served)

    def _ack(self, request: Request, flow: Flow, key: Key) -> None:
        invite = self._board.transactions.find((key[0], key[1], "INVITE"))
        if invite is not None and invite.final >= 300:
            invite.acknowledged()
            return
        if self.web.owns(request, flow):
            self.web.acknowledged(request)
            return
        if (call := self._left(request, flow)) is not None:
            call.take_ack(request)
            return
        token, dialog = self._in_dialog.call_of(request, flow)
        if token is None:
            return  # of a refusal that we keep no state of, or forged
        if dialog is not None and dialog.answered and dialog.opened_by(request):
            self._board.acknowledged(dialog)
        if self._board.lines.reachable(token.line, token.line_port):
            self._forwarding.ack_to_line(request, flow, token, dialog)

    def _cancel(self, request: Request, flow: Flow, key: Key, source: str) -> None:
        """RFC 3261 §9.2: answered by itself, whatever becomes of the INVITE."""
        invite = self._board.transactions.find((key[0], key[1], "INVITE"))
        if invite is not None and not self._cancels(request, invite.request):
            invite = None
        mine = None if invite is None else self._board.transactions.serve(request, flow, key)
        if invite is None or mine is None:
            if self._in_time(request, flow, source):
                self._board.turn_away(request, flow, Turned(481))
            return
        mine.answer(response(request, flow, 200))
        self._forwarding.cancel(invite)

    def _cancels(self, cancel: Request, invite: Request) -> bool:
        """Whether all that a CANCEL must repeat of its INVITE is the same (RFC 3261 §9.1).

        Some telephones put the tag of a 180 into its To.
        """
        dialog = self._board.dialogs.get((invite.call_id, from_tag(invite)))
        to_tags = {to_tag(invite), dialog.line_tag if dialog is not None else ""}
        return (
            cancel.call_id == invite.call_id
            and from_tag(cancel) == from_tag(invite)
            and to_tag(cancel) in to_tags
            and cancel.cseq.sequence == invite.cseq.sequence
        )
