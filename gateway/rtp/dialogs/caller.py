"""The end of a SIP dialog that calls (RFC 3261 §12, §13, §14, §15): a target of the dialplan, for a caller.

The INVITE names the target as the plan does, and goes to the edge, which knows who that is, logs in, tries
other addresses and follows redirections: what comes back is one dialog with one final answer.
"""

from __future__ import annotations

import secrets
from functools import partial
from typing import Final, Protocol

from gateway.edge.dialogs.transaction import Sent, Served, Timer, ack_of
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.message import to_tag
from gateway.edge.grammar.responses import ALLOW_OUT, response
from gateway.edge.grammar.sdes import SrtpRule
from gateway.edge.grammar.sip_message import Request, Response
from gateway.edge.grammar.uri import URI
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.line_signature import target_signature
from gateway.rtp.agreement import Agreement, Describer
from gateway.rtp.described_audio import NoAgreement
from gateway.rtp.dialogs.dialog_server import DialogServer
from gateway.rtp.dialogs.dialog_state import DialogState, describe
from gateway.rtp.dialogs.line_wire import LineWire
from gateway.rtp.dialogs.session_timer import LEAST_S, USUAL_S, SessionTimer, too_short
from gateway.rtp.media.call_media import CallMedia

RULES: Final[tuple[SrtpRule, ...]] = ("off", "optional", "required")
NOBODY_ANSWERS: Final = (408, "Request Timeout")
AGAIN_S: Final = 5.0
"""After a refresh of ours that was refused for now."""
GLARE_S: Final = 2.1
GLARE_STEPS: Final = 190
"""Of 10 ms more: 2.1 to 4 s after two offers have crossed, for who owns the Call-ID (RFC 3261 §14.1)."""


class TargetOwner(Protocol):
    """The line, as a call to a target sees it."""

    def media_up(self, call: TargetCall, agreed: Agreement) -> CallMedia:
        """The target's sound begins: from now on caller and target hear each other."""

    def rings(self, call: TargetCall, status: int, early: bool) -> None:
        """The target rings, perhaps with sound of its own."""

    def answered(self, call: TargetCall) -> None:
        """It answered with 2xx."""

    def refused(self, call: TargetCall, status: int, reason: str) -> None:
        """It will not answer; nothing is asked of the call any more."""

    def ended(self, call: TargetCall, how: CallEnding) -> None:
        """A call that was answered is over; nothing is asked of it any more."""

    def pressed(self, media: CallMedia, digit: str) -> None:
        """The target pressed a key."""


class TargetCall:
    """One call of a line's to a target, from its INVITE to its end."""

    def __init__(
        self,
        line: TargetOwner,
        wire: LineWire,
        call_id: str,
        target: str,
        describer: Describer,
        flow: Flow,
        token: str,
    ) -> None:
        """`call_id` is the caller's call; `flow` leads to the edge. `token` is the boot's."""
        self.call_id = call_id
        self.target = target
        self.media: CallMedia | None = None
        self.up = False
        """it was answered"""
        self.over = False
        self._line = line
        self._wire = wire
        self._describer = describer
        self._flow = flow
        self._tag = secrets.token_hex(8)
        self._remote_tag = ""
        self._state = DialogState(
            secrets.token_hex(16),
            local=f"<sip:voicegate@voicegate.invalid>;tag={self._tag}",
            remote=f"<sip:{target}@voicegate.invalid>",
            target=URI.read(f"sip:{target}@voicegate.invalid"),
        )
        self._server = DialogServer(self, self._state, describer, ALLOW_OUT)
        self._token = token
        self._sent: Sent | None = None
        self._patience = Timer()
        self._session = SessionTimer(self._refresh, self._vanished)
        self._refreshing = False
        """an INVITE of ours within the dialog has no final answer yet"""

    @property
    def key(self) -> tuple[str, str, str]:
        """Call-ID, the target's tag and ours, as requests of the target have them."""
        return self._state.call_id, self._remote_tag, self._tag

    @property
    def sip_call_id(self) -> str:
        """By which its first answers are found."""
        return self._state.call_id

    # ── the call ─────────────────────────────────────────────────────────────────────────────────────

    def dial(self, within_s: float) -> None:
        """Sends the INVITE; the target has so long to answer."""
        self._patience.start(within_s, partial(self.give_up, 408, "nobody answered in time"))
        self._invite()

    def _invite(self) -> None:
        """Offers sound, encrypted as the edge has said by then."""
        signed = target_signature(self._token, self.call_id, self.target, self._state.call_id)
        invite = self._state.request("INVITE")
        for name, value in {
            "X-VG-SRTP": self._describer.srtp,
            **self._own_headers(str(USUAL_S)),
            "X-VG-Call": self.call_id,
            "X-VG-Target": self.target,
            "X-VG-Auth": signed,
        }.items():
            invite.headers.set(name, value)
        describe(invite, self._describer.offer())
        self._sent = self._wire.invite(invite, self._flow, self._invite_answered)

    def _own_headers(self, expires: str) -> dict[str, str]:
        """Of each INVITE of ours."""
        contact, least = self._wire.contact(), str(LEAST_S)
        timer = {"Supported": "timer", "Session-Expires": expires, "Min-SE": least}
        return {"Contact": contact, "Allow": ALLOW_OUT, **timer}

    def give_up(self, status: int, reason: str) -> None:
        """The call is not wanted any more: CANCEL, or BYE when the answer was there already."""
        if self.over:
            return
        if self.up:
            self.hang_up(CallEnding(End.CALLER))
            return
        if self._sent is not None:
            self._wire.cancel(self._sent)
        self._refuse(status, reason)

    def hang_up(self, how: CallEnding) -> None:
        """BYE to a target that has answered."""
        if self.over:
            return
        self._wire.send(self._state.request("BYE"), self._flow, lambda _: None)
        self._end(how)

    def _invite_answered(self, answer: Response | None) -> None:
        if answer is None:
            self._refuse(*NOBODY_ANSWERS)
        elif answer.code < 200:
            self._provisional(answer)
        elif answer.code >= 300:
            if self._sent is not None:
                self._flow.send(bytes(ack_of(self._sent.request, answer)))
            rule = answer.headers.get("X-VG-SRTP")
            if rule in RULES and rule != self._describer.srtp and not self.over and self._state.sequence == 1:
                self._describer.srtp = rule
                self._invite()
                return
            self._refuse(answer.code, answer.phrase)
        else:
            self._accepted(answer)

    def _provisional(self, answer: Response) -> None:
        if self.over or self.up or answer.code == 100:
            return
        early = False
        if answer.body:
            self._learn(answer)
            early = self._heard(answer)
        self._line.rings(self, answer.code, early or self.media is not None)

    def _accepted(self, answer: Response) -> None:
        """A 2xx, perhaps repeated since our ACK was lost."""
        if not self.over and not self.up:
            self._learn(answer)
        self._wire.send_ack(self._state.request("ACK", answer.cseq.sequence), self._flow)
        if self.up:
            return
        if self.over:  # it crossed our CANCEL
            self._wire.send(self._state.request("BYE"), self._flow, lambda _: None)
            return
        self.up = True
        self._patience.cancel()
        if not self._heard(answer) and self.media is None:
            self._wire.send(self._state.request("BYE"), self._flow, lambda _: None)
            self._refuse(488, "the target's answer has no sound that fits")
            return
        self._session.agreed(answer)
        self._line.answered(self)

    # ── its session (RFC 4028) ───────────────────────────────────────────────────────────────────────

    def _refresh(self) -> None:
        """Our turn: the description that holds, once more."""
        self._refreshing = True
        invite = self._state.request("INVITE")
        for name, value in self._own_headers(f"{USUAL_S};refresher=uac").items():
            invite.headers.set(name, value)
        describe(invite, self._describer.again())
        self._wire.send(invite, self._flow, self._refreshed)

    def _refreshed(self, answer: Response | None) -> None:
        if self.over or (answer is not None and answer.code < 200):
            return
        self._refreshing = False
        if answer is None or answer.code in (408, 481):
            self._vanished()
        elif answer.code == 491:
            self._session.again(GLARE_S + 0.01 * secrets.randbelow(GLARE_STEPS + 1))
        elif answer.code >= 300:
            self._session.again(AGAIN_S)
        else:
            self._wire.send_ack(self._state.request("ACK", answer.cseq.sequence), self._flow)
            self._heard(answer)  # what does not fit changes nothing
            self._session.agreed(answer)

    def _vanished(self) -> None:
        self.hang_up(CallEnding(End.TRANSFERRED, "the target did not refresh its session"))

    # ── offers and answers ───────────────────────────────────────────────────────────────────────────

    def _learn(self, answer: Response) -> None:
        self._state.remote, self._remote_tag = answer.headers["To"], to_tag(answer)
        if answer.contact:
            self._state.target = answer.contact[0].uri
        if routes := answer.headers.getlist("Record-Route"):
            self._state.routes = list(reversed(routes))

    def _heard(self, answer: Response) -> bool:
        """Whether there is something to talk in."""
        if not answer.body:
            return False
        try:
            agreed = self._describer.answered(answer.body.decode(errors="replace"))
        except NoAgreement:
            return False
        self.agree(agreed)
        return True

    def agree(self, agreed: Agreement) -> None:
        """See `DialogSide`."""
        if self.media is None:
            self.media = self._line.media_up(self, agreed)
        else:
            self.media.agree(agreed)

    # ── what the target asks ─────────────────────────────────────────────────────────────────────────

    def take(self, served: Served) -> None:
        """A request of the target's within the dialog; neither ACK nor CANCEL, and not a repeat."""
        self._server.take(served)

    def take_own(self, served: Served) -> bool:
        """See `DialogSide`."""
        return False

    def hung_up(self) -> None:
        """See `DialogSide`."""
        self._end(CallEnding(End.TRANSFERRED, "the target hung up"))

    def pressed(self, digit: str) -> None:
        """See `DialogSide`."""
        if self.media is not None:
            self._line.pressed(self.media, digit)

    def acknowledged(self, ack: Request) -> None:
        """The ACK of an INVITE of the target's; its body answers ours, when that was an offer."""
        if ack.body and not self.over:
            try:
                self.agree(self._describer.answered(ack.body.decode(errors="replace")))
            except NoAgreement as error:
                self.hang_up(CallEnding(End.FAILED, str(error)))

    def refused_offer(self, served: Served) -> Response | None:
        """See `DialogSide`."""
        if SessionTimer.too_short(served.request):
            return too_short(served)
        crosses = self._refreshing and (served.request.body or served.request.method == "INVITE")
        return response(served.request, served.flow, 491) if crosses or not self.up else None

    def own_offer(self) -> str:
        """See `DialogSide`."""
        return self._describer.offer()

    def take_offer(self, served: Served, body: str) -> None:
        """See `DialogSide`."""
        extra = {"Contact": self._wire.contact(), "Allow": ALLOW_OUT, "Supported": "timer"}
        extra |= self._session.agree(served.request)
        ok = response(served.request, served.flow, 200, extra)
        describe(ok, body)
        served.answer(ok)

    # ── its end ──────────────────────────────────────────────────────────────────────────────────────

    def _refuse(self, status: int, reason: str) -> None:
        if not self.over:
            self._close()
            self._line.refused(self, status, reason)

    def _end(self, how: CallEnding) -> None:
        if not self.over:
            self._close()
            self._line.ended(self, how)

    def _close(self) -> None:
        self.over = True
        self._patience.cancel()
        self._session.stop()
