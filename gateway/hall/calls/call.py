"""One call's life in the hall, and everything that belongs to it.

    offered ── started ── answered ── confirmed ── ended
    (front)    (line)     (hall)      (line)       (anyone)

A `Call` is made of parts, each of which alone writes what is in it: `line` (what the line told), `seat` (what
the 20 ms pass keeps), `ear` (the caller's sound, and what the verbs want of it), `speech` and `playout` (what
is said, and what was heard of it), `inbox` (what happens, to the end), `licence` (whether the voice may be
heard), `notes` (what is noted of what was said). What the call does is `perform`, an ordinary coroutine
that reads `inbox`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol

from consent.grants.grant import VoiceGrant
from gateway.dialplan import Disclose, Disclosure, Route
from gateway.dialplan.disclosure import spoken_language
from gateway.dialplan.plan_facts import fill, header_facts
from gateway.dialplan.routes import persons_voice
from gateway.errors import RpcError
from gateway.hall.calls.call_ear import CallEar
from gateway.hall.calls.seat import Seat
from gateway.hall.dialogue.call_notes import CallNotes
from gateway.hall.dialogue.speech import Speech
from gateway.hall.parts.call_line import CallLine
from gateway.hall.parts.clocks import Clocks
from gateway.hall.parts.inbox import CallEnded, EngineGone, Inbox
from gateway.hall.parts.licence import Licence, Term
from gateway.hall.parts.playout import Item, Playout
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.envelope import A, Ask, Tell
from gateway.ipc.hall_messages import CallOffer, LiveCall, MarkFailed, SpokenUnder, VoiceMuted
from gateway.ipc.line_messages import KeyWay, ShownState
from gateway.store.call_events import CallData, CallDisclosed, ConsentRefused, MarkAlarm
from gateway.store.call_session import Session
from gateway.store.sound_track import LONGEST_S, MAX_DUCKS, point_row
from watermark.detect import Detection

STARTED_WITHIN_S: Final = 10.0
"""A call that no line reports within this is forgotten: its INVITE never reached one."""
MUTED_FOR_S: Final = 3.0
"""Nobody listens longer than this to a voice that may not be heard any more."""
NO_MARK: Final = "no mark"
"""Why a call falls silent whose sound does not carry its mark."""
HOLD_AFTER_S: Final = 1.2
"""Silence after which the stock voice asks for a moment when the call goes on as another route."""
CONFIRMED_WITHIN_S: Final = 32.5
"""RFC 3261 §13.3.1.4: an answer that is not acknowledged in 64 * T1 ends the call. Its line and the edge wait
as long and come first; this is for a line that does not."""


class AskFront(Protocol):
    """The front's answer to a question. Raises `RpcError` when it refuses, or is away."""

    async def __call__(self, message: Ask[A], timeout_s: float = ...) -> A: ...


@dataclass(eq=False, slots=True)
class Call:
    """One call: its parts, and where it is on its way."""

    offer: CallOffer
    seat: Seat
    line: CallLine
    ear: CallEar
    playout: Playout
    speech: Speech
    inbox: Inbox
    licence: Licence
    session: Session
    notes: CallNotes
    tell_front: Callable[[Tell], None]
    ask_front: AskFront
    log: Any
    """bound to the call's id"""
    resumed: bool = False
    """taken up after a hall's death: the caller was greeted already"""
    disclosed: list[Disclosure] = field(default_factory=list)
    """those that the caller has heard whole, before a hall's death too"""
    clocks: Clocks = time
    state: str = field(default="offered", init=False)

    @property
    def id(self) -> str:
        return self.offer.call_id

    @property
    def route(self) -> Route:
        """The one that it follows now."""
        return self.licence.route

    @property
    def live(self) -> LiveCall:
        """What another front is told of it."""
        offer = self.offer
        return LiveCall(self.id, self.route, offer.at, self.state, offer.plan, offer.routes[0].name)

    @property
    def said(self) -> int:
        """What the caller was sent under the call's grants, samples at 24 kHz."""
        return self.seat.spoken_samples - self.playout.own_samples

    @property
    def spoken(self) -> tuple[SpokenUnder, ...]:
        """What the caller was sent under each of the call's grants."""
        return self.licence.spoken(self.said)

    def words(self, text: str, facts: Mapping[str, str] | None = None) -> str:
        """A dialplan's text with its facts and the clock of the route's zone put in.

        `facts` are a conversation's, which knows nothing that a peer wrote; other texts may have its headers.
        """
        told = header_facts(text, self.offer.facts.headers) if facts is None else facts
        return fill(text, told, self.route.local())

    # ── where it is on its way ───────────────────────────────────────────────────────────────────────

    def move(self, state: str) -> None:
        """Enters a state and says so everywhere."""
        self.state = state
        self.session.state(state)
        self.log.info("call." + state)

    def answered(self) -> None:
        """The line has answered; idempotent, since a browser may acknowledge before the line says so."""
        if self.state not in ("answered", "confirmed"):
            self.move("answered")

    def confirm(self, codec: str | None) -> None:
        """The caller has acknowledged the answer; idempotent."""
        if not self.line.confirmed.is_set():
            self.answered()
            self.session.event("confirmed", codec=codec)
            self.ear.restart_silence()
            self.line.confirm()
            self.move("confirmed")

    def was_confirmed(self) -> None:
        """A hall that died knew it already, and told it."""
        if not self.line.confirmed.is_set():
            self.state = "confirmed"
            self.ear.restart_silence()
            self.line.confirm()

    def hold(self, *, sending: bool, receiving: bool) -> None:
        """The caller holds the call, or comes back: directions as the line has them now."""
        self.ear.forget_turn()
        self.come_back()
        self.session.event("hold", sending=sending, receiving=receiving)
        if sending:
            self.show_state()
        else:
            self.line.show(ShownState("held"))

    def duck(self) -> None:
        """The caller begins to speak: our voice is softer, until it comes back or is cut."""
        self.seat.duck(self.clocks.monotonic())

    def come_back(self, *, cut: bool = False) -> None:
        """Our voice is as loud as it was made. `cut`: what was ducked is not said any more, since the caller
        went on."""
        since = self.seat.come_back()
        if since is not None and self.seat.ducks <= MAX_DUCKS:
            self.keep_point("ducks", {"seconds": round(self.clocks.monotonic() - since, 2), "cut": cut})

    def show_state(self) -> None:
        """Tells the caller's page what the voice does now."""
        if self.playout.heard_now:
            state = "speaking" if self.ear.interruptible else "announcing"
        elif self.inbox.refused is not None:
            return  # the last words were said: nobody listens
        else:
            state = "thinking" if self.speech.owes_reply else "listening"
        self.line.show(ShownState(state))

    def press(self, digit: str, way: KeyWay) -> None:
        """The caller pressed a key; verbs learn of each press once, by however many ways it came."""
        self.inbox.press(digit, way, self.clocks.monotonic())

    def leave_for(self, route: Route) -> None:
        """The call goes on as `route`: what was to be said in the one before is not said any more.

        Until there is a grant for this one, only the stock voice may say something. `Grants.follow` asks for
        the grant.
        """
        self.licence.follow(route, self.said)
        self.speech.leave(route)
        asyncio.get_running_loop().call_later(HOLD_AFTER_S, self._hold, self.licence.term)

    def begin_again(self) -> None:
        """The same route goes on under another grant, for which `Grants.fresh` asks."""
        self.licence.follow(self.route, self.said)

    def hand_over(self) -> None:
        """A target has the caller, and the line joins the two: the voice is not heard any more. Its grant and
        its session with the engine are over, and no other one is asked for."""
        self.begin_again()
        self.speech.leave(self.route)
        self.line.hand_over()
        self.move("transferred")

    def _hold(self, term: Term) -> None:
        """The stock voice asks for a moment when nothing of a route that was just begun is heard yet."""
        if self.licence.term is not term or self.licence.muted is not None or self.inbox.ended.is_set():
            return
        if not self.told or term.route.voiceless:  # no word before the caller knows that a machine speaks
            return
        if self.speech.waits or (not term.granted.is_set() and not self.playout.busy):
            self.speech.own.prompt(term.route.hold_text)

    @property
    def persons_voice(self) -> str:
        """The person's voice in which the call speaks now; empty for the stock voice."""
        grant = self.licence.grant
        return persons_voice(grant.voice if grant is not None else self.route.voice)

    @property
    def told(self) -> bool:
        """The caller knows that a machine speaks, or is on a route that need not say it."""
        return bool(self.disclosed) or not any(isinstance(verb, Disclose) for verb in self.route.do)

    @property
    def last_disclosed(self) -> Disclosure | None:
        """What the caller was told last, in the route's language if there is that; None: nothing yet."""
        own = [told for told in self.disclosed if told.language == spoken_language(self.route.language)]
        return next(reversed(own or self.disclosed), None)

    def disclose(self, told: Disclosure) -> None:
        """The caller has heard this disclosure from its first word to its last."""
        self.disclosed.append(told)
        self.session.note(disclosed=[asdict(one) for one in self.disclosed])
        self.session.tell(
            CallDisclosed(
                principal=told.principal, language=told.language, voice=told.voice or None, text=told.text
            ),
            important=True,
        )

    def end(self, how: CallEnding) -> None:
        """The call is over; idempotent, the first reason stays."""
        self.inbox.end(how)

    def broke(self, where: str) -> None:
        """An error of ours, inside an `except`: this call ends, the others go on."""
        if not self.inbox.ended.is_set():
            self.log.exception("call.failed", where=where)
            self.end(CallEnding(End.OUR_ERROR))

    # ── what the verbs wait for ──────────────────────────────────────────────────────────────────────

    async def rendered(self, item: Item, within_s: float) -> None:
        """Waits until `item` can be played, the engine refuses, or time is up. Raises `CallEnded`."""
        await self.inbox.until_or_gone(item.ready, within_s)

    async def played(self, item: Item) -> None:
        """Waits until `item` was heard or cut; in a muted call, where nothing more is heard, until its end.

        Raises `CallEnded`, and `EngineGone` when the item will never be said.
        """
        inbox = self.inbox
        await inbox.until_or_gone(item.done)
        if self.licence.muted is None:
            if inbox.refused is not None and not item.queued and not item.cut:
                raise EngineGone(inbox.refused)
            await inbox.until(item.done.wait())
        if self.licence.muted is not None:
            await inbox.until(inbox.ended.wait())

    async def ask_line(self, message: Ask[A]) -> A:
        """Asks the call's line. Raises `CallEnded` when the line is gone."""
        try:
            return await self.line.ask(message)
        except RpcError as error:
            self.log.warning("line.refused", method=message.wire, error=str(error))
            self.end(CallEnding(End.FAILED, str(error)))
            raise CallEnded(self.inbox.how) from None

    # ── its voice ────────────────────────────────────────────────────────────────────────────────────

    def use_grant(self, grant: VoiceGrant) -> None:
        """A verified grant: the route's first one, or a renewed one that the engine must learn of.

        Raises `GrantRefused` when it is not for the route that the call follows.
        """
        renewed = self.licence.use(grant, self.said)
        self.keep_point("grants", {"until": grant.expires_at, "renewed": renewed})
        if renewed:
            self.speech.renew(grant.token)
            return
        scope = grant.scope
        self.session.event(
            "grant", grant=grant.jti, voice=scope.voice, purpose=scope.purpose, route=scope.dialplan,
            language=scope.language, until=round(grant.expires_at, 3),
        )  # fmt: skip

    def mute(self, reason: str) -> None:
        """The voice may not be heard any more: the leg plays silence from the next frame on, what waits to
        be said is forgotten, and the call ends in `MUTED_FOR_S`."""
        if self.licence.mute(reason):
            self.speech.cut()
            self.log.warning("voice.muted", reason=reason)
            event: CallData = MarkAlarm(reason="not found")
            if reason != NO_MARK:
                event = ConsentRefused(reason=reason, voice=self.persons_voice or None)
            self.session.tell(event, important=True)
            self.tell_front(VoiceMuted(self.id, reason))
            how = CallEnding(End.VOICE_REFUSED, reason)
            asyncio.get_running_loop().call_later(MUTED_FOR_S, self.end, how)

    def hear_echo(self, delay_s: float) -> None:
        """The caller's telephone sends us our own voice: it is taken out from now on."""
        self.log.info("call.echo", delay_s=round(delay_s, 3))
        self.session.event("echo", delay_s=round(delay_s, 3))

    def judge_mark(self, verdict: Detection) -> None:
        """What the call was sent was looked into: without its mark, it falls silent."""
        self.keep_point("marks", {"score": round(verdict.score, 1), "found": verdict.detected})
        if verdict.detected:
            return
        self.log.error("mark.not_found", p_value=verdict.p_value, score=round(verdict.score, 1))
        self.mute(NO_MARK)

    def keep_sound(self, row: str) -> None:
        """Some seconds of the call's sound track are over."""
        self.session.sound(row)

    def keep_point(self, kind: str, facts: Mapping[str, object]) -> None:
        """A point of the call's sound track (`gateway.store.sound_track.POINTS`), as long as it has one."""
        now = self.clocks.time()
        row = point_row(now, kind, facts) if now - self.offer.at <= LONGEST_S else None
        if row is not None:
            self.session.sound(row)

    def alarm(self, error: Exception) -> None:
        """A frame could not be marked and went out as silence."""
        self.log.error("mark.failed", error=str(error))
        self.session.tell(MarkAlarm(reason="not marked", error=str(error)))
        self.tell_front(MarkFailed(self.id))
