"""The exchanges of a conversation, from the end of a caller's turn until they are noted in the session."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from gateway.hall.calls.call import Call
from gateway.hall.dialogue.call_notes import NotedTurn, TurnWords
from gateway.hall.parts.inbox import CallerTurn, Heard
from gateway.hall.parts.playout import Item
from gateway.ipc.hall_messages import TurnAnswered
from gateway.ipc.line_messages import ShownHeard, ShownLatency
from gateway.store.call_events import Turn
from model.ears.words_heard import Words
from model.redaction.redactor import Passage
from model.tasks import Tasks

UNDERSTOOD_WITHIN_S: Final = 1.0
"""Some engines never tell what they understood."""


@dataclass(slots=True, eq=False)
class CallerExchange:
    """What a caller said in one turn, and our reply; times are monotonic."""

    number: int
    speech_s: float
    speech_ended: float
    endpoint: float
    """when the speech was taken to have ended"""
    committed: float
    item: Item
    scribed: bool = False
    """somebody beside the engine writes down what was said"""
    words: TurnWords = field(default_factory=TurnWords)
    latency_s: dict[str, float] = field(default_factory=dict)
    played: float | None = None
    """when the reply was first heard"""

    @property
    def course_s(self) -> dict[str, float]:
        """The reply's way, each stage by when it was over, from the end of the caller's speech on."""
        times = self.item.times
        stages = {
            "endpoint": self.endpoint,
            "asked": self.committed,
            "word": times.word,
            "sound": times.sound,
            "frame": times.frame,
            "wire": times.wire,
        }
        return {stage: at - self.speech_ended for stage, at in stages.items() if at is not None}


class Exchanges:
    """One conversation's. `close` notes what is still open."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._keeps_words = call.route.keep.transcript
        self._number = 0
        self._latest: CallerExchange | None = None
        self._open: deque[CallerExchange] = deque()
        """those that are not noted yet, the oldest first"""
        self._following = Tasks()

    @property
    def awaits_reply(self) -> bool:
        """The latest turn has no reply yet that could be heard."""
        return self._latest is not None and not self._latest.item.ready.is_set()

    def begin(self, turn: CallerTurn) -> None:
        """The caller's turn is over: the engine is to reply."""
        call = self._call
        self._number += 1
        call.speech.commit(self._number)
        item = call.speech.reply()
        call.ear.restart_silence()
        now = call.ear.last_sound
        latest = CallerExchange(self._number, turn.duration_s, turn.at - turn.quiet_s, turn.at, now, item)
        self._latest = latest
        self._open.append(latest)
        self._have_written(latest, turn.words)
        call.show_state()
        self._following.short(self._follow(latest), "call.turn")

    def understood(self, heard: Heard) -> None:
        """The engine tells what it understood of a turn."""
        for exchange in self._open:
            if exchange.number == heard.turn:
                self._tell(exchange, heard)
                return
        self._show(heard)

    def close(self) -> None:
        """The conversation is over."""
        self._following.cancel()
        while self._open:
            self._note(self._open.popleft())

    async def _follow(self, exchange: CallerExchange) -> None:
        """Tells the turn's latencies by stage when its reply begins; writes the turn down when it is over."""
        call, item = self._call, exchange.item
        await item.started.wait()
        ready, played = item.times.sound, item.times.wire
        if ready is not None and played is not None:
            exchange.played = played
            exchange.latency_s = {
                "endpointing": exchange.endpoint - exchange.speech_ended,
                "engine": ready - exchange.committed,
                "playout": played - ready,
                "whole": played - exchange.speech_ended,
            }
            rounded = {stage: round(seconds, 3) for stage, seconds in exchange.latency_s.items()}
            call.tell_front(TurnAnswered(call.id, rounded))
            stages = rounded["endpointing"], rounded["engine"], rounded["playout"], rounded["whole"]
            call.line.show(ShownLatency(exchange.number, *stages))
        await item.done.wait()
        with contextlib.suppress(TimeoutError):  # a reply may be cut before its question is understood
            async with asyncio.timeout(UNDERSTOOD_WITHIN_S):
                await exchange.words.known.wait()
        while exchange in self._open:
            self._note(self._open.popleft())

    def _note(self, exchange: CallerExchange) -> None:
        """Has the exchange noted in the session."""
        item, clocks = exchange.item, self._call.clocks
        if not exchange.scribed:  # an engine that has not told by now never will
            exchange.words.give_up()
        since_zero = clocks.time() - clocks.monotonic()
        bot = Turn(
            who="bot",
            text=(item.text or None) if self._keeps_words else None,
            heard_s=item.heard_s,
            interrupted=item.cut,
            latency_ms={stage: seconds * 1000 for stage, seconds in exchange.latency_s.items()},
            speech_ended_at=since_zero + exchange.speech_ended,
            course_ms={stage: seconds * 1000 for stage, seconds in exchange.course_s.items()},
        )
        self._call.notes.add(
            NotedTurn(
                exchange.words,
                Turn(who="caller", duration_s=exchange.speech_s),
                since_zero + exchange.speech_ended - exchange.speech_s,
                bot,
                since_zero + exchange.played if exchange.played is not None else clocks.time(),
            )
        )

    def _tell(self, exchange: CallerExchange, heard: Heard) -> None:
        exchange.words.tell(heard.said if self._keeps_words else None)
        self._show(heard)
        self._call.notes.note_ready()

    def _show(self, heard: Heard) -> None:
        """The caller's page shows words only where they may be kept: others may look at it, too."""
        if self._call.inbox.ended.is_set():
            return
        text = heard.said.kept if heard.said is not None and self._keeps_words else None
        self._call.line.show(ShownHeard(text, heard.duration_s, heard.confidence))

    def _have_written(self, exchange: CallerExchange, heard: Words | None) -> None:
        """Has the turn written down beside the call, where the plan keeps words and the engine has none.

        `heard`: its words, where the hall heard them already.
        """
        call = self._call

        def told(said: Passage | None, confidence: float | None) -> None:
            self._tell(exchange, Heard(exchange.number, said, exchange.speech_s, confidence))

        if self._keeps_words:
            exchange.scribed = call.notes.have_written(
                call.speech.unwritten, call.route.language, told, heard
            )
