"""One call that leaves: the line's INVITE on one side, a trunk's dialog on the other (RFC 3261 §12, §22).

The line has one dialog with one final answer. Toward the trunk there may be several INVITEs: with a password,
to the next address, to where a 302 points within the trunk's own hosts. From, To and the Request-URI are ours
to write: the line knows no number and no password. CSeq toward the trunk is the line's plus what we added.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final, Protocol

import structlog

from gateway.edge.dialogs.transaction import LINGER_S, Sent, Served, ack_of, of_transaction
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar import sdp
from gateway.edge.grammar.header import Address, CSeq, split
from gateway.edge.grammar.message import from_tag, stamped, to_tag
from gateway.edge.grammar.responses import ALLOW_OUT, response, tagged, told
from gateway.edge.grammar.session_part import SDP, session_part
from gateway.edge.grammar.sip_message import Request, Response
from gateway.edge.grammar.token import PARAM, RouteToken
from gateway.edge.grammar.uri import URI
from gateway.edge.proxy.forwarding import TO_LINE
from gateway.edge.proxy.switchboard import LOOPBACK, Switchboard
from gateway.edge.trunks.outlets import Outlet, OutWay
from gateway.errors import NoFlow

TRY_S: Final = 4.0
"""A server that has not even said 100 by then is taken for dead."""
MOST_TRIES: Final = 6
"""INVITEs of one call, whatever asks for another one."""
TRIED_AGAIN: Final = (500, 502, 503, 504)
"""Answers of a server, and not of who is called: the next address may know better (RFC 3261 §21.5)."""
TO_TRUNK: Final = frozenset({"content-type", "reason", "allow", "supported", "event", "info-package"})
"""Headers of a line's that go on; all else is written here."""

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
        self.up = False
        self.over = False
        self.id = (served.request.call_id, from_tag(served.request))
        self._board = board
        self._owner = owner
        self._credentials = outlet.credentials
        self._left = outlet.ways()
        self._tries = 0
        self._offset = 0
        self._cancelled = False
        self._way: OutWay | None = None
        self._flow: Flow | None = None
        self._word = ""
        self._from = f"<{outlet.shown}>;tag={self.id[1]}"
        self._to = f"<{outlet.called}>"
        self._uri = URI.read(outlet.called)
        self._their_tag = ""
        self._routes: list[str] = []
        self._why = (480, "nobody is there now")

    # ── the INVITE ───────────────────────────────────────────────────────────────────────────────────

    def begin(self) -> None:
        """Tries the first address."""
        self._next()

    def _next(self) -> None:
        """The next address, or the line hears why there is none."""
        if self._cancelled:
            self._refuse(487, "Request Terminated")
        elif not self._left or self._tries >= MOST_TRIES:
            self._refuse(*self._why)
        else:
            way = self._left.pop(0)
            self._board.spawn(self._try(way))

    async def _try(self, way: OutWay) -> None:
        """Opens the way if need be. Never raises."""
        try:
            flow = await self.outlet.connect(way)
        except NoFlow as error:
            self._failed(way, 503, str(error))
        except Exception:
            log.exception("trunk.invite_failed", trunk=self.outlet.name, call_id=self.token.call_id)
            self._refuse(500, "an error of ours")
        else:
            if self._cancelled:
                self._refuse(487, "Request Terminated")
                return
            self._way, self._flow = way, flow
            self._word = self._signed(flow)
            self._uri, self._routes = way.uri, list(way.routes)
            self._credentials.forget()
            self._send(self._uri)

    def _send(self, uri: URI) -> None:
        """One more INVITE, by the way that is open."""
        flow = self._flow
        assert flow is not None  # noqa: S101  # both callers have opened it
        source = self.served.request
        self._tries += 1
        if self._tries > 1:
            self._offset += 1
        invite = self._request(source, flow, uri)
        invite.headers.set("To", self._to)
        invite.headers.set("Allow", ALLOW_OUT)
        self._credentials.put(invite)
        self.served.sent = self._board.transactions.send(
            invite, flow, partial(self._answered, flow, invite), TRY_S
        )

    def _answered(self, flow: Flow, invite: Request, answer: Response | None) -> None:
        sent, way = self.served.sent, self._way
        if answer is not None and answer.code >= 300:
            flow.send(bytes(ack_of(invite, answer)))
        if sent is None or way is None or self.over or sent.request is not invite:
            self._unwanted(flow, answer)  # of an INVITE before: said again, or too late
        elif answer is None:
            self._silent(sent, way)
        elif answer.code < 200:
            self.outlet.note(way, None)
            if answer.code != 100:
                self._give_back(answer)
        elif answer.code < 300:
            self._accepted(flow, answer)
        else:
            self._final(sent, way, answer)

    def _silent(self, sent: Sent, way: OutWay) -> None:
        """No answer, or no final one for too long."""
        if self._cancelled:
            self._refuse(487, "Request Terminated")
        elif sent.provisional:
            self._board_cancel(sent)
            self._refuse(408, "nobody answered in time")
        else:
            self._failed(way, 408, f"{way} does not answer")

    def _failed(self, way: OutWay, status: int, why: str) -> None:
        self.outlet.note(way, why)
        self._why = (503 if status == 408 else status, why)
        log.warning("trunk.way_failed", trunk=self.outlet.name, way=str(way), why=why)
        self._next()

    def _final(self, sent: Sent, way: OutWay, answer: Response) -> None:
        """A refusal, a challenge, a redirection."""
        code = answer.code
        if code not in TRIED_AGAIN:
            self.outlet.note(way, None)
        if self._cancelled:
            self._refuse(487, "Request Terminated")
        elif code in (401, 407):
            why = self._credentials.learn(answer)
            if why is None and self._tries < MOST_TRIES:
                self._send(sent.request.uri)
            else:
                self._refuse(code, why or "the trunk asks again and again")
        elif 300 <= code < 400:
            self._redirected(answer)
        elif code in TRIED_AGAIN and self._left:
            self._failed(way, code, f"{way} answered {code} {answer.phrase[:60]}")
        else:
            self._refuse(code, answer.phrase)

    def _redirected(self, answer: Response) -> None:
        """To where the trunk points, if that is the trunk's too; its Contact's user is who is called then."""
        try:
            contacts = [one.uri for one in answer.contact]
        except ValueError:
            contacts = []
        for uri in contacts[:MOST_TRIES]:
            if (way := self.outlet.redirected(uri)) is not None:
                self._left.insert(0, way)
                self._next()
                return
        self._refuse(answer.code, "it points to somebody who is not its own")

    def _accepted(self, flow: Flow, answer: Response) -> None:
        tag = to_tag(answer)
        if self.up:
            if tag == self._their_tag:  # our ACK was lost, or the line's has not come yet
                self._give_back(answer)
            else:
                self._unwanted(flow, answer)  # somebody else picked up too
            return
        if self._way is not None:
            self.outlet.note(self._way, None)
        self.up = True
        self._learn(answer)
        log.info("trunk.answered", trunk=self.outlet.name, call_id=self.token.call_id)
        self._give_back(answer)

    def _learn(self, answer: Response) -> None:
        self._their_tag, self._to = to_tag(answer), answer.headers["To"]
        self._routes = list(reversed(_each(answer.headers.getlist("Record-Route"))))
        if contacts := answer.contact:
            self._uri = contacts[0].uri

    def _unwanted(self, flow: Flow, answer: Response | None) -> None:
        """A 2xx that nobody waits for: ACK and BYE."""
        if answer is None or not 200 <= answer.code < 300 or answer.cseq.method != "INVITE":
            return
        uri = answer.contact[0].uri if answer.contact else self._uri
        for method, more in (("ACK", 0), ("BYE", 1)):
            request = Request(method, uri)
            request.via = [self._board.toward_callers.via(flow, self._board.transactions.branch())]
            request.max_forwards = 70
            for name in ("From", "To", "Call-ID"):
                request.headers.set(name, answer.headers[name])
            request.cseq = CSeq(answer.cseq.sequence + more, method)
            if routes := list(reversed(_each(answer.headers.getlist("Record-Route")))):
                request.headers.setlist("Route", routes)
            request.headers.set("Content-Length", "0")
            flow.send(bytes(request))

    def cancel(self) -> None:
        """The line does not want the answer any more."""
        if self._cancelled or self.up or self.over:
            return
        self._cancelled = True
        sent = self.served.sent
        if sent is None or sent.final:
            self._refuse(487, "Request Terminated")
        else:
            sent.cancel(partial(self._board_cancel, sent))

    def _board_cancel(self, sent: Sent) -> None:
        cancel = of_transaction(sent.request, "CANCEL")
        cancel.headers.set("To", sent.request.headers["To"])
        self._board.transactions.send(cancel, sent.flow, lambda _: None)

    # ── back to the line ─────────────────────────────────────────────────────────────────────────────

    def _refuse(self, status: int, reason: str) -> None:
        """The line's INVITE is answered so, and nothing is left of the call."""
        if self.over:
            return
        if not self.served.final:
            self.served.answer(told(self.served.request, self.served.flow, status, reason))
        self._end(status)

    def _give_back(self, answer: Response) -> None:
        """A trunk's answer, as the line's INVITE gets it."""
        request = self.served.request
        back = Response(answer.code, answer.phrase)
        back.headers.setlist("Via", stamped(request.headers.getlist("Via"), self.served.flow))
        for name in ("From", "Call-ID", "CSeq"):
            back.headers.set(name, request.headers[name])
        back.headers.set("To", tagged(request, to_tag(answer)))
        line = self._board.line_flow(self.token)
        back.headers.set("Record-Route", self._board.toward_lines.record_route(line, self._word))
        if answer.contact:
            back.headers.set("Contact", f"<{answer.contact[0].uri}>")
        self._lean(answer, back)
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
        flow = self._next_hop()
        if self.up and flow is not None:
            on = self._request(ack, flow, self._uri)
            self._credentials.put(on)  # RFC 3261 §22.1: as its INVITE had them
            flow.send(bytes(on))

    def ask(self, served: Served) -> None:
        """A request of the line's within the dialog: BYE, or INFO."""
        if not self.up:
            self._board.refuse(served, 481)
            return
        if served.request.method == "BYE":
            served.answer(response(served.request, served.flow, 200))
        self._credentials.renew()
        if (flow := self._next_hop()) is not None:
            self._ask(served, flow)
        else:
            self._board.spawn(self._ask_anew(served))
        if served.request.method == "BYE":
            self._end(0)

    async def _ask_anew(self, served: Served) -> None:
        """The connection ended meanwhile: by another one."""
        assert self._way is not None  # noqa: S101  # the call is up, so it went some way
        try:
            self._flow = await self.outlet.connect(self._way)
        except NoFlow as error:
            log.warning("trunk.not_told", trunk=self.outlet.name, call_id=self.token.call_id, why=str(error))
            if not served.final:
                self._board.refuse(served, 408)
        else:
            self._ask(served, self._flow)

    def _ask(self, served: Served, flow: Flow) -> None:
        on = self._request(served.request, flow, self._uri)
        self._credentials.put(on)
        answered = partial(self._asked, served, flow)
        served.sent = self._board.transactions.send(on, flow, answered, LINGER_S)

    def _asked(self, served: Served, flow: Flow, answer: Response | None) -> None:
        if answer is not None and answer.code in (401, 407) and self._credentials.learn(answer) is None:
            self._offset += 1
            self._ask(served, flow)
        elif served.final:
            pass  # a BYE of the line's was answered at once
        elif answer is None:
            self._board.refuse(served, 408)
        elif answer.code >= 200:
            back = response(served.request, served.flow, answer.code)
            back.phrase = answer.phrase
            served.answer(back)

    # ── within the dialog, from the trunk ────────────────────────────────────────────────────────────

    def names(self, request: Request) -> bool:
        """Whether a request of the trunk's says this dialog's Call-ID and both its tags."""
        ours = (request.call_id, to_tag(request)) == self.id
        return ours and self._their_tag != "" and from_tag(request) == self._their_tag

    def take(self, served: Served) -> None:
        """A request of the trunk's within the dialog: the line answers it."""
        request = self._toward_line(served.request)
        flow = self._board.line_flow(self.token)
        served.sent = self._board.transactions.send(
            request, flow, partial(self._line_answered, served), LINGER_S
        )
        if served.request.method == "BYE":
            self._end(0)
        elif served.request.method in ("INVITE", "UPDATE") and served.request.contact:
            self._uri = served.request.contact[0].uri

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
        for name in ("Allow", "Accept", "Reason", "Content-Type"):
            if answer.headers.get(name) is not None:
                back.headers.setlist(name, answer.headers.getlist(name))
        if request.method in ("INVITE", "UPDATE") and answer.code < 300:
            back.headers.set("Contact", self._contact(flow))
        if answer.body:
            back.body = sdp.at_address(answer.body, self._board.toward_callers.address(flow.host))
        back.headers.set("Content-Length", str(len(back.body)))
        served.answer(back)

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────

    def _next_hop(self) -> Flow | None:
        """Where requests within the dialog go: to the first proxy of the route, or the Contact, if that is an
        address of the trunk's; else where the INVITE went."""
        if self._flow is None or not self._flow.open:
            return None
        first = self._uri
        if self._routes:
            try:
                first = Address.read(self._routes[0]).uri
            except ValueError:
                return self._flow
        host, port = self.outlet.hop(self._flow, first)
        if self._flow.reliable or (host, port) == (self._flow.host, self._flow.port):
            return self._flow
        return self._board.ports.udp.flow(host, port)

    def _request(self, source: Request, flow: Flow, uri: URI) -> Request:
        """A request of the line's as the trunk gets it."""
        on = Request(source.method, uri, source.body)
        on.via = [self._board.toward_callers.via(flow, self._board.transactions.branch())]
        on.max_forwards = 70
        for name in source.headers.keys():  # noqa: SIM118 - not a dict
            if name.lower() in TO_TRUNK:
                on.headers.setlist(name, source.headers.getlist(name))
        on.headers.set("From", self._from)
        on.headers.set("To", self._to)
        on.call_id = self.id[0]
        on.cseq = CSeq(source.cseq.sequence + self._offset, source.method)
        if self._routes:
            on.headers.setlist("Route", self._routes)
        if source.method == "INVITE":
            on.headers.set("Contact", self._contact(flow))
        on.headers.set("User-Agent", "voicegate")
        if on.body:
            on.body = sdp.at_address(on.body, self._board.toward_callers.address(flow.host))
        on.headers.set("Content-Length", str(len(on.body)))
        return on

    def _contact(self, flow: Flow) -> str:
        via = self._board.toward_callers.via(flow, "")
        transport = f";transport={flow.transport}" if flow.reliable else ""
        return f"<sip:{self.outlet.contact_user}@{via.host}:{via.port}{transport};{PARAM}={self._word}>"

    def _signed(self, flow: Flow) -> str:
        """The word by which an edge that knows nothing of this dialog still finds line and peer."""
        at = replace(self.token, transport=flow.transport, host=flow.host, port=flow.port)
        return at.sign(self._board.config.route_key)

    def line_died(self) -> None:
        """The line is gone, and with it the call: the trunk gets a BYE, or a CANCEL."""
        if not self.up:
            self.cancel()
            self._end(503)
            return
        flow = self._next_hop()
        if flow is not None:
            bye = Request("BYE", self._uri)
            bye.cseq = CSeq(self.served.request.cseq.sequence + 1, "BYE")
            on = self._request(bye, flow, self._uri)
            self._credentials.put(on)
            self._board.transactions.send(on, flow, lambda _: None)
        self._end(0)

    def _end(self, status: int) -> None:
        if not self.over:
            self.over = True
            self._owner.over(self, status)


def _each(routes: list[str]) -> list[str]:
    """One route a line; none of what cannot be read."""
    try:
        return [one for text in routes for one in split(text, ",") if one]
    except ValueError:
        return []
