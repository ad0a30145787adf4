"""A new INVITE that passed the doors, on its way to a line: codecs, a free slot, a fair share, the router."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from typing import Final

import structlog

from gateway.edge.dialogs.dialog import Dialog, DialogId
from gateway.edge.dialogs.transaction import Served
from gateway.edge.grammar import sdp
from gateway.edge.grammar.message import from_tag
from gateway.edge.grammar.sdes import SrtpRule
from gateway.edge.grammar.session_part import session_part
from gateway.edge.grammar.sip_message import Request
from gateway.edge.grammar.token import RouteToken
from gateway.edge.proxy.forwarding import MAX_TO_LINE, Forwarding
from gateway.edge.proxy.lines import PooledLine, kind_for
from gateway.edge.proxy.switchboard import Switchboard
from gateway.edge.proxy.web_agent import WebAgent
from gateway.edge.router import Accept, IncomingCall, Refuse
from gateway.ipc.call_facts import CallFacts
from gateway.ipc.ending import CallEnding, End

log = structlog.get_logger("edge")

SHARE_OF_SOURCE: Final = 0.5
"""Of all slots, for calls of one source that it has not acknowledged yet."""
SHARE_WITHIN_S: Final = 4.0
"""How long an INVITE waits for its source's share."""
BUSY_RETRY_S: Final = 10
DRAIN_RETRY_S: Final = 30


class Admission:
    """See the module."""

    def __init__(self, board: Switchboard, forwarding: Forwarding) -> None:
        self._board = board
        self._forwarding = forwarding
        self._underway: set[DialogId] = set()

    def known(self, request: Request) -> bool:
        """Whether this call is here already, by another way (RFC 3261 §8.2.2.2)."""
        dialog_id = (request.call_id, from_tag(request))
        return dialog_id in self._underway or dialog_id in self._board.dialogs

    async def admit(
        self,
        served: Served,
        source: str,
        user: str,
        *,
        named: bool,
        web: WebAgent | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Ends with the INVITE on a line, or refused. Never raises.

        `web` answers offers that are for a web line.

        `named`: the operator named that source as one that may call. It has no share: it may have many calls
        at once that are not acknowledged yet, and is told at once when there is no room. `headers`: what a
        trusted peer says of the call.
        """
        dialog_id = (served.request.call_id, from_tag(served.request))
        self._underway.add(dialog_id)
        try:
            facts = _facts(served, source, user, headers, self._board.trunk_of(served.flow))
            if barred := self._board.config.srtp.barred(self._wanted(facts), served.flow):
                self._board.refuse(served, 488, barred)
            elif web is not None and web.wants(served.request) and not self._board.draining:
                await web.answer(served, facts)
            else:
                await self._admit(served, facts, named=named)
        except Exception:
            log.exception("edge.invite_failed", source=source, sip_call_id=served.request.call_id)
            self._board.refuse(served, 500)
        finally:
            self._underway.discard(dialog_id)

    async def _admit(self, served: Served, facts: CallFacts, *, named: bool) -> None:
        board, body = self._board, session_part(served.request) or b""
        families, policy = board.config.families, board.config.srtp
        wanted = self._wanted(facts)
        rule = policy.over(wanted, served.flow)
        codecs = sdp.offered_codecs(body, families, rule)
        if board.draining:
            board.refuse(served, 503, "going down", DRAIN_RETRY_S)
        elif not codecs:
            board.refuse(served, 488, sdp.why_none(body, families, rule))
        elif len(sdp.lean(body, families, rule)) > MAX_TO_LINE - 1000:
            board.refuse(served, 513)
        elif self._free_line(codecs) is None:
            busy = self._busy(codecs)
            board.refuse(served, busy.status, busy.reason, busy.retry_after_s)
        elif not await board.share.take(facts.source, _all if named else self._share, SHARE_WITHIN_S):
            board.refuse(served, 503, "too many calls of yours are not acknowledged", BUSY_RETRY_S)
        else:
            dialog = None
            try:
                dialog = await self._dialog(served, facts, codecs)
            finally:
                if dialog is None:
                    board.share.give(facts.source)
            if dialog is not None:
                dialog.vouched_for, dialog.srtp = facts.user is not None or named, wanted
                self._place(served, dialog)

    def _wanted(self, facts: CallFacts) -> SrtpRule:
        """Whether the call's sound is encrypted, by who calls."""
        return self._board.config.srtp.rule(facts.user or "", facts.trunk or "")

    def _share(self) -> int:
        return max(2, int(SHARE_OF_SOURCE * self._board.lines.slots))

    def _free_line(self, codecs: tuple[str, ...], without: Collection[str] = ()) -> PooledLine | None:
        """A line for these codecs; if need be one that a caller who owes its ACK leaves.

        `without`: halls that do not take the call.
        """
        board = self._board

        def choose(held: Mapping[str, int]) -> str | None:
            return board.router.hall_for({hall: n for hall, n in held.items() if hall not in without})

        line = board.lines.pick(codecs, choose)
        while line is None and not self._has_room(codecs) and board.end_oldest_overdue():
            line = board.lines.pick(codecs, choose)
        return line

    def _has_room(self, codecs: tuple[str, ...]) -> bool:
        """Whether a line has a free slot, whatever its hall says."""
        return self._board.lines.pick(codecs, lambda held: next(iter(held), None)) is not None

    def _busy(self, codecs: tuple[str, ...]) -> Refuse:
        """What a caller hears who gets no line."""
        if self._has_room(codecs):
            return self._board.router.no_hall()
        return Refuse(503, "all lines are busy", BUSY_RETRY_S)

    def _place(self, served: Served, dialog: Dialog) -> None:
        """Puts the INVITE on its line."""
        try:
            if not self._forwarding.to_line(served, dialog.token, dialog):
                self._board.refuse(served, 513)
                self._board.over(dialog, CallEnding(End.FAILED, "the INVITE is too large"))
        except Exception:
            self._board.over(dialog, CallEnding(End.FAILED, "the INVITE cannot be forwarded"))
            raise

    async def _taken(
        self, served: Served, facts: CallFacts, codecs: tuple[str, ...]
    ) -> tuple[PooledLine, str] | None:
        """The line with a slot for the call, and the call's id; None: it was cancelled, or is refused now.

        The slot is held before the router is asked, since that settles which hall shall have the call, and
        others ask meanwhile.
        """
        board = self._board
        refused: Refuse | None = None
        without: set[str] = set()
        while not served.final and (line := self._free_line(codecs, without)) is not None:
            with line.place():
                call = IncomingCall(facts, kind_for(codecs), served.request.user_agent or "", line.info.hall)
                verdict = await board.router.offered(call)
                served.call_id = verdict.call_id
                if isinstance(verdict, Accept):
                    line.calls.add(verdict.call_id)
                    board.tap.known(served.request.call_id, from_tag(served.request), verdict.call_id)
            if isinstance(verdict, Accept):
                here = board.lines.named(line.info.name) is line
                if here and not served.final:
                    return line, verdict.call_id
                line.calls.discard(verdict.call_id)
                how = CallEnding(End.CANCELLED) if served.final else CallEnding(End.LINE_DIED)
                board.spawn(board.router.ended(verdict.call_id, how))
                break
            refused = verdict
            if not verdict.elsewhere:
                break
            without.add(line.info.hall)
        refused = refused or self._busy(codecs)
        board.refuse(served, refused.status, refused.reason, refused.retry_after_s)
        return None

    async def _dialog(self, served: Served, facts: CallFacts, codecs: tuple[str, ...]) -> Dialog | None:
        """The dialog that now holds the source's share; None when there is none."""
        board, request, flow = self._board, served.request, served.flow
        taken = await self._taken(served, facts, codecs)
        if taken is None:
            return None
        line, call_id = taken
        dialog = Dialog(
            id=(request.call_id, from_tag(request)),
            token=RouteToken(
                call_id, line.info.name, line.info.sip_port, flow.transport, flow.host, flow.port
            ),
            source=facts.source,
            caller_from=request.headers["From"],
            caller_contact=(request.contact or [request.from_address])[0].uri,  # RFC 2543: no Contact
            caller_routes=list(request.headers.getlist("Record-Route")),
            invite=served,
            caller_cseq=request.cseq.sequence,
            flow=flow,
        )
        board.dialogs.add(dialog)
        return dialog


def _all() -> int:
    """A share that nobody exhausts: there are not as many slots."""
    return sys.maxsize


def _facts(
    served: Served, source: str, user: str, headers: dict[str, str] | None, trunk: str | None
) -> CallFacts:
    request = served.request
    return CallFacts(
        caller=request.from_address.uri.plain,
        called=request.uri.plain,
        display=request.from_address.name,
        source=source,
        transport=served.flow.transport,
        user=user or None,
        trunk=trunk,
        headers=headers or None,
        sip_call_id=request.call_id,
    )
