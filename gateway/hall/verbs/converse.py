"""A live conversation: the caller's turns, the engine's replies, and the manners between them.

One loop over the call's inbox. While the engine talks and the caller begins, it is ducked at once; if the
caller goes on it is cut and the engine told what was heard; if it was a cough it comes back.
"""

from __future__ import annotations

from typing import Final

from gateway.dialplan import Converse
from gateway.dialplan.disclosure import INTENT, KEY, spoken_language
from gateway.dialplan.plan_languages import ELSE, UNSPOKEN
from gateway.hall.calls.call import Call
from gateway.hall.dialogue.caller_language import CallerLanguage
from gateway.hall.dialogue.early_words import EarlyWords
from gateway.hall.media.turns import TurnEvent
from gateway.hall.parts.inbox import (
    CallEnded,
    CallerTurn,
    Dtmf,
    EngineGone,
    Event,
    Heard,
    LanguageHeard,
    Steered,
    ToolCall,
)
from gateway.hall.parts.playout import Item
from gateway.hall.verbs.exchanges import Exchanges
from gateway.hall.verbs.transfer import transfer
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.line_messages import ShownNote
from gateway.store.call_events import KeyInput
from model.redaction.redactor import TOLD

NO_KEYS: Final = "The voice does not ask for a key now."
TOOLS: Final = ("hang_up", "transfer", INTENT)
"""What an engine may ask for."""


class Conversation:
    """The verb `converse` on one call. `greeting` is its first sentence if it is being said already."""

    def __init__(self, call: Call, verb: Converse, greeting: Item | None) -> None:
        self._call = call
        self._verb = verb
        self._greeting = greeting
        self._exchanges = Exchanges(call)
        self._silences = 0
        self._ends_at = call.clocks.monotonic() + verb.max_s if verb.max_s else None
        self._foreign = ""
        """a language that is not the route's, in which the caller speaks"""
        self._leads_to: str | None = None
        self._muted = False
        """an operator wants the voice to be still"""
        self._keys = 0
        """keys that the caller pressed, one after another"""

    async def run(self) -> str | None:
        """Until goodbye, a transfer that went, too much silence, or the time limit.

        Returns the name of the route to go on as; None: the same. Raises `CallEnded`, and `EngineGone`
        when there is nobody to talk with any more.
        """
        call, verb = self._call, self._verb
        now, hold = call.route.local(), call.route.hold_text
        call.speech.configure(verb, now, call.route.zone, call.last_disclosed, hold=hold)
        language, words = self._language_sought(), self._words_heard()
        call.ear.listen()
        if not verb.interruptible:
            call.ear.hold_floor()
        call.ear.restart_silence()
        if call.resumed:
            self._say(verb.not_understood[0])  # what was being said when we died is lost
        elif verb.greeting and self._greeting is None:
            self._say(verb.greeting)
        call.show_state()
        call.inbox.heed_operator(heeds=True)
        try:
            while True:
                if call.inbox.refused is not None:
                    raise EngineGone(call.inbox.refused)
                event = await call.inbox.next(self._patience())
                if event is None:
                    await self._nothing_came()
                elif await self._take(event):
                    return self._leads_to
        finally:
            call.inbox.heed_operator(heeds=False)
            call.ear.attend(None)
            if language is not None:
                language.close()
            if words is not None:
                call.ear.hear_words(None)
                words.forget()
            call.ear.ignore()
            call.ear.yield_floor()
            call.come_back()
            self._exchanges.close()

    def _say(self, text: str) -> Item:
        return self._call.speech.say(self._call.words(text, self._verb.facts))

    def _patience(self) -> float:
        now = self._call.clocks.monotonic()
        quiet_left = self._verb.silence_s - (now - self._call.ear.last_sound)
        if self._ends_at is not None:
            quiet_left = min(quiet_left, self._ends_at - now)
        return max(0.02, quiet_left)

    async def _nothing_came(self) -> None:
        call, now = self._call, self._call.clocks.monotonic()
        if self._ends_at is not None and now >= self._ends_at:
            await self._goodbye("time limit")
        if self._exchanges.awaits_reply or self._muted:
            call.ear.restart_silence()
            return
        if now - call.ear.last_sound < self._verb.silence_s:
            return
        if self._silences >= len(self._verb.silence_prompts):
            await self._goodbye("silence")
        call.session.event("silence", count=self._silences + 1)
        self._say(self._verb.silence_prompts[self._silences])
        self._silences += 1
        call.ear.restart_silence()

    async def _goodbye(self, why: str) -> None:
        call = self._call
        call.ear.ignore()
        call.come_back()
        call.session.event("goodbye", why=why)
        await call.played(self._say(self._verb.goodbye))
        raise CallEnded(CallEnding(End.VOICE))

    async def _take(self, event: Event) -> bool:
        """Deals with one event; True when the conversation is over and the route goes on."""
        call = self._call
        match event:
            case CallerTurn():
                return await self._caller(event)
            case LanguageHeard():
                return self._in_language(event)
            case Heard():
                self._exchanges.understood(event)
            case ToolCall():
                return await self._tool(event)
            case Steered():
                await self._steered(event)
            case Dtmf():
                self._keys = self._keys + 1 if event.digit in "0123456789*#" else 0
                secret = self._keys > TOLD and event.digit != KEY  # it may be one of a card's
                call.session.tell(KeyInput(digit=None if secret else event.digit))
                if event.digit == KEY and call.disclosed:
                    call.speech.cut()
                    await self._disclose_again()
                else:
                    call.line.show(ShownNote(NO_KEYS))
        return False

    async def _steered(self, wish: Steered) -> None:
        """What an operator wants; a transfer that went raises `CallEnded`."""
        call = self._call
        if wish.act == "unmute":
            self._muted = False
            call.ear.listen()
            call.ear.restart_silence()
            return
        call.speech.cut()
        call.come_back()
        match wish.act:
            case "mute":
                self._muted = True
                call.ear.ignore()
            case "say":  # word for word: braces are no facts
                call.speech.say(wish.what)
                call.ear.restart_silence()
            case "transfer":
                call.ear.ignore()
                await transfer(call, wish.what)
                if not self._muted:
                    self._say(self._verb.no_transfer)
                    call.ear.listen()

    # ── the caller's turn ────────────────────────────────────────────────────────────────────────────

    async def _caller(self, turn: CallerTurn) -> bool:
        """True when the conversation is over."""
        call = self._call
        match turn.event:
            case TurnEvent.ONSET:
                if call.playout.busy:
                    call.duck()
            case TurnEvent.SPEECH:
                if call.playout.busy or self._exchanges.awaits_reply:
                    await self._barge_in(turn)
            case TurnEvent.TRIFLE:
                call.come_back()
                call.speech.clear()
            case TurnEvent.END:
                call.come_back()
                self._silences = 0
                if self._foreign:
                    call.speech.clear()
                    return self._lead_on()
                self._exchanges.begin(turn)
        return False

    async def _barge_in(self, turn: CallerTurn) -> None:
        call = self._call
        items = call.speech.cut()
        call.come_back(cut=True)
        call.session.event(
            "barge_in", onset_to_cut_s=round(turn.duration_s, 3), heard_s=[round(i.heard_s, 2) for i in items]
        )
        call.show_state()

    def _words_heard(self) -> EarlyWords | None:
        """Hears words at pauses, for an engine that does not."""
        call, ear = self._call, self._call.ear
        if ear.house_ears is None or not ear.hears_early:
            return None
        words = EarlyWords(ear.house_ears, self._own_language, keeps=call.route.keep.transcript)
        ear.hear_words(words)
        return words

    # ── the caller's language ────────────────────────────────────────────────────────────────────────

    def _language_sought(self) -> CallerLanguage | None:
        """Listens for the language where the plan has something to do with it."""
        call, languages = self._call, self._verb.languages
        if not languages or call.ear.house_ears is None:
            return None
        among = (self._own_language, *(code for code in languages if code != ELSE))
        language = CallerLanguage(call.ear.house_ears, among, call.inbox.post)
        call.ear.attend(language.hear)
        return language

    @property
    def _own_language(self) -> str:
        return spoken_language(self._call.route.language)

    def _in_language(self, heard: LanguageHeard) -> bool:
        """Acts at once where the caller has finished, else at the end of the turn."""
        call = self._call
        call.session.event("language", heard=heard.language, chance=round(heard.chance, 3))
        if heard.language in ("", self._own_language):
            return False
        self._foreign = heard.language
        if call.ear.heeds_turn:
            return False
        call.speech.cut()
        return self._lead_on()

    def _lead_on(self) -> bool:
        """Where a caller is led who speaks another language; True when that is another route."""
        languages, heard, self._foreign = self._verb.languages, self._foreign, ""
        self._leads_to = languages.get(heard, languages.get(ELSE))
        if self._leads_to is None:
            self._say(self._verb.other_language or UNSPOKEN[self._own_language])
            self._call.ear.restart_silence()
        return self._leads_to is not None

    # ── what the engine asks for ─────────────────────────────────────────────────────────────────────

    async def _tool(self, tool: ToolCall) -> bool:
        call = self._call
        if tool.item.cut:  # wanted for what the caller did not say, and already waiting here
            return False
        if tool.name not in TOOLS:  # its name may be anything that was said
            call.session.event("tool", name="unknown")
            call.log.warning("tool.unknown")
            return False
        call.session.event("tool", name=tool.name)
        call.ear.ignore()
        call.come_back()
        await call.played(tool.item)
        if tool.name == INTENT:
            await self._disclose_again()
            call.ear.listen()
            return False
        if tool.name == "hang_up":
            if not tool.item.queued:
                await self._goodbye("asked")
            raise CallEnded(CallEnding(End.VOICE))
        if self._verb.transfer is not None:
            await transfer(call, self._verb.transfer)
        self._say(self._verb.no_transfer)
        call.ear.listen()
        return False

    async def _disclose_again(self) -> None:
        """Says the latest disclosure again, word for word; it cannot be interrupted."""
        call, told = self._call, self._call.last_disclosed
        if told is None:
            return
        call.ear.hold_floor()
        call.ear.forget_turn()
        call.come_back()
        item = call.speech.say(told.text)
        try:
            await call.played(item)
        finally:
            call.inbox.forget_keys()  # pressed meanwhile, they ask for what was just said
            if self._verb.interruptible:
                call.ear.yield_floor()
        call.session.event("disclosed_again", principal=told.principal, whole=item.whole)
        call.ear.restart_silence()
