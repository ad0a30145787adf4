"""Calls in virtual time: the engine's own schedule and admission, with costs by count in place of a device.

What a conversation asks of the thread is what `model.chroma.serving.conversation` asks: a look at the speech
every half second, the audio encoder and a prefill for each 2 s that are whole, the rest of the speech with
the opening of the answer at its end, the answer's frames.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from benchmarks.engine_costs import CHUNK, LOOK, Device, Parts
from benchmarks.engine_talk import ENDPOINT_S, first_pause_s, talk
from model.chroma.network.hearing import tokens
from model.chroma.serving.admission import REPLY, SHARE, Capacity, capacity, memory_fits
from model.chroma.serving.conductor import LEAD_S
from model.chroma.serving.meters import Meters
from model.chroma.serving.schedule import Kind, Rest, Schedule, Step, Work

FRAME_S: Final = 0.08
RATE_HZ: Final = 24_000
AROUND: Final = 12
"""Positions around an utterance: the end of its turn and of the answer before, the opening of the next."""
TWICE: Final = 1.32
"""Chunks that are encoded for each one of the speech, since louder sound changes some (docs/engine.md)."""
VOICES_BYTES: Final = 2 << 30


@dataclass(eq=False, slots=True)
class SimulatedReply:
    frames: int
    handed: int = 0
    began: float = 0.0
    over: Callable[[], None] | None = None
    """told at its first frame"""


@dataclass(eq=False, slots=True)
class Chore:
    kind: Kind
    size: int
    heard: int
    """samples that the audio encoder takes"""
    done: Callable[[], None]


@dataclass(slots=True)
class Found:
    """Of one run. Seconds."""

    frame_s: list[float] = field(default_factory=list)
    """for each frame, from when it was wanted"""
    longest_s: list[float] = field(default_factory=list)
    """the same, the longest of each step"""
    first_s: list[float] = field(default_factory=list)
    """from the commit of an utterance to the first frame of its answer"""
    misses: int = 0
    played: int = 0
    unheard: int = 0
    """frames that were made and cut off"""
    frames_busy_s: float = 0.0
    work_busy_s: float = 0.0
    taken: int = 0
    refused: dict[str, int] = field(default_factory=dict)


def predicted_capacity(device: Device, parts: Parts, slot_context: int) -> Capacity:
    """What admission would measure on the device, with full contexts."""
    free = device.memory - parts.weights
    fits = memory_fits(parts.slot(slot_context), VOICES_BYTES, int(free))
    points, count = [], 1
    while True:
        load = parts.frame(count, (count + 1) // 2, True, slot_context, REPLY)
        points.append((count, device.seconds(load, count)))
        if count == fits or points[-1][1] > SHARE * FRAME_S:
            return capacity(points, SHARE * FRAME_S)
        count = min(2 * count, fits)


class World:
    """`context` and `reply`: positions that every step reads of each call. `limit`: what admits calls; None:
    all are taken."""

    def __init__(
        self,
        device: Device,
        parts: Parts,
        *,
        lead_s: float = LEAD_S,
        context: int = 1000,
        reply: int = 800,
        limit: Capacity | None = None,
        warm_up_s: float = 0.0,
    ) -> None:
        self.device = device
        self.parts = parts
        self.found = Found()
        self._context = context
        self._reply = reply
        self._limit = limit
        self._warm_up_s = warm_up_s
        self._schedule: Schedule[SimulatedReply, Chore] = Schedule(lead_s, FRAME_S)
        self.meters = Meters()
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def _at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), what))

    @property
    def _measured(self) -> bool:
        return self._now >= self._warm_up_s

    # ── a caller ─────────────────────────────────────────────────────────────────────────────────────

    def call(self, seed: int, arrives_s: float) -> None:
        """One more; it talks to the end of the run, if it is taken."""
        self._at(arrives_s, lambda: self._arrive(seed))

    def _arrive(self, seed: int) -> None:
        limit = self._limit
        if limit is not None:
            late = limit.late(self.meters, self._now, FRAME_S)
            if self.found.taken >= limit.conversations or late:
                reason = "time" if late else f"slots ({limit.bound})"
                self.found.refused[reason] = self.found.refused.get(reason, 0) + 1
                return
        self.found.taken += 1
        SimulatedCaller(self, seed).speak_at(self._now + first_pause_s(seed))

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────

    def run(self, seconds: float) -> Found:
        while self._now < seconds:
            match self._schedule.next(self._now):
                case Step(replies):
                    self._step(replies)
                case Work(chores):
                    self._work(chores)
                case Rest(until):
                    upcoming = self._events[0][0] if self._events else seconds
                    self._pass(min(until, upcoming, seconds))
        return self.found

    def _pass(self, until: float) -> None:
        """Time goes by, and what happens meanwhile happens."""
        while self._events and self._events[0][0] <= until:
            when, _, what = heapq.heappop(self._events)
            self._now = max(self._now, when)
            what()
        self._now = max(self._now, until)

    def _step(self, replies: list[SimulatedReply]) -> None:
        began, rows = self._now, len(replies)
        # a word comes in with every second frame; what it takes was thought beside the frame before
        thinking = sum(reply.handed % 2 for reply in replies)
        pairs = any(reply.handed % 2 == 0 for reply in replies)
        load = self.parts.frame(rows, thinking, pairs, self._context, self._reply)
        seconds = self.device.seconds(load, rows)
        self._schedule.costs.spent(Kind.FRAME, rows, seconds)
        self._pass(began + seconds)
        now, longest, found = self._now, 0.0, self.found
        for reply in replies:
            if reply.frames == 0:  # cut off while the step was under way
                found.unheard += self._measured
                continue
            handed = self._schedule.handed(reply, began, now)
            self._schedule.taken(reply, now)
            longest = max(longest, handed.took_s)
            if self._measured:
                found.frame_s.append(handed.took_s)
                found.misses += handed.late_s is not None
            reply.handed += 1
            if reply.handed == 1 and reply.over is not None:
                reply.began = now
                reply.over()
            if reply.handed >= reply.frames:
                self._schedule.leave(reply)
        self.meters.step(rows, longest, now)
        if self._measured:
            found.longest_s.append(longest)
            found.frames_busy_s += seconds

    def _work(self, chores: list[Chore]) -> None:
        kind, size = chores[0].kind, sum(chore.size for chore in chores)
        if kind is Kind.PREFILL:
            load = self.parts.prefill(size, self._context, len(chores))
        else:
            load = self.parts.hearing(chores[0].heard)
        seconds = self.device.seconds(load)
        self._schedule.costs.spent(kind, size, seconds)
        self._pass(self._now + seconds)
        if self._measured:
            self.found.work_busy_s += seconds
        for chore in chores:
            chore.done()


class SimulatedCaller:
    """Talks by the dice. Speech comes in real time; what it gives the thread to do goes one by one."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._talk = talk(seed)
        self._chores: list[tuple[Kind, int, int]] = []
        self._working = False
        self._commit: float | None = None
        self._then: Callable[[], None] | None = None

    def speak_at(self, when: float) -> None:
        self._world._at(when, self._speak)

    def _speak(self) -> None:
        world = self._world
        exchange = next(self._talk)
        began, samples = world._now, round(exchange.speech_s * RATE_HZ)
        for at in range(LOOK, samples, LOOK):
            whole = at % CHUNK == 0
            chores = [(Kind.HEARING, LOOK, round(CHUNK * TWICE) if whole else 0)]
            if whole:
                chores.append((Kind.PREFILL, 50, 0))
            world._at(began + at / RATE_HZ, lambda chores=chores: self._ask(chores))  # type: ignore[misc]
        rest = samples % CHUNK
        positions = tokens(rest * 100 // RATE_HZ) + AROUND
        last = [(Kind.HEARING, rest % LOOK, rest), (Kind.PREFILL, positions, 0)]

        def commit() -> None:
            self._commit = world._now
            self._then = lambda: self._answer(exchange.reply_s, exchange.barge_s, exchange.pause_s)
            self._ask(last)

        world._at(began + exchange.speech_s + ENDPOINT_S, commit)

    def _ask(self, chores: list[tuple[Kind, int, int]]) -> None:
        self._chores += chores
        if not self._working:
            self._next()

    def _next(self) -> None:
        world = self._world
        if not self._chores:
            self._working = False
            if self._then is not None:
                then, self._then = self._then, None
                then()
            return
        self._working = True
        chore = Chore(*self._chores.pop(0), self._next)
        world._schedule.ask(
            chore, chore.kind, chore.size, awaited=lambda: self._then is not None, now=world._now
        )

    def _answer(self, reply_s: float, barge_s: float | None, pause_s: float) -> None:
        world = self._world
        reply = SimulatedReply(max(1, round(reply_s / FRAME_S)))

        def begun() -> None:
            assert self._commit is not None
            world.meters.first(self._commit, self._commit, world._now)
            if world._measured:
                world.found.first_s.append(world._now - self._commit)
            heard_s = reply.frames * FRAME_S if barge_s is None else barge_s
            world._at(world._now + heard_s, lambda: heard(heard_s))

        def heard(heard_s: float) -> None:
            """It was played, or is cut off here."""
            played = min(reply.handed, round(heard_s / FRAME_S))
            if world._measured:
                world.found.played += played
                world.found.unheard += reply.handed - played
            world._schedule.leave(reply)
            reply.frames = 0
            self.speak_at(world._now + (pause_s if barge_s is None else 0.0))

        reply.over = begun
        world._schedule.join(reply, world._now)
