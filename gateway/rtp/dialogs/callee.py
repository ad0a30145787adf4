"""The end of a SIP dialog that was called (RFC 3261 §12, §13, §15): what a caller asks within its call, and
what we ask of the caller.

Callers' own SIP ends at the edge, which reads, checks and orders it; what comes here is from the edge alone.
So this is what a user agent server must do and a proxy may not: answer, repeat an answer until it is
acknowledged, take offers (`dialog_server.py`), refresh, transfer, hang up.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Protocol

from gateway.edge.dialogs.transaction import LINGER_S, Served, Timer
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.header import Address, reason
from gateway.edge.grammar.message import to_tag
from gateway.edge.grammar.responses import ALLOW as ALLOWED
from gateway.edge.grammar.responses import response
from gateway.edge.grammar.sip_message import Request, Response
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.line_messages import KeyWay
from gateway.rtp.agreement import Agreement, Describer
from gateway.rtp.described_audio import NoAgreement
from gateway.rtp.dialogs.dialog_server import DialogServer
from gateway.rtp.dialogs.dialog_state import DialogState, describe
from gateway.rtp.dialogs.line_wire import LineWire
from gateway.rtp.dialogs.provisional import Provisional
from gateway.rtp.dialogs.referral import Referral
from gateway.rtp.dialogs.repeat import Repeat
from gateway.rtp.dialogs.session_timer import LEAST_S, SessionTimer, too_short
from gateway.rtp.media.call_media import CallMedia

ALLOW: Final = f"{ALLOWED}, NOTIFY"
SUPPORTED: Final = "timer, 100rel"
LATE: Final = {"Reason": reason(408, "Request Timeout")}
"""By this the edge knows a BYE to a caller who never acknowledged."""
AGAIN_S: Final = 5.0
"""After a refresh of ours that was refused for now."""
GLARE_STEPS: Final = 200
"""Of 10 ms: up to 2 s after two offers have crossed, for who does not own the Call-ID (RFC 3261 §14.1)."""


class CalleeOwner(Protocol):
    """The line, as a call of it sees it."""

    def media_up(self, callee: Callee, agreed: Agreement) -> CallMedia:
        """Offer and answer are there: the call's sound begins."""

    def confirmed(self, callee: Callee) -> None:
        """The caller's ACK came."""

    def turned(self, callee: Callee, sending: bool, receiving: bool) -> None:
        """A hold, or its end."""

    def pressed_by(self, callee: Callee, digit: str, way: KeyWay) -> None:
        """The caller pressed a key."""

    def transferred(self, callee: Callee, status: int, reason: str) -> None:
        """A transfer's target gave its final answer."""

    def ended(self, callee: Callee, how: CallEnding) -> None:
        """The call is over; nothing is asked of it any more."""


class Callee:
    """One call of a line, from its INVITE to its end."""

    def __init__(
        self,
        line: CalleeOwner,
        wire: LineWire,
        invite: Served,
        call_id: str,
        number: int,
        slot: int,
        describer: Describer,
        answer: tuple[str, Agreement] | None,
    ) -> None:
        """`answer` is ours to the INVITE's offer, None when it has none."""
        request = invite.request
        self.call_id = call_id
        self.number = number
        self.slot = slot
        self.media: CallMedia | None = None
        self.answered = False
        self.confirmed = False
        self.over = False
        ringing = response(request, invite.flow, 180)
        self.tag = to_tag(ringing)
        self.key = (request.call_id, request.from_address.parameters["tag"] or "", self.tag)
        """Call-ID, the caller's tag and ours"""
        self._line = line
        self._wire = wire
        self._invite = invite
        self._describer = describer
        self._answer = answer
        self._state = DialogState(
            request.call_id,
            local=ringing.headers["To"],
            remote=request.headers["From"],
            target=request.contact[0].uri,
            routes=list(request.headers.getlist("Record-Route")),
        )
        self._server = DialogServer(self, self._state, describer, ALLOW, request.cseq.sequence)
        self._open = invite
        """the last INVITE that was answered with 2xx and whose ACK is awaited"""
        self._offered: str | None = None
        """our description, when it was an offer whose answer comes with the ACK"""
        self._refreshing = False
        """an INVITE of ours has no final answer yet"""
        self._direction = (False, False)
        self._repeat = Repeat()
        self._patience = Timer()
        self._provisional = Provisional(invite, self._unheard)
        self._session = SessionTimer(self._refresh, self._vanished)
        self._referral = Referral(self._transferred)

    @property
    def codec(self) -> str | None:
        """What is spoken; None until sound is up."""
        return None if self.media is None else self.media.agreed.codec

    # ── what the hall wants ──────────────────────────────────────────────────────────────────────────

    def ring(self) -> None:
        """180 Ringing, reliably where the caller insists (RFC 3262)."""
        if self.answered or self.over:
            return
        if not self._provisional.pending:
            self._inform(180, "", reliably="100rel" in self._invite.request.require)

    def progress(self) -> bool:
        """183 with our answer: sound goes before the call is taken. False: its INVITE had no offer.

        Reliably where the caller can take that (RFC 3262 §3), so that both know the answer for good.
        """
        if self.answered or self.over or self._answer is None:
            return False
        if self.media is None:
            self.agree(self._answer[1])
            if not self._provisional.afterwards(self._describe_early):
                self._describe_early()
        return True

    def _describe_early(self) -> None:
        asked = self._invite.request
        self._inform(183, self._describer.again(), reliably="100rel" in {*asked.require, *asked.supported})

    def _inform(self, status: int, body: str, *, reliably: bool) -> None:
        answer = self._response(self._invite, status, {"Contact": self._wire.contact(), "Allow": ALLOW})
        describe(answer, body)
        self._provisional.send(answer, reliably=reliably)

    def _unheard(self) -> None:
        self.hang_up(CallEnding(End.FAILED, "a provisional answer was never acknowledged"), 504)

    def accept(self) -> None:
        """200 OK, repeated until the caller's ACK comes (§13.3.1.4).

        It waits for the PRACK of a 183 that holds our answer (RFC 3262 §3).
        """
        early = self.media is not None
        if self.answered or self.over or (early and self._provisional.afterwards(self.accept)):
            return
        self.answered = True
        self._provisional.cancel()
        if self._answer is None:
            body = self.own_offer()
        else:
            body, agreed = self._answer
        self._accept(self._invite, self._describer.again() if early else body)
        if self._answer is not None and not early:
            self.agree(agreed)

    def hang_up(self, how: CallEnding, status: int | None = None) -> None:
        """BYE, or before the answer `status` (480 where none is given)."""
        if self.over:
            return
        if self.answered:
            self._ask("BYE", lambda _: None, LATE if how.end is End.UNACKNOWLEDGED else None)
        else:
            self._invite.answer(self._response(self._invite, status or 480))
        self._end(how)

    def dial(self, digits: str) -> None:
        """Keys. Raises `ValueError` where there is no sound yet, or the caller has no telephone-event."""
        if self.media is None or self.media.agreed.event is None:
            raise ValueError("the caller's telephone has agreed on no keys (telephone-event)")
        self.media.sender.keys.dial(digits)

    def refer(self, target: str) -> None:
        """Asks the caller to call somebody else (RFC 3515). Raises `ValueError` before the call is up."""
        if not self.confirmed:
            raise ValueError("it is not up yet")
        self._ask("REFER", self._referral.answered, self._referral.headers(target, self._wire.contact()))

    def _transferred(self, status: int, reason: str) -> None:
        if not self.over:
            self._line.transferred(self, status, reason)

    # ── what the caller says ─────────────────────────────────────────────────────────────────────────

    def cancelled(self) -> None:
        """CANCEL came in time."""
        if not self.answered and not self.over:
            self._invite.answer(self._response(self._invite, 487))
            self._end(CallEnding(End.CANCELLED))

    def acknowledged(self, ack: Request) -> None:
        """The ACK of the last INVITE that we took."""
        if self.over or ack.cseq.sequence != self._open.request.cseq.sequence:
            return
        self._repeat.cancel()
        self._patience.cancel()
        if self._offered is not None:
            self._offered = None
            try:
                if ack.body or self.media is None:  # without an answer what held before holds on
                    self.agree(self._describer.answered(ack.body.decode(errors="replace")))
            except NoAgreement as error:
                self.hang_up(CallEnding(End.FAILED, str(error)))
                return
        if not self.confirmed:
            self.confirmed = True
            self._line.confirmed(self)

    def take(self, served: Served) -> None:
        """A request of the caller's within the dialog; neither ACK nor CANCEL, and not a repeat."""
        self._server.take(served)

    def take_own(self, served: Served) -> bool:
        """See `DialogSide`: NOTIFY and PRACK."""
        match served.request.method:
            case "NOTIFY":
                self._referral.notified(served)
            case "PRACK":
                self._prack(served)
            case _:
                return False
        return True

    def _prack(self, served: Served) -> None:
        """The caller has a provisional response of ours; it may offer something else now (RFC 3262 §5)."""
        if not self._provisional.names(served.request):
            served.answer(self._response(served, 481))
            return
        body, agreed = "", None
        if served.request.body and self.media is not None:
            if (read := self._server.read_offer(served)) is None:
                return
            body, agreed = read
        taken = self._response(served, 200)
        describe(taken, body)
        served.answer(taken)
        if agreed is not None:
            self.agree(agreed)
        self._provisional.arrived()

    def hung_up(self) -> None:
        """See `DialogSide`."""
        if not self.answered:
            self._invite.answer(self._response(self._invite, 487))
        self._end(CallEnding(End.CALLER))

    def pressed(self, digit: str) -> None:
        """See `DialogSide`."""
        self._line.pressed_by(self, digit, "info")

    # ── offers and answers ───────────────────────────────────────────────────────────────────────────

    def refused_offer(self, served: Served) -> Response | None:
        """See `DialogSide`."""
        request = served.request
        if SessionTimer.too_short(request):
            return too_short(served)
        early = self._provisional.acknowledged and self.media is not None and request.method == "UPDATE"
        if not (self.answered or early) and (request.body or request.method == "INVITE"):
            return self._response(served, 500, {"Retry-After": "1"})  # RFC 3311 §5.2
        return self._response(served, 491) if self._crosses(request) else None

    def _crosses(self, request: Request) -> bool:
        """Whether an offer of ours waits for its answer, and this is another one (§14.2, RFC 3311 §5.2)."""
        if request.method == "INVITE":
            return self._refreshing
        return bool(request.body) and (self._refreshing or self._offered is not None)

    def own_offer(self) -> str:
        """See `DialogSide`."""
        self._offered = self._describer.offer()
        return self._offered

    def take_offer(self, served: Served, body: str) -> None:
        """See `DialogSide`."""
        if served.request.method == "INVITE":
            self._accept(served, body)
        else:
            served.answer(self._ok(served, body))

    def agree(self, agreed: Agreement) -> None:
        """See `DialogSide`."""
        if self.media is None:
            self.media = self._line.media_up(self, agreed)
        else:
            self.media.agree(agreed)
        direction = (agreed.sending, agreed.receiving)
        if direction != self._direction:
            self._direction = direction
            if self.confirmed:  # what a call begins with is not a hold, nor the end of one
                self._line.turned(self, *direction)

    def _accept(self, served: Served, body: str) -> None:
        """200 to an INVITE, until its ACK comes."""
        self._open = served
        ok = self._ok(served, body)
        served.answer(ok)
        self._repeat.start(served.flow, ok)
        self._patience.start(LINGER_S, partial(self.hang_up, CallEnding(End.UNACKNOWLEDGED)))

    def _ok(self, served: Served, body: str) -> Response:
        extra = {"Contact": self._wire.contact(), "Allow": ALLOW, "Supported": SUPPORTED}
        ok = self._response(served, 200, {**extra, **self._session.agree(served.request)})
        describe(ok, body)
        return ok

    def _vanished(self) -> None:
        self.hang_up(CallEnding(End.FAILED, "the caller did not refresh its session"))

    def _refresh(self) -> None:
        """Our turn: the description that holds, once more."""
        self._refreshing = True
        extra = {"Session-Expires": f"{2 * LEAST_S};refresher=uac", "Supported": SUPPORTED, "Allow": ALLOW}
        self._ask("INVITE", self._refreshed, extra, self._describer.again())

    def _refreshed(self, answer: Response | None) -> None:
        if self.over or (answer is not None and answer.code < 200):
            return
        self._refreshing = False
        if answer is None or answer.code in (408, 481):
            self._vanished()
        elif answer.code == 491:
            self._session.again(0.01 * secrets.randbelow(GLARE_STEPS + 1))
        elif answer.code >= 300:
            self._session.start(round(2 * AGAIN_S), ours=True)
        else:
            self._wire.send_ack(self._state.request("ACK", answer.cseq.sequence), self.flow)
            with contextlib.suppress(NoAgreement):  # then what held before holds on
                self.agree(self._describer.answered(answer.body.decode(errors="replace")))
            self._session.start(2 * LEAST_S, ours=True)

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────

    def _response(self, served: Served, status: int, extra: Mapping[str, str] | None = None) -> Response:
        answer = response(served.request, served.flow, status, extra)
        if served is self._invite and self._state.routes:
            answer.headers.setlist("Record-Route", self._state.routes)
        return answer

    def _ask(
        self,
        method: str,
        answered: Callable[[Response | None], None],
        extra: Mapping[str, str] | None = None,
        body: str = "",
    ) -> None:
        request = self._state.request(method)
        request.headers.set("Contact", self._wire.contact())
        for name, value in (extra or {}).items():
            request.headers.set(name, value)
        describe(request, body)
        self._wire.send(request, self.flow, answered)

    @property
    def flow(self) -> Flow:
        """To the first proxy on the way, which is the edge as it is now."""
        first = self._state.routes[0].partition(",")[0] if self._state.routes else ""
        uri = Address.read(first).uri if first else self._state.target
        return self._wire.flow_to(uri, self._invite.flow)

    def _end(self, how: CallEnding) -> None:
        self.over = True
        self._repeat.cancel()
        self._patience.cancel()
        self._provisional.cancel()
        self._session.stop()
        self._line.ended(self, how)
