"""A live conversation: the caller's turns, the engine's replies, and the manners between them.

One loop over the call's inbox. While the engine talks and the caller begins, it is ducked at once; if the
caller goes on it is cut and the engine told what was heard; if it was a cough it comes back.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from gateway.dialplan import Converse
from gateway.hall.call import Call, CallEnded, CallerTurn, Dtmf, Event
from gateway.hall.leg import DUCKED, FULL
from gateway.hall.playout import Item
from gateway.hall.speech import EngineLost, Heard, Refused, Said, ToolCall
from gateway.hall.transfer import transfer
from gateway.hall.turns import TurnEvent
from gateway.sessions import Turn as SessionTurn

FILLER_AFTER_S: Final = 0.7
REPLY_WITHIN_S: Final = 8.0
"""An engine that says nothing for this long after the caller's turn is treated as lost."""


@dataclass(slots=True, eq=False)
class Turn:
    """One exchange; times are `time.monotonic()`."""

    number: int
    speech_s: float
    speech_ended: float
    committed: float
    item: Item
    heard: str | None = None
    confidence: float | None = None


class Conversation:
    """The verb `converse` on one call. `greeting` is its first sentence if it is being said already."""

    def __init__(self, call: Call, verb: Converse, greeting: Item | None) -> None:
        self._call = call
        self._verb = verb
        self._greeting = greeting
        self._turns = 0
        self._turn: Turn | None = None
        self._reply: Item | None = None
        self._silences = 0
        self._ends_at = time.monotonic() + verb.max_s if verb.max_s else None
        self._said = ""
        self._notes: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until goodbye, a transfer that went, too much silence, or the time limit. Raises `CallEnded`."""
        call, verb = self._call, self._verb
        call.speech.configure(verb, call.route.local())
        call.listening = True
        call.interruptible = verb.interruptible
        call.last_sound = time.monotonic()
        if call.resumed:
            self._reply = self._say(verb.not_understood[0])  # what was being said when we died is lost
        elif verb.greeting:
            self._reply = self._greeting or self._say(verb.greeting)
        call.show(kind="state", state="listening")
        try:
            while True:
                event = await call.next(self._patience())
                if event is None:
                    await self._nothing_came()
                elif await self._take(event):
                    return
        finally:
            call.listening = False
            call.interruptible = True
            for note in self._notes:
                note.cancel()

    def _say(self, text: str) -> Item:
        return self._call.speech.say(self._call.words(text, self._verb.facts))

    def _patience(self) -> float:
        now = time.monotonic()
        quiet_left = self._verb.silence_s - (now - self._call.last_sound)
        if self._ends_at is not None:
            quiet_left = min(quiet_left, self._ends_at - now)
        if self._waiting_for_reply:
            quiet_left = min(quiet_left, 0.25)
        return max(0.02, quiet_left)

    @property
    def _waiting_for_reply(self) -> bool:
        return self._turn is not None and not self._turn.item.ready.is_set()

    async def _nothing_came(self) -> None:
        call, now = self._call, time.monotonic()
        if self._ends_at is not None and now >= self._ends_at:
            await self._goodbye("time limit")
        if self._waiting_for_reply:
            assert self._turn is not None
            if now - self._turn.committed > REPLY_WITHIN_S:
                raise EngineLost("the engine did not answer in time")
            return
        if now - call.last_sound < self._verb.silence_s:
            return
        if self._silences >= len(self._verb.silence_prompts):
            await self._goodbye("silence")
        call.session.event("silence", count=self._silences + 1)
        self._reply = self._say(self._verb.silence_prompts[self._silences])
        self._silences += 1
        call.last_sound = now

    async def _goodbye(self, why: str) -> None:
        call = self._call
        call.listening = False
        call.session.event("goodbye", why=why)
        await call.played(self._say(self._verb.goodbye))
        raise CallEnded("hung up")

    async def _take(self, event: Event) -> bool:
        """Deals with one event; True when the conversation is over and the route goes on."""
        call = self._call
        match event:
            case CallerTurn():
                await self._caller(event)
            case Heard():
                self._understood(event)
            case Said():
                self._said = event.text
                call.show(kind="said", item=event.item.id, text=event.text, final=event.final)
            case ToolCall():
                return await self._tool(event)
            case Refused():
                await self._refused(event)
            case Dtmf():
                call.session.event("dtmf", digit=event.digit)
        return False

    # ── the caller's turn ────────────────────────────────────────────────────────────────────────────

    async def _caller(self, turn: CallerTurn) -> None:
        call = self._call
        match turn.event:
            case TurnEvent.ONSET:
                if call.playout.busy:
                    call.aim(DUCKED)
            case TurnEvent.SPEECH:
                if call.playout.busy or self._waiting_for_reply:
                    await self._barge_in(turn)
            case TurnEvent.TRIFLE:
                call.aim(FULL)
                call.speech.clear()
            case TurnEvent.END:
                call.aim(FULL)
                self._silences = 0
                self._answer(turn)

    async def _barge_in(self, turn: CallerTurn) -> None:
        call = self._call
        items = call.speech.cut()
        call.aim(FULL)
        call.session.event(
            "barge_in", onset_to_cut_s=round(turn.duration_s, 3), heard_s=[round(i.heard_s, 2) for i in items]
        )
        call.show(kind="state", state="listening")

    def _answer(self, turn: CallerTurn) -> None:
        call = self._call
        call.speech.commit()
        self._turns += 1
        item = self._reply = call.speech.reply()
        self._turn = Turn(self._turns, turn.duration_s, turn.at - turn.quiet_s, time.monotonic(), item)
        call.last_sound = time.monotonic()
        call.show(kind="state", state="thinking")
        note = asyncio.create_task(self._note(self._turn, turn.at))
        self._notes.add(note)
        note.add_done_callback(self._notes.discard)

    async def _note(self, turn: Turn, endpoint: float) -> None:
        """Writes the turn's latencies, split by stage, once its reply is heard."""
        await turn.item.ready.wait()
        ready = time.monotonic()
        await turn.item.started.wait()
        played = time.monotonic()
        stages = {
            "endpointing": endpoint - turn.speech_ended,
            "engine": ready - turn.committed,
            "playout": played - ready,
            "whole": played - turn.speech_ended,
        }
        rounded = {stage: round(seconds, 3) for stage, seconds in stages.items()}
        keep = self._call.route.keep.transcript
        session = self._call.session
        session.turn(SessionTurn(who="caller", text=turn.heard if keep else None, duration_s=turn.speech_s))
        session.turn(
            SessionTurn(
                who="bot",
                text=self._said if keep else None,
                latency_ms={stage: seconds * 1000 for stage, seconds in stages.items()},
            )
        )
        self._call.tell_front("call.event", call_id=self._call.id, kind="turn", latency=rounded)
        self._call.show(kind="latency", turn=turn.number, **rounded)
        self._call.show(kind="state", state="speaking")

    def _understood(self, heard: Heard) -> None:
        if self._turn is not None:
            self._turn.heard, self._turn.confidence = heard.text, heard.confidence
        self._call.show(
            kind="heard", text=heard.text, duration_s=heard.duration_s, confidence=heard.confidence
        )

    # ── what the engine asks for ─────────────────────────────────────────────────────────────────────

    async def _tool(self, tool: ToolCall) -> bool:
        call = self._call
        call.session.event("tool", name=tool.name)
        if self._reply is not None:
            await call.played(self._reply)
        if tool.name == "hang_up":
            if self._reply is None or not self._reply.queued:
                await self._goodbye("asked")
            raise CallEnded("hung up")
        if tool.name == "transfer":
            if self._verb.transfer in call.offer.targets:
                assert self._verb.transfer is not None
                await transfer(call, self._verb.transfer)
            self._reply = self._say(self._verb.no_transfer)
            return False
        call.log.warning("tool.unknown", tool=tool.name)
        return False

    async def _refused(self, refusal: Refused) -> None:
        call = self._call
        call.session.event("engine_refused", code=refusal.code, message=refusal.message)
        text = self._verb.busy if refusal.code == "busy" else self._verb.engine_lost
        call.listening = False
        item = call.speech.prompt(text)
        if item is not None:
            await call.played(item)
        raise CallEnded(f"failed: {refusal.code}")
