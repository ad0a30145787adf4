"""What the other side asks within a dialog, whichever side called (RFC 3261 §12.2.2, §14.2, §15.1.2).

Each request gets its answer here: BYE, offers by INVITE and UPDATE (RFC 3311), keys by INFO, OPTIONS. What
one side alone knows (PRACK, NOTIFY), and what becomes of the call, is the side's: `DialogSide`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from gateway.edge.dialogs.transaction import Served
from gateway.edge.grammar import dtmf_info
from gateway.edge.grammar.header import reason
from gateway.edge.grammar.responses import response
from gateway.edge.grammar.session_part import SDP
from gateway.edge.grammar.sip_message import Request, Response
from gateway.rtp.agreement import Agreement, Describer
from gateway.rtp.described_audio import NoAgreement
from gateway.rtp.dialogs.dialog_state import DialogState


class DialogSide(Protocol):
    """A call, as the server of its dialog sees it."""

    def hung_up(self) -> None:
        """A BYE came, and has its 200."""

    def pressed(self, digit: str) -> None:
        """A key by INFO."""

    def refused_offer(self, served: Served) -> Response | None:
        """The answer to an INVITE or UPDATE that cannot be taken now; None: it can."""

    def own_offer(self) -> str:
        """Our description, for an INVITE that has none: its answer comes with the ACK."""

    def take_offer(self, served: Served, body: str) -> None:
        """Sends 200, with our description where there is one."""

    def agree(self, agreed: Agreement) -> None:
        """This holds from now on; the 200 that says so is sent."""

    def take_own(self, served: Served) -> bool:
        """Answers a request that this side alone knows. False: it does not know it."""


class DialogServer:
    """One dialog's. `last` is the CSeq of the request that opened it, where the other side sent that."""

    def __init__(
        self, side: DialogSide, state: DialogState, describer: Describer, allow: str, last: int = -1
    ) -> None:
        self._side = side
        self._state = state
        self._describer = describer
        self._allow = allow
        self._last = last

    def take(self, served: Served) -> None:
        """A request within the dialog; neither ACK nor CANCEL, and not a repeat."""
        request = served.request
        if request.cseq.sequence <= self._last:
            _answer(served, 500)
            return
        self._last = request.cseq.sequence
        match request.method:
            case "BYE":
                _answer(served, 200)
                self._side.hung_up()
            case "INVITE" | "UPDATE":
                self._offered(served)
            case "INFO":
                self._info(served)
            case "OPTIONS":
                _answer(served, 200, {"Allow": self._allow, "Accept": SDP})
            case "REFER":
                _answer(served, 603)  # who calls whom is the plan's to say
            case _:
                if not self._side.take_own(served):
                    _answer(served, 405, {"Allow": self._allow})

    def read_offer(self, served: Served) -> tuple[str, Agreement] | None:
        """Our answer to a request's offer; None when nothing fits, and 488 has said so."""
        try:
            return self._describer.answer(_text(served.request))
        except NoAgreement as error:
            _answer(served, 488, {"Reason": reason(488, str(error))})
            return None

    def _offered(self, served: Served) -> None:
        """An offer, or none: who sends an INVITE without one wants ours (§14.2)."""
        request, agreed, body = served.request, None, ""
        if (refusal := self._side.refused_offer(served)) is not None:
            served.answer(refusal)
            return
        if request.body:
            if (read := self.read_offer(served)) is None:
                return
            body, agreed = read
        elif request.method == "INVITE":
            body = self._side.own_offer()
        if request.contact:
            self._state.target = request.contact[0].uri
        self._side.take_offer(served, body)
        if agreed is not None:
            self._side.agree(agreed)

    def _info(self, served: Served) -> None:
        kind = dtmf_info.media_type(served.request.headers.get("Content-Type"))
        try:
            digit = dtmf_info.pressed(kind, served.request.body) if kind in dtmf_info.DTMF_TYPES else ""
        except ValueError:
            _answer(served, 400)
            return
        _answer(served, 200)
        if digit:
            self._side.pressed(digit)


def _text(request: Request) -> str:
    return request.body.decode(errors="replace")


def _answer(served: Served, status: int, extra: Mapping[str, str] | None = None) -> None:
    served.answer(response(served.request, served.flow, status, extra))
