"""What a call does: the verbs of its route, one after another.

Each verb is a coroutine over the call's inbox. `CallEnded` unwinds them wherever they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.dialplan import (
    Answer,
    Converse,
    Disclose,
    Disclosure,
    Enroll,
    Gather,
    Hangup,
    Playback,
    Record,
    Route,
    Say,
    Transfer,
    Verb,
    VoiceOwner,
)
from gateway.dialplan.disclosure import sentence
from gateway.dialplan.spoken_texts import first_words
from gateway.errors import PlayedFileError
from gateway.hall.calls.call import CONFIRMED_WITHIN_S, STARTED_WITHIN_S, Call
from gateway.hall.dialogue.recorded_sounds import RecordedSounds
from gateway.hall.parts.inbox import CallEnded, EngineGone, Refused
from gateway.hall.parts.playout import Item
from gateway.hall.verbs.converse import Conversation
from gateway.hall.verbs.dtmf import dialled
from gateway.hall.verbs.enrol import enrol
from gateway.hall.verbs.play import Player
from gateway.hall.verbs.recording import Recording
from gateway.hall.verbs.transfer import stay_handed_over, transfer
from gateway.hall.verbs.voice_owner import serve_owner
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.line_messages import AnswerCall, ProgressCall
from gateway.store.call_events import KeyInput
from model.redaction.redactor import TOLD

GREETING_WITHIN_S: Final = 2.0
"""The call is answered even when its greeting is not rendered by then."""
FAREWELL_WITHIN_S: Final = 20.0
"""A caller who holds the call does not hear it."""
ANNOUNCED_TIMES: Final = 3
"""Tries to say what must be said before the call goes on."""
BEEP_HZ: Final = 1000.0


Follow = Callable[[Call, Route], Awaitable[None]]
"""`gateway.hall.grants.Grants.follow`: no verb changes the route of a call by itself."""


@dataclass(frozen=True, slots=True)
class Goto:
    """Go on as another route."""

    route: Route


async def perform(call: Call, recordings: Path, follow: Follow, recorded: RecordedSounds) -> None:
    """Runs the call to its end; never raises for anything a caller or an engine does.

    `recordings`: the folder for what callers leave. `follow`: how the call goes on as another route.
    `recorded`: what the operator lets callers hear.
    """
    try:
        await Performance(call, recordings, follow, recorded).run()
        call.end(CallEnding(End.VOICE))
    except CallEnded as over:
        call.end(over.how)
    except EngineGone as gone:
        await _farewell(call, gone.refusal)
    except Exception:
        call.broke("verbs")


async def _farewell(call: Call, refusal: Refused) -> None:
    """What is said when the engine cannot: a text rendered long ago. Then the call is over."""
    call.session.event("engine_refused", code=refusal.code, message=refusal.message)
    call.come_back()
    for text in (*_untold(call), _last_words(call, refusal.code)):
        item = call.speech.own.prompt(text)
        if item is None:
            break
        with contextlib.suppress(CallEnded):
            await call.inbox.until(item.done.wait(), FAREWELL_WITHIN_S)
    call.end(_ending(refusal))


def _untold(call: Call) -> tuple[str, ...]:
    """What a caller who has not heard the plan's disclosure must hear before any other word."""
    told = next((verb for verb in call.route.do if isinstance(verb, Disclose)), None)
    if told is None or call.told:
        return ()
    return (sentence(told.principal, told.language, cloned=False),)


def _ending(refusal: Refused) -> CallEnding:
    """How a call ends that the engine does not serve: in words, for `code` is the contract's."""
    match refusal.code:
        case "lost":
            return CallEnding(End.ENGINE_LOST)
        case "busy":
            return CallEnding(End.ENGINE_BUSY)
        case "refused":
            return CallEnding(End.ENGINE_REFUSED)
    return CallEnding(End.ENGINE_REFUSED, refusal.code)


def _last_words(call: Call, code: str) -> str:
    """The text of the call's conversation for a busy or a lost engine; empty when it has none."""
    for route in (call.route, *call.offer.routes):
        for verb in route.do:
            if isinstance(verb, Converse):
                return verb.busy if code == "busy" else verb.engine_lost
    return ""


class Performance:
    """One call going through its routes."""

    def __init__(self, call: Call, recordings: Path, follow: Follow, recorded: RecordedSounds) -> None:
        self._call = call
        self._recorded = recorded
        self._recordings = recordings
        self._follow = follow
        self._ahead: tuple[str, Item] | None = None
        """a text that is being rendered before its verb's turn"""

    async def run(self) -> None:
        call = self._call
        if not await call.inbox.until(call.line.started.wait(), STARTED_WITHIN_S):
            raise CallEnded(CallEnding(End.FAILED, "no line reported the call"))
        if call.line.handed_over:  # before a hall's death
            await stay_handed_over(call)
        if (reason := call.licence.muted) is not None:
            raise CallEnded(CallEnding(End.VOICE_REFUSED, reason))
        await self._disclose_voice(call.route)
        following = await self._route(call.route)
        while following is not None:
            self._ahead = None  # rendered in the voice of the route before
            await self._follow(call, following)
            await self._disclose_voice(call.route)
            following = await self._route(call.route)

    async def _route(self, route: Route) -> Route | None:
        call = self._call
        for at, verb in enumerate(route.do):
            if call.resumed and call.line.confirmed.is_set() and Answer() in route.do[at + 1 :]:
                continue  # it was heard before the answer, by the hall that died
            following = route.do[at + 1] if at + 1 < len(route.do) else None
            outcome = await self._verb(verb, following)
            if isinstance(outcome, Goto):
                return outcome.route
        return None

    async def _verb(self, verb: Verb, following: Verb | None) -> Goto | None:
        match verb:
            case Answer():
                await self._answer(following)
            case Disclose():
                await self._disclose(verb)
            case Say():
                await self._say(verb.text)
            case Playback():
                await self._play(verb)
            case Converse():
                return self._goto(await Conversation(self._call, verb, self._take_ahead(verb.greeting)).run())
            case Gather():
                return await self._gather(verb)
            case Transfer():
                await self._transfer(verb)
            case Record():
                await self._record(verb)
            case Enroll():
                await enrol(self._call, verb)
            case VoiceOwner():
                await serve_owner(self._call, verb)
            case Hangup():
                if verb.say:
                    await self._say(verb.say, interruptible=False)
                raise CallEnded(CallEnding(End.VOICE))
        return None

    # ── saying ───────────────────────────────────────────────────────────────────────────────────────

    def _take_ahead(self, text: str) -> Item | None:
        ahead, self._ahead = self._ahead, None
        return ahead[1] if ahead is not None and ahead[0] == text else None

    def _start_saying(self, text: str) -> Item:
        return self._take_ahead(text) or self._call.speech.say(self._call.words(text))

    async def _say(self, text: str, *, interruptible: bool = True) -> bool:
        """True when it was heard from its first word to its last."""
        call = self._call
        if not interruptible:
            call.ear.hold_floor()
            if call.playout.heard_now:  # the first words of a call began before its verb
                call.show_state()
        item = self._start_saying(text)
        try:
            await call.played(item)
        finally:
            call.ear.yield_floor()
        return item.whole

    async def _announce(self, text: str) -> None:
        """Says what the caller must know before the call goes on: again when the engine broke it off.

        Raises `CallEnded` when it could not be said whole.
        """
        for _ in range(ANNOUNCED_TIMES):
            if await self._say(text, interruptible=False):
                return
        raise CallEnded(CallEnding(End.UNSAID))

    async def _disclose(self, verb: Disclose) -> None:
        """Says it, unless the caller has heard these words already."""
        call, voice = self._call, self._call.persons_voice
        text = verb.words(cloned=bool(voice))
        said = call.words(text)
        if any((told.text, told.voice) == (said, voice) for told in call.disclosed):
            return
        await self._announce(text)
        call.disclose(Disclosure(verb.principal, verb.language, voice, said, call.clocks.time()))

    async def _disclose_voice(self, route: Route) -> None:
        """Says it anew where the voice turns into one of which the caller was not told.

        A plan that does so in writing does not load; but a call whose voice was refused speaks in the stock
        voice instead, and may get the person's voice on a later route.
        """
        call, last = self._call, self._call.last_disclosed
        if last is None or _opens_by_disclosing(route):
            return
        if all(told.voice != call.persons_voice for told in call.disclosed):
            await self._disclose(Disclose(principal=last.principal, language=last.language))

    async def _answer(self, following: Verb | None) -> None:
        """200 OK once the first words wait to be played; then until the caller can hear them."""
        call = self._call
        if call.line.confirmed.is_set():
            return  # a call that was taken up: the line has answered long ago
        text = first_words(following, cloned=bool(call.persons_voice))
        call.move("ringing")
        if text:
            words = call.words(text, following.facts if isinstance(following, Converse) else None)
            item = call.speech.open(words, stock=not call.persons_voice)
            self._ahead = (text, item)
            await call.rendered(item, GREETING_WITHIN_S)
        await call.ask_line(AnswerCall(call.id))
        call.answered()
        if not await call.inbox.until(call.line.confirmed.wait(), CONFIRMED_WITHIN_S):
            raise CallEnded(CallEnding(End.UNACKNOWLEDGED))

    async def _play(self, verb: Playback) -> None:
        """Plays it, before the answer too where the line can. One that has become unplayable since the plan
        was loaded is left out, and an error: the call goes on."""
        call = self._call
        try:
            sound = await call.inbox.result_of(self._recorded.sound(verb.file, normalise=verb.normalise))
        except PlayedFileError as error:
            call.log.error("recording.unplayable", file=verb.file, error=str(error))
            call.session.event("not_played", file=verb.file, why=str(error))
            return
        if not call.line.confirmed.is_set() and not await call.ask_line(ProgressCall(call.id)):
            await self._answer(None)  # a browser's line, which has no sound before: it hears it first thing
        await Player(call, verb, sound).run()

    # ── the other verbs ──────────────────────────────────────────────────────────────────────────────

    async def _gather(self, verb: Gather) -> Goto | None:
        call = self._call
        prompt = None
        if (recorded := verb.recorded) is not None:
            await self._play(recorded)  # the key that ends it is the first of those that are dialled
        else:
            prompt = self._start_saying(verb.prompt)
        digits = await dialled(
            call, prompt, verb.digits, timeout_s=verb.timeout_s, finish_key=verb.finish_key
        )
        known = len(digits) <= TOLD or digits in verb.branches  # else it may be an account's number
        call.session.tell(KeyInput(digits=digits if known else f"{len(digits)} digits"))
        return self._goto(verb.branches.get(digits, verb.otherwise))

    def _goto(self, name: str | None) -> Goto | None:
        return Goto(self._call.offer.route_named(name)) if name is not None else None

    async def _transfer(self, verb: Transfer) -> None:
        if verb.say:
            await self._say(verb.say, interruptible=False)
        await transfer(self._call, verb.target)

    async def _record(self, verb: Record) -> None:
        call = self._call
        await self._announce(verb.announce)
        if verb.beep:
            await call.played(call.speech.own.beep(BEEP_HZ, 0.3))
        await Recording(call, self._recordings, verb.max_s, verb.silence_s).run()


def _opens_by_disclosing(route: Route) -> bool:
    return any(isinstance(verb, Disclose) for verb in route.do[:2])
