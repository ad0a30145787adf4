"""A call that leaves: the line's INVITE on one side, a peer's dialog on the other (RFC 3261 §12, §16.7, §22).

The line has one dialog with one final answer. On the other side there may be several branches at once, the
telephones of a user: the first that answers has the call, and all others are cancelled. From, To and the
Request-URI are ours to write: the line knows no number and no password. CSeq toward the peer is the line's
plus what a branch added.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final, Protocol

import structlog

from gateway.edge.dialogs.transaction import LINGER_S, Served, Timer, ack_of
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar import sdp
from gateway.edge.grammar.header import CSeq
from gateway.edge.grammar.message import from_tag, stamped, to_tag
from gateway.edge.grammar.responses import response, tagged, told
from gateway.edge.grammar.session_part import SDP, session_part
from gateway.edge.grammar.sip_message import Request, Response
from gateway.edge.grammar.token import RouteToken
from gateway.edge.grammar.uri import URI
from gateway.edge.proxy.forwarding import TO_LINE
from gateway.edge.proxy.switchboard import LOOPBACK, Switchboard
from gateway.edge.trunks.out_branch import CANCELLED, OutBranch
from gateway.edge.trunks.outlets import Outlet
from gateway.errors import NoFlow

ALONE_S: Final = 10.0
"""So long the preferred telephones ring by themselves; then the next ones ring along."""
_SAYS_WHY: Final = (401, 407, 415, 420, 484)
"""Of the answers 4xx those that say what would be answered otherwise (RFC 3261 §16.7, step 6) …"""
_SAYS_LITTLE: Final = (408, 430, 480, 487)
"""… and those that say that nobody was reached."""

_OF_LINE: Final = (
    "Allow", "Accept", "Reason", "Content-Type", "Supported", "Require", "Session-Expires", "Min-SE",
)  # fmt: skip
"""What a line says in its answers that its peer must know."""

log = structlog.get_logger("edge")


class OutOwner(Protocol):
    """Who keeps the calls that leave."""

    def over(self, call: OutCall, status: int) -> None:
        """Nothing is left of the call. `status`: the final answer; 0: it was up, and has ended."""


class OutCall:
    """See the module."""

    def __init__(
        self,
        board: Switchboard,
        owner: OutOwner,
        served: Served,
        token: RouteToken,
        outlet: Outlet,
    ) -> None:
        """`served` is the line's INVITE, `token` names the caller's call and its line."""
        self.served = served
        self.token = token
        self.outlet = outlet
        self.over = False
        self.id = (served.request.call_id, from_tag(served.request))
        self._board = board
        self._owner = owner
        self._credentials = outlet.credentials
        self._groups = outlet.groups()
        self._next_at = Timer()
        self._going: list[OutBranch] = []
        self._begun = 0
        self._peer: OutBranch | None = None
        self._cancelled = False
        self._refusals: list[tuple[int, str]] = []

    @property
    def up(self) -> bool:
        """Whether somebody has answered."""
        return self._peer is not None

    # ── the INVITE ───────────────────────────────────────────────────────────────────────────────────

    def begin(self) -> None:
        """Tries all that are preferred."""
        self._ring()

    def _ring(self) -> None:
        """The next ones ring too, or the line hears why there are none."""
        self._next_at.cancel()
        if not self._groups:
            if not self._going:
                self._refuse(*_best(self._refusals))
            return
        group = self._groups.pop(0)
        if self._groups:
            self._next_at.start(ALONE_S, self._ring)
        begun = [
            OutBranch(self._board, self, self.served.request, self.token, self.outlet, ways) for ways in group
        ]
        self._going += begun
        self._begun += len(begun)
        for branch in begun:
            branch.begin()

    def rings(self, branch: OutBranch, answer: Response) -> None:
        """See `BranchOwner`. Of several that ring nobody's early sound is heard: whose would it be?"""
        if not self.up and not self.over:
            self._give_back(branch, answer, sound=self._begun == 1)

    def answered(self, branch: OutBranch, answer: Response) -> bool:
        """See `BranchOwner`: the first has the call (RFC 3261 §16.7, step 10)."""
        if self.over or self._peer not in (None, branch):
            return False
        if self._peer is None:
            self._peer = branch
            log.info("trunk.answered", trunk=self.outlet.name, call_id=self.token.call_id)
            self._cancel_others(branch)
        self._give_back(branch, answer)
        return True

    def refused(self, branch: OutBranch, status: int, reason: str) -> None:
        """See `BranchOwner`."""
        self._going.remove(branch)
        if self.up or self.over:
            return
        self._refusals.append((status, reason))
        if self._cancelled:
            if not self._going:
                self._refuse(*CANCELLED)
        elif status >= 600:  # who is called is nowhere to be had (step 5)
            self._cancel_others(branch)
            self._refuse(status, reason)
        elif not self._going:
            self._ring()

    def _cancel_others(self, branch: OutBranch | None) -> None:
        self._next_at.cancel()
        for other in list(self._going):
            if other is not branch:
                other.cancel()

    def cancel(self) -> None:
        """The line does not want the answer any more."""
        if not (self._cancelled or self.up or self.over):
            self._cancelled = True
            self._cancel_others(None)

    # ── back to the line ─────────────────────────────────────────────────────────────────────────────

    def _refuse(self, status: int, reason: str) -> None:
        """The line's INVITE is answered so, and nothing is left of the call."""
        if self.over:
            return
        if not self.served.final:
            self.served.answer(told(self.served.request, self.served.flow, status, reason))
        self._end(status)

    def _give_back(self, branch: OutBranch, answer: Response, *, sound: bool = True) -> None:
        """A peer's answer, as the line's INVITE gets it; with its sound, or without."""
        request = self.served.request
        back = Response(answer.code, answer.phrase)
        back.headers.setlist("Via", stamped(request.headers.getlist("Via"), self.served.flow))
        for name in ("From", "Call-ID", "CSeq"):
            back.headers.set(name, request.headers[name])
        back.headers.set("To", tagged(request, to_tag(answer)))
        line = self._board.line_flow(self.token)
        back.headers.set("Record-Route", self._board.toward_lines.record_route(line, branch.word))
        if answer.contact:
            back.headers.set("Contact", f"<{answer.contact[0].uri}>")
        if (session := answer.headers.get("Session-Expires")) is not None:
            back.headers.set("Session-Expires", session)
        if sound:
            self._lean(answer, back)
        else:
            back.headers.set("Content-Length", "0")
        self.served.answer(back)

    def _lean(self, source: Request | Response, on: Request | Response) -> None:
        """The body as a line can read it."""
        session = session_part(source) if source.body else None
        if session is not None:
            on.body = sdp.lean(session, self._board.config.families, self.outlet.srtp)
            on.headers.set("Content-Type", SDP)
        on.headers.set("Content-Length", str(len(on.body)))

    # ── within the dialog, from the line ─────────────────────────────────────────────────────────────

    def acknowledge(self, ack: Request) -> None:
        """The line's ACK of the 2xx."""
        peer = self._peer
        if peer is not None and (flow := peer.next_hop()) is not None:
            on = peer.request(ack, flow, peer.uri)
            self._credentials.put(on)  # RFC 3261 §22.1: as its INVITE had them
            flow.send(bytes(on))

    def ask(self, served: Served) -> None:
        """A request of the line's within the dialog: BYE, INFO, or an INVITE that refreshes its session."""
        if (peer := self._peer) is None:
            self._board.refuse(served, 481)
            return
        if served.request.method == "BYE":
            served.answer(response(served.request, served.flow, 200))
        self._credentials.renew()
        if (flow := peer.next_hop()) is not None:
            self._ask(peer, served, flow)
        else:
            self._board.spawn(self._ask_anew(peer, served))
        if served.request.method == "BYE":
            self._end(0)

    async def _ask_anew(self, peer: OutBranch, served: Served) -> None:
        """The connection ended meanwhile: by another one."""
        try:
            flow = await peer.reopened()
        except NoFlow as error:
            log.warning("trunk.not_told", trunk=self.outlet.name, call_id=self.token.call_id, why=str(error))
            if not served.final:
                self._board.refuse(served, 408)
        else:
            self._ask(peer, served, flow)

    def _ask(self, peer: OutBranch, served: Served, flow: Flow) -> None:
        on = peer.request(served.request, flow, peer.uri)
        self._credentials.put(on)
        answered = partial(self._asked, peer, served, flow, on)
        served.sent = self._board.transactions.send(on, flow, answered, LINGER_S)

    def _asked(
        self, peer: OutBranch, served: Served, flow: Flow, on: Request, answer: Response | None
    ) -> None:
        offers = on.method == "INVITE"
        if answer is not None and offers and answer.code >= 300:
            flow.send(bytes(ack_of(on, answer)))
        if answer is not None and answer.code in (401, 407) and self._credentials.learn(answer) is None:
            peer.challenged()
            self._ask(peer, served, flow)
        elif served.final and not (offers and answer is not None and answer.code < 300):
            pass  # a BYE of the line's was answered at once
        elif answer is None:
            self._board.refuse(served, 408)
        elif answer.code >= 200:
            back = response(served.request, served.flow, answer.code)
            back.phrase = answer.phrase
            if offers and answer.code < 300:
                self._refreshed(peer, flow, answer, back)
            served.answer(back)

    def _refreshed(self, peer: OutBranch, flow: Flow, answer: Response, back: Response) -> None:
        """What the line must know of a 2xx to its INVITE within the dialog."""
        peer.uri = peer.target(flow, answer)
        back.headers.set("Contact", f"<{peer.uri}>")
        if (session := answer.headers.get("Session-Expires")) is not None:
            back.headers.set("Session-Expires", session)
        self._lean(answer, back)

    # ── within the dialog, from the trunk ────────────────────────────────────────────────────────────

    def names(self, request: Request) -> bool:
        """Whether a request of the trunk's says this dialog's Call-ID and both its tags."""
        ours = (request.call_id, to_tag(request)) == self.id
        peer = self._peer
        return ours and peer is not None and from_tag(request) == peer.their_tag != ""

    def take(self, served: Served) -> None:
        """A request of the trunk's within the dialog: the line answers it."""
        request = self._toward_line(served.request)
        flow = self._board.line_flow(self.token)
        served.sent = self._board.transactions.send(
            request, flow, partial(self._line_answered, served), LINGER_S
        )
        if served.request.method == "BYE":
            self._end(0)
        elif served.request.method in ("INVITE", "UPDATE") and self._peer:
            self._peer.uri = self._peer.target(served.flow, served.request)

    def take_ack(self, ack: Request) -> None:
        """The trunk's ACK of a 2xx to an INVITE of its."""
        self._board.line_flow(self.token).send(bytes(self._toward_line(ack)))

    def _toward_line(self, source: Request) -> Request:
        on = Request(source.method, URI.read(f"sip:{LOOPBACK}:{self.token.line_port}"), source.body)
        on.via = [self._board.line_via()]
        on.max_forwards = 70
        for name in source.headers.keys():  # noqa: SIM118 - not a dict
            if name.lower() in TO_LINE:
                on.headers.setlist(name, source.headers.getlist(name))
        self._lean(source, on)
        return on

    def _line_answered(self, served: Served, answer: Response | None) -> None:
        request, flow = served.request, served.flow
        if answer is None:
            self._board.refuse(served, 408)
            return
        if answer.code == 100:
            return
        if request.method == "INVITE" and answer.code >= 300 and served.sent is not None:
            served.sent.flow.send(bytes(ack_of(served.sent.request, answer)))
        back = response(request, flow, answer.code)
        back.phrase = answer.phrase
        for name in _OF_LINE:
            if answer.headers.get(name) is not None:
                back.headers.setlist(name, answer.headers.getlist(name))
        if request.method in ("INVITE", "UPDATE") and answer.code < 300 and self._peer is not None:
            back.headers.set("Contact", self._peer.contact(flow))
        if answer.body:
            back.body = sdp.at_address(answer.body, self._board.toward_callers.address(flow.host))
        back.headers.set("Content-Length", str(len(back.body)))
        served.answer(back)

    def line_died(self) -> None:
        """The line is gone, and with it the call: the trunk gets a BYE, or a CANCEL."""
        if (peer := self._peer) is None:
            self.cancel()
            self._end(503)
            return
        if (flow := peer.next_hop()) is not None:
            bye = Request("BYE", peer.uri)
            bye.cseq = CSeq(self.served.request.cseq.sequence + 1, "BYE")
            on = peer.request(bye, flow, peer.uri)
            self._credentials.put(on)
            self._board.transactions.send(on, flow, lambda _: None)
        self._end(0)

    def _end(self, status: int) -> None:
        if not self.over:
            self.over = True
            self._next_at.cancel()
            self._owner.over(self, status)


def _best(refusals: Sequence[tuple[int, str]]) -> tuple[int, str]:
    """The one that the line hears (RFC 3261 §16.7, step 6); of equal ones the first."""

    def worth(refusal: tuple[int, str]) -> tuple[int, int]:
        status = refusal[0]
        within = 0 if status in _SAYS_WHY else 2 if status in _SAYS_LITTLE else 1
        return (0 if status >= 600 else status // 100, within)

    return min(refusals, key=worth, default=(480, "nobody is there now"))
