"""One place where a call that leaves is tried: its INVITEs, and the peer's end of the dialog they open.

A branch has ways, tried one after the other: a trunk's addresses, or the flows of one telephone. It has one
outcome: answered, or a refusal. What comes after that outcome and would open a dialog all the same is
acknowledged and hung up at once, so that nobody stands in a call without us (RFC 3261 §13.2.2.4, §16.7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

import structlog

from gateway.edge.dialogs.transaction import Sent, ack_of, of_transaction
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar import sdp
from gateway.edge.grammar.header import Address, CSeq, split
from gateway.edge.grammar.message import from_tag, to_tag
from gateway.edge.grammar.responses import ALLOW_OUT
from gateway.edge.grammar.sip_message import Request, Response
from gateway.edge.grammar.sips import SIPS
from gateway.edge.grammar.token import PARAM, RouteToken
from gateway.edge.grammar.uri import URI
from gateway.edge.proxy.switchboard import Switchboard
from gateway.edge.trunks.outlets import Outlet, OutWay
from gateway.edge.trunks.reliable_answers import ProvisionalKind, ReliableAnswers
from gateway.errors import NoFlow

TRY_S: Final = 4.0
"""A server that has not even said 100 by then is taken for dead."""
MOST_TRIES: Final = 6
"""INVITEs of one branch, whatever asks for another one."""
MOST_UNWANTED: Final = 8
"""Dialogs that one branch may open too many, each of which gets a BYE."""
BYE_WITHIN_S: Final = 8.0
LONGEST_SESSION_S: Final = 86_400
TO_TRUNK: Final = frozenset(
    {"content-type", "reason", "allow", "supported", "event", "info-package", "session-expires", "min-se"}
)
"""Headers of a line's that go on; all else is written here."""
CANCELLED: Final = (487, "Request Terminated")

log = structlog.get_logger("edge")


class BranchOwner(Protocol):
    """The call that a branch is of."""

    def rings(self, branch: OutBranch, answer: Response) -> None:
        """A provisional answer other than 100."""

    def answered(self, branch: OutBranch, answer: Response) -> bool:
        """A 2xx, also one that is said again. False: somebody else has answered, or nobody waits."""

    def refused(self, branch: OutBranch, status: int, reason: str) -> None:
        """Nobody answers by this branch; it is over."""


class OutBranch:
    """See the module."""

    def __init__(
        self,
        board: Switchboard,
        owner: BranchOwner,
        source: Request,
        token: RouteToken,
        outlet: Outlet,
        ways: Sequence[OutWay],
    ) -> None:
        """`source` is the line's INVITE, `token` names the caller's call and its line."""
        self.their_tag = ""
        self.up = False
        self.flow: Flow | None = None
        self.uri = URI.read(outlet.called)
        self.word = ""
        """signed: in it an edge that knows nothing of this dialog still finds line and peer"""
        self._board = board
        self._owner = owner
        self._source = source
        self._token = token
        self._outlet = outlet
        self._credentials = outlet.credentials
        self._left = list(ways)
        self._tries = 0
        self._offset = 0
        self._over = False
        self._cancelled = False
        self._way: OutWay | None = None
        self._sent: Sent | None = None
        self._settled = False
        """the INVITE that was sent last has its final answer"""
        self._from = f"<{outlet.shown}>;tag={from_tag(source)}"
        self._to = f"<{outlet.called}>"
        self._routes: list[str] = []
        self._why = (480, "nobody is there now")
        self._unwanted_tags: set[str] = set()
        self._invite_cseq = (0, 0)
        """of the last INVITE: the line's, and ours"""
        self._session_s = 0
        """how long a session the peer wants at least; 0: it has said nothing"""
        self._reliable = ReliableAnswers()

    # ── the INVITE ───────────────────────────────────────────────────────────────────────────────────

    def begin(self) -> None:
        """Tries the first way."""
        self._next()

    def cancel(self) -> None:
        """Nobody wants the answer any more; the owner hears of a refusal once nothing is under way."""
        if self._cancelled or self.up or self._over:
            return
        self._cancelled = True
        sent = self._sent
        if sent is None or sent.final:
            self._refuse(*CANCELLED)
        else:
            sent.cancel(partial(self._send_cancel, sent))

    def _send_cancel(self, sent: Sent) -> None:
        cancel = of_transaction(sent.request, "CANCEL")
        cancel.headers.set("To", sent.request.headers["To"])
        self._board.transactions.send(cancel, sent.flow, lambda _: None)

    def _next(self) -> None:
        """The next way, or the owner hears why there is none."""
        if self._cancelled:
            self._refuse(*CANCELLED)
        elif not self._left or self._tries >= MOST_TRIES:
            self._refuse(*self._why)
        else:
            way = self._left.pop(0)
            self._board.spawn(self._try(way))

    async def _try(self, way: OutWay) -> None:
        """Opens the way if need be. Never raises."""
        try:
            flow = await self._outlet.connect(way)
        except NoFlow as error:
            self._failed(way, 503, str(error))
        except Exception:
            log.exception("trunk.invite_failed", trunk=self._outlet.name, call_id=self._token.call_id)
            self._refuse(500, "an error of ours")
        else:
            if self._cancelled:
                self._refuse(*CANCELLED)
                return
            at = replace(self._token, transport=flow.transport, host=flow.host, port=flow.port)
            self.word = at.sign(self._board.config.route_key)
            self._way, self.flow = way, flow
            self.uri, self._routes = way.uri, list(way.routes)
            self._credentials.forget()
            self._send(self.uri)

    def _send(self, uri: URI) -> None:
        """One more INVITE, by the way that is open."""
        flow = self.flow
        assert flow is not None  # noqa: S101  # both callers have opened it
        self._tries += 1
        if self._tries > 1:
            self._offset += 1
        self._reliable = ReliableAnswers()
        invite = self.request(self._source, flow, uri)
        invite.headers.set("To", self._to)
        invite.headers.set("Allow", ALLOW_OUT)
        supported = ["100rel", *self._source.supported]
        invite.headers.set("Supported", ", ".join(dict.fromkeys(supported)))
        if self._session_s:
            invite.headers.set("Session-Expires", str(self._session_s))
            invite.headers.set("Min-SE", str(self._session_s))
        self._credentials.put(invite)
        self._settled = False
        self._sent = self._board.transactions.send(invite, flow, partial(self._answered, flow, invite), TRY_S)

    def _answered(self, flow: Flow, invite: Request, answer: Response | None) -> None:
        sent, way = self._sent, self._way
        if answer is not None and answer.code >= 300:
            flow.send(bytes(ack_of(invite, answer)))
        if sent is None or way is None or self._over or sent.request is not invite:
            self._unwanted(flow, answer)  # of an INVITE before: said again, or too late
            return
        if self._settled:  # an INVITE has one final answer, whatever is said after it
            if answer is not None and 200 <= answer.code < 300 and self.up:
                self._accepted(way, flow, answer)
            else:
                self._unwanted(flow, answer)
            return
        self._settled = answer is None or answer.code >= 200
        if answer is None:
            self._silent(sent, way)
        elif answer.code < 200:
            self._outlet.note(way, None)
            news = self._reliable.take(answer)
            if news is ProvisionalKind.RELIABLE:
                self._acknowledge_early(flow, answer)
            if answer.code != 100 and news is not ProvisionalKind.REPEATED and not self._cancelled:
                self._owner.rings(self, answer)
        elif answer.code < 300:
            self._accepted(way, flow, answer)
        else:
            self._final(sent, way, answer)

    def _silent(self, sent: Sent, way: OutWay) -> None:
        """No answer, or no final one for too long."""
        if self._cancelled:
            self._refuse(*CANCELLED)
        elif not sent.flow.open:
            self._failed(way, 503, f"{way} has closed its connection")
        elif sent.provisional:
            self._send_cancel(sent)
            self._refuse(408, "nobody answered in time")
        else:
            self._failed(way, 408, f"{way} does not answer")

    def _failed(self, way: OutWay, status: int, why: str) -> None:
        self._outlet.note(way, why, status)
        self._why = (503 if status == 408 else status, why)
        log.warning("trunk.way_failed", trunk=self._outlet.name, way=str(way), why=why)
        self._next()

    def _final(self, sent: Sent, way: OutWay, answer: Response) -> None:
        """A refusal, a challenge, a redirection."""
        code = answer.code
        again = code in self._outlet.tried_again
        if not again:
            self._outlet.note(way, None)
        if self._cancelled:
            self._refuse(*CANCELLED)
        elif code in (401, 407):
            why = self._credentials.learn(answer)
            if why is None and self._tries < MOST_TRIES:
                self._send(sent.request.uri)
            else:
                self._refuse(code, why or "the trunk asks again and again")
        elif 300 <= code < 400:
            self._redirected(answer)
        elif code == 422 and self._lengthened(answer) and self._tries < MOST_TRIES:
            self._send(sent.request.uri)
        elif again and self._left:
            self._failed(way, code, f"{way} answered {code} {answer.phrase[:60]}")
        else:
            if again:
                self._outlet.note(way, f"{way} answered {code}", code)
            self._refuse(code, answer.phrase)

    def _lengthened(self, answer: Response) -> bool:
        """Whether the peer names a longer session than we have asked for (RFC 4028 §7.4), within reason."""
        least = (answer.headers.get("Min-SE") or "").partition(";")[0].strip()
        wanted = int(least) if least.isascii() and least.isdigit() and len(least) < 6 else 0
        longer = "timer" in self._source.supported and self._session_s < wanted <= LONGEST_SESSION_S
        self._session_s = wanted if longer else self._session_s
        return longer

    def _acknowledge_early(self, flow: Flow, answer: Response, *, again: bool = False) -> None:
        """PRACK (RFC 3262 §4): it is hop by hop nobody's but ours, for the line hears of us over loopback."""
        prack = self._to_sender(flow, answer, "PRACK")
        prack.headers.set("RAck", f"{answer.headers['RSeq']} {answer.cseq.sequence} INVITE")
        self._credentials.put(prack)

        def answered(said: Response | None) -> None:
            asked = said is not None and said.code in (401, 407)
            if said is not None and asked and not again and self._credentials.learn(said) is None:
                self._acknowledge_early(flow, answer, again=True)

        self._board.transactions.send(prack, flow, answered)

    def _redirected(self, answer: Response) -> None:
        """To where the trunk points, if that is the trunk's too; its Contact's user is who is called then."""
        try:
            contacts = [one.uri for one in answer.contact]
        except ValueError:
            contacts = []
        for uri in contacts[:MOST_TRIES]:
            if (way := self._outlet.redirected(uri)) is not None:
                self._left.insert(0, way)
                self._next()
                return
        self._refuse(answer.code, "it points to somebody who is not its own")

    def _refuse(self, status: int, reason: str) -> None:
        if not self._over:
            self._over = True
            self._owner.refused(self, status, reason)

    def _accepted(self, way: OutWay, flow: Flow, answer: Response) -> None:
        tag = to_tag(answer)
        if self.up and tag != self.their_tag:  # somebody else behind the same way picked up too
            self._unwanted(flow, answer)
            return
        if not self.up:
            self._outlet.note(way, None)
            before = self.their_tag, self._to, self._routes, self.uri
            self._learn(flow, answer)
            if not self._owner.answered(self, answer):
                self.their_tag, self._to, self._routes, self.uri = before
                self._over = True
                self._unwanted(flow, answer)
                return
            self.up = True
        elif not self._owner.answered(self, answer):  # our ACK was lost, and the call is over
            self._unwanted(flow, answer)

    def _learn(self, flow: Flow, answer: Response) -> None:
        self.their_tag, self._to = to_tag(answer), answer.headers["To"]
        self._routes = list(reversed(_each(answer.headers.getlist("Record-Route"))))
        self.uri = self.target(flow, answer)

    def target(self, flow: Flow, said: Response | Request) -> URI:
        """Whom the peer wants to be asked for from now on; `sips:` is not said in the clear (RFC 5630)."""
        if not said.contact or (said.contact[0].uri.scheme == SIPS and not flow.secure):
            return self.uri
        return said.contact[0].uri

    def _unwanted(self, flow: Flow, answer: Response | None) -> None:
        """A 2xx that nobody waits for: an ACK each time, and one BYE."""
        if answer is None or not 200 <= answer.code < 300 or answer.cseq.method != "INVITE":
            return
        flow.send(bytes(self._to_sender(flow, answer, "ACK")))
        tag = to_tag(answer)
        if tag not in self._unwanted_tags and len(self._unwanted_tags) < MOST_UNWANTED:
            self._unwanted_tags.add(tag)
            bye = self._to_sender(flow, answer, "BYE")
            self._board.transactions.send(bye, flow, lambda _: None, BYE_WITHIN_S)

    def _to_sender(self, flow: Flow, answer: Response, method: str) -> Request:
        """A request of ours, and not the line's, to whom an answer to our INVITE comes from."""
        sequence = answer.cseq.sequence
        if method != "ACK":
            self._offset += 1
            sequence = self._source.cseq.sequence + self._offset
        request = Request(method, self.target(flow, answer))
        request.via = [self._board.toward_callers.via(flow, self._board.transactions.branch())]
        request.max_forwards = 70
        for name in ("From", "To", "Call-ID"):
            request.headers.set(name, answer.headers[name])
        request.cseq = CSeq(sequence, method)
        if routes := list(reversed(_each(answer.headers.getlist("Record-Route")))):
            request.headers.setlist("Route", routes)
        request.headers.set("Content-Length", "0")
        return request

    # ── the dialog ───────────────────────────────────────────────────────────────────────────────────

    def next_hop(self) -> Flow | None:
        """Where requests within the dialog go: to the first proxy of the route, or the Contact, if that is an
        address of the trunk's; else where the INVITE went. None: that connection has ended."""
        if self.flow is None or not self.flow.open:
            return None
        first = self.uri
        if self._routes:
            try:
                first = Address.read(self._routes[0]).uri
            except ValueError:
                return self.flow
        host, port = self._outlet.hop(self.flow, first)
        if self.flow.reliable or (host, port) == (self.flow.host, self.flow.port):
            return self.flow
        return self._board.ports.udp.flow(host, port)

    async def reopened(self) -> Flow:
        """The way that the INVITE went, by another connection. Raises `NoFlow`."""
        assert self._way is not None  # noqa: S101  # the call is up, so it went some way
        self.flow = await self._outlet.connect(self._way)
        return self.flow

    def challenged(self) -> None:
        """One more request than the line knows of was sent."""
        self._offset += 1

    def request(self, source: Request, flow: Flow, uri: URI) -> Request:
        """A request of the line's as the peer gets it."""
        on = Request(source.method, uri, source.body)
        on.via = [self._board.toward_callers.via(flow, self._board.transactions.branch())]
        on.max_forwards = 70
        for name in source.headers.keys():  # noqa: SIM118 - not a dict
            if name.lower() in TO_TRUNK:
                on.headers.setlist(name, source.headers.getlist(name))
        on.headers.set("From", self._from)
        on.headers.set("To", self._to)
        on.call_id = self._source.call_id
        sequence = source.cseq.sequence + self._offset
        if source.method == "INVITE":
            self._invite_cseq = source.cseq.sequence, sequence
        elif source.method == "ACK" and source.cseq.sequence == self._invite_cseq[0]:
            sequence = self._invite_cseq[1]  # others may have gone since
        on.cseq = CSeq(sequence, source.method)
        if self._routes:
            on.headers.setlist("Route", self._routes)
        if source.method == "INVITE":
            on.headers.set("Contact", self.contact(flow))
        on.headers.set("User-Agent", "voicegate")
        if on.body:
            on.body = sdp.at_address(on.body, self._board.toward_callers.address(flow.host))
        on.headers.set("Content-Length", str(len(on.body)))
        return on

    def contact(self, flow: Flow) -> str:
        """Ours, in this dialog."""
        sips = self._way is not None and self._way.uri.scheme == SIPS
        ours = self._board.toward_callers.uri(flow, self._outlet.contact_user, sips=sips)
        return f"<{ours};{PARAM}={self.word}>"


def _each(routes: list[str]) -> list[str]:
    """One route a line; none of what cannot be read."""
    try:
        return [one for text in routes for one in split(text, ",") if one]
    except ValueError:
        return []
