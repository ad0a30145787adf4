"""Calls in virtual time: the engine's own schedule and admission, with costs by count in place of a device.

What a conversation asks of the thread is what `model.chroma.serving.conversation` asks: the audio encoder and
a prefill for each 2 s of speech that are whole, a chunk again where a louder sound changed it, the rest of
the speech with the opening of the answer at its end, the answer's frames. `engine_code` says how it is done.
"""

from __future__ import annotations

import heapq
import itertools
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.engine_code import Code
from benchmarks.engine_costs import CHUNK, LOOK, Device, Load, Parts
from benchmarks.engine_talk import ENDPOINT_S, first_pause_s, talk
from model.chroma.network.hearing import tokens
from model.chroma.serving.admission import REPLY, Capacity, capacity, memory_fits
from model.chroma.serving.conductor import LEAD_S
from model.chroma.serving.meters import Meters
from model.chroma.serving.schedule import Kind, Rest, Schedule, Step, Work

FRAME_S: Final = 0.08
RATE_HZ: Final = 24_000
AROUND: Final = 12
"""Positions around an utterance: the end of its turn and of the answer before, the opening of the next."""
AGAIN: Final = 3
"""Of so many chunks one is encoded and fed again half a second later: louder sound changed 32 %
(docs/figures-engine.md)."""
COLLECT_S: Final = 60.0
"""Between two of Python's collections."""
LOADED_OBJECTS: Final = 357_000
"""What Python's collector walks through in a process with torch and transformers, measured."""
CALL_OBJECTS: Final = 300
"""The same of a conversation: its history's turns and tensors; assumed."""
VOICES_BYTES: Final = 2 << 30


@dataclass(eq=False, slots=True)
class SimulatedReply:
    frames: int
    slot: int
    handed: int = 0
    pending: bool = True
    """its next word is there"""
    began: float = 0.0
    over: Callable[[], None] | None = None
    """told at its first frame"""


@dataclass(eq=False, slots=True)
class Chore:
    """`positions` of a prefill; `samples` for the audio encoder; `mel_s`: seconds of speech to look at."""

    kind: Kind
    positions: int = 0
    samples: int = 0
    mel_s: float = 0.0
    done: Callable[[], None] = lambda: None


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


def predicted_capacity(
    device: Device, parts: Parts, code: Code, slot_context: int, *, leaks: bool = False
) -> Capacity:
    """What admission would measure on the device: contexts full as far as they are promised, all slots in
    every step, and a word for each in every second one (`admission.time_steps`).

    `leaks`: what it tries is still there at the next trial.
    """
    free, limit_s = device.memory - parts.weights, code.share * FRAME_S
    slot = parts.slot(slot_context, code.promised)
    context = min(slot_context, code.promised.context if code.promised else slot_context)
    fits = memory_fits(slot, VOICES_BYTES, int(free))
    points: list[tuple[int, float]] = []
    count, kept = 1, 0
    while True:
        if leaks and (kept + count) * slot > free:
            return Capacity(points[-1][0], "memory", tuple(points))
        kept += count
        both = code.both_steps(parts, count, context, REPLY)
        points.append((count, statistics.fmean(device.seconds(load, count) for load in both)))
        if count == fits or points[-1][1] > limit_s:
            return capacity(points, limit_s)
        count = min(2 * count, fits)


class World:
    """`context` and `reply`: positions that every step reads of each call. `limit`: what admits calls; None:
    all are taken. `slots`: how many there are.
    `first_start`: no kernel is on disk yet."""

    def __init__(
        self,
        device: Device,
        parts: Parts,
        code: Code,
        *,
        slots: int,
        lead_s: float = LEAD_S,
        context: int = 1000,
        reply: int = 800,
        limit: Capacity | None = None,
        warm_up_s: float = 0.0,
        first_start: bool = False,
        schedule: type[Schedule[Any, Any]] = Schedule,
    ) -> None:
        self.device = device
        self.parts = parts
        self.code = code
        self.slots = slots
        self.found = Found()
        self._widths: set[int] = set()
        """of prefills, that a kernel was compiled for"""
        self._context = context
        self._reply = reply
        self._limit = limit
        self._warm_up_s = warm_up_s
        self._first_start = first_start
        self._schedule: Schedule[SimulatedReply, Chore] = schedule(lead_s, FRAME_S)
        self.meters = Meters()
        self._now = 0.0
        self._pause_s = 0.0
        """for which whatever is under way stands still"""
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._at(COLLECT_S, self._collect)

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
        SimulatedCaller(self, seed, self.found.taken - 1).speak_at(self._now + first_pause_s(seed))

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
            until, self._pause_s = until + self._pause_s, 0.0
        self._now = max(self._now, until)

    def _collect(self) -> None:
        """Python's collector, at its own time or at the schedule's."""
        self._at(self._now + COLLECT_S, self._collect)
        if self.code.frozen:
            chore = Chore(Kind.GARBAGE)
            self._schedule.ask(chore, chore.kind, 1, awaited=lambda: False, now=self._now)
            return
        objects = LOADED_OBJECTS + CALL_OBJECTS * self.found.taken
        self._pause_s += objects * self.device.object_s

    def _step(self, replies: list[SimulatedReply]) -> None:
        began, rows = self._now, len(replies)
        pairs = [reply.pending and reply.handed % 2 == 0 for reply in replies]
        words = any(not reply.pending and reply.handed % 2 for reply in replies)
        thinking = 0
        for reply, comes_in in zip(replies, pairs, strict=True):
            reply.pending &= not comes_in
            if words and not reply.pending:
                reply.pending = True
                thinking += 1
        load = self.code.step(
            self.parts, [reply.slot for reply in replies], self.slots,
            thinking=thinking, words=words, pairs=any(pairs),
            begins=sum(reply.handed == 0 for reply in replies),
            context=self._context, reply=self._reply,
        )  # fmt: skip
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
        kind, device, code = chores[0].kind, self.device, self.code
        size = sum(self.size(chore) for chore in chores)
        more = 0.0
        match kind:
            case Kind.PREFILL:
                load = code.prefill(self.parts, [chore.positions for chore in chores], self._context)
                if code.compiles:
                    fresh = {chore.positions for chore in chores} - self._widths
                    self._widths |= fresh
                    more = len(fresh) * (device.compile_s if self._first_start else device.found_s)
            case Kind.GARBAGE:
                load, more = Load(), CALL_OBJECTS * self.found.taken * device.object_s
            case _:
                samples = [chore.samples for chore in chores if chore.samples]
                load = code.hearing(self.parts, len(samples), max(samples, default=0))
                if not code.aside:
                    more = sum(chore.mel_s for chore in chores) / 0.5 * device.mel_s
        seconds = device.seconds(load) + more
        self._schedule.costs.spent(kind, size, seconds)
        self._pass(self._now + seconds)
        if self._measured:
            self.found.work_busy_s += seconds
        for chore in chores:
            chore.done()

    def size(self, chore: Chore) -> int:
        """As the schedule counts."""
        if chore.kind is Kind.PREFILL:
            return chore.positions
        return 1 if self.code.together else max(1, chore.samples)


class SimulatedCaller:
    """Talks by the dice. Speech comes in real time; what it gives the thread to do goes one by one."""

    def __init__(self, world: World, seed: int, slot: int) -> None:
        self._world = world
        self._slot = slot
        self._talk = talk(seed)
        self._chores: list[Chore] = []
        self._working = False
        self._commit: float | None = None
        self._then: Callable[[], None] | None = None
        self._chunks = seed
        """that were whole so far; one in `AGAIN` is heard again"""

    def speak_at(self, when: float) -> None:
        self._world._at(when, self._speak)

    def _hearing(self, samples: int, mel_s: float) -> Chore:
        """What takes one utterance at a time goes as a kind that the schedule does not put together."""
        return Chore(Kind.HEARING if self._world.code.together else Kind.VOICE, samples=samples, mel_s=mel_s)

    def _speak(self) -> None:
        world = self._world
        exchange = next(self._talk)
        began, samples = world._now, round(exchange.speech_s * RATE_HZ)
        again = False
        for at in range(LOOK, samples, LOOK):
            whole = at % CHUNK == 0
            chores = []
            if whole:
                self._chunks += 1
                chores = [self._hearing(CHUNK, 0.5), Chore(Kind.PREFILL, 50)]
            elif again:
                chores = [self._hearing(CHUNK, 0.5), Chore(Kind.PREFILL, 50)]
            elif not world.code.aside:
                chores = [self._hearing(0, 0.5)]
            again = whole and self._chunks % AGAIN == 0
            if chores:
                world._at(began + at / RATE_HZ, lambda chores=chores: self._ask(chores))  # type: ignore[misc]
        rest = samples % CHUNK
        positions = tokens(rest * 100 // RATE_HZ) + AROUND
        looked = rest % LOOK if samples > CHUNK or not world.code.aside else rest
        last = [self._hearing(rest, looked / RATE_HZ), Chore(Kind.PREFILL, positions)]

        def commit() -> None:
            self._commit = world._now
            self._then = lambda: self._answer(exchange.reply_s, exchange.barge_s, exchange.pause_s)
            if world.code.aside:  # the thread is asked when the mel frames are there
                mel_s = looked / LOOK * world.device.mel_s
                world._at(world._now + mel_s, lambda: self._ask(last))
            else:
                self._ask(last)

        world._at(began + exchange.speech_s + ENDPOINT_S, commit)

    def _ask(self, chores: list[Chore]) -> None:
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
        chore = self._chores.pop(0)
        chore.done = self._next
        world._schedule.ask(
            chore, chore.kind, world.size(chore), awaited=lambda: self._then is not None, now=world._now
        )

    def _answer(self, reply_s: float, barge_s: float | None, pause_s: float) -> None:
        world = self._world
        reply = SimulatedReply(max(1, round(reply_s / FRAME_S)), self._slot)

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
