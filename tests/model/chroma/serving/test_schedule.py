"""What is done next, in virtual time: the clock is a number, and so is what everything costs."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.chroma.serving.schedule import (
    PASS_POSITIONS,
    PATIENCE_S,
    TOGETHER_S,
    Costs,
    Kind,
    Rest,
    Schedule,
    Step,
    Work,
)

FRAME_S = 0.08


@dataclass(eq=False)
class Caller:
    """A reply, and what became of it."""

    name: str
    frames: int
    reads: bool = True
    joined: float = 0.0
    handed: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)


@dataclass(eq=False)
class Chore:
    kind: Kind
    size: int
    cost: float
    awaited: bool = False
    asked: float = 0.0
    done: float | None = None


def flat(rows: int) -> float:
    """A step whose cost is mostly the weights'."""
    return 0.010 + 0.0001 * rows


class World:
    """A thread that does as the schedule says, callers who listen at once, and a clock."""

    def __init__(self, lead_s: float = 1.0, step: Callable[[int], float] = flat) -> None:
        self.schedule: Schedule[Caller, Chore] = Schedule(lead_s, FRAME_S)
        self.lead_s = lead_s
        self.now = 0.0
        self.step = step
        self.steps: list[tuple[float, list[Caller]]] = []
        self.longest_lead = -math.inf
        self.done: list[Chore] = []
        self.passes: list[tuple[float, list[Chore]]] = []
        self._waiting: set[Caller] = set()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._number), what))

    def speak(self, caller: Caller) -> None:
        caller.joined = self.now
        self._waiting.add(caller)
        self.schedule.join(caller, self.now)

    def ask(self, chore: Chore) -> None:
        chore.asked = self.now
        self.schedule.ask(chore, chore.kind, chore.size, awaited=lambda: chore.awaited, now=self.now)

    @staticmethod
    def cost(chores: list[Chore]) -> float:
        """As if nothing were gained by doing them together."""
        return sum(chore.cost for chore in chores)

    def _pass(self, until: float) -> None:
        """Time goes by, and what it brings happens."""
        while self._events and self._events[0][0] <= until:
            when, _, what = heapq.heappop(self._events)
            self.now = max(self.now, when)
            what()
        self.now = max(self.now, until)

    def run(self, until: float) -> None:
        while self.now < until:
            match self.schedule.next(self.now):
                case Step(replies):
                    self._step(replies)
                case Work(chores):
                    size, cost = sum(chore.size for chore in chores), self.cost(chores)
                    self.schedule.costs.spent(chores[0].kind, size, cost)
                    self._pass(self.now + cost)
                    self.passes.append((cost, chores))
                    for chore in chores:
                        chore.done = self.now
                        self.done.append(chore)
                case Rest(rest):
                    upcoming = self._events[0][0] if self._events else until
                    assert min(rest, upcoming) > self.now or upcoming <= self.now, "it does not spin"
                    self._pass(min(rest, upcoming, until))

    def _step(self, replies: list[Caller]) -> None:
        assert self._waiting <= set(replies), "who is silent yet is in every step"
        began = self.now
        self.steps.append((began, replies))
        self.schedule.costs.spent(Kind.FRAME, len(replies), self.step(len(replies)))
        silent = set(self._waiting)
        self._pass(began + self.step(len(replies)))
        self._waiting -= silent
        for caller in replies:
            handed = self.schedule.handed(caller, began, self.now)
            caller.handed.append(self.now)
            caller.took.append(handed.took_s)
            if handed.late_s is not None:
                caller.late.append(handed.late_s)
            if len(caller.handed) == caller.frames:
                self.schedule.leave(caller)
            elif caller.reads:
                self.schedule.taken(caller, self.now)
        self.longest_lead = max([self.longest_lead, *self.schedule.leads_s(self.now)])


def test_a_reply_alone_runs_ahead_to_its_lead_and_then_rests() -> None:
    world = World(lead_s=0.8)
    world.speak(caller := Caller("a", 100))
    world.run(3.0)
    assert caller.handed[0] == pytest.approx(flat(1))
    assert not caller.late
    assert 0.4 - FRAME_S < world.longest_lead <= 0.8
    played = (3.0 - caller.handed[0]) / FRAME_S
    assert played <= len(caller.handed) <= played + 0.8 / FRAME_S


def test_replies_that_began_apart_come_to_share_their_steps() -> None:
    world = World()
    callers = [Caller(str(k), 10_000) for k in range(30)]
    for k, caller in enumerate(callers):
        world.at(0.011 * k, lambda caller=caller: world.speak(caller))  # type: ignore[misc]
    world.run(20.0)
    late = [len(replies) for began, replies in world.steps if began > 10.0]
    assert sum(late) / len(late) > 25
    assert len(late) == pytest.approx(10.0 / FRAME_S, rel=0.1), "one step a frame, for all"


def test_the_first_sound_of_a_reply_goes_before_what_is_not_due() -> None:
    world = World()
    for k in range(20):
        world.speak(Caller(str(k), 1000))
    late = Caller("late", 10)
    world.at(2.003, lambda: world.speak(late))
    world.ask(Chore(Kind.VOICE, 25, 0.05))
    world.run(3.0)
    assert late.handed[0] - late.joined <= 2 * flat(21), "at most the step under way, and its own"


def test_first_frames_that_nearly_coincide_are_made_together_and_wait_no_longer_for_that() -> None:
    world = World()
    world.schedule.costs.spent(Kind.PREFILL, 50, 0.004)
    early, late = Caller("early", 100), Caller("late", 100)
    world.at(1.0, lambda: world.speak(early))
    feed = Chore(Kind.PREFILL, 50, 0.004, awaited=True)
    world.at(1.0, lambda: world.ask(feed))
    world.at(1.004, lambda: world.speak(late))
    for _ in range(50):
        world.at(1.002, lambda: world.ask(Chore(Kind.PREFILL, 50, 0.004, awaited=True)))
    world.run(3.0)
    assert early.handed[0] == late.handed[0]
    assert 0.02 < early.handed[0] - 1.0 <= TOGETHER_S + flat(2)


def test_a_frame_that_misses_is_counted_with_how_late_it_was() -> None:
    world = World(step=lambda rows: 0.1)
    world.speak(caller := Caller("a", 11))
    world.run(5.0)
    assert len(caller.late) == 10, "every frame but the first"
    assert caller.late[0] == pytest.approx(0.02)
    assert caller.late[-1] == pytest.approx(0.2), "and what was lost is not forgiven"
    assert all(took == pytest.approx(0.1) for took in caller.took)


def test_what_fits_before_the_next_deadline_goes_at_once_and_what_does_not_waits_for_leads_to_grow() -> None:
    world = World(lead_s=0.8)
    for size, cost in ((1, 0.004), (256, 0.3)):  # known from before
        world.schedule.costs.spent(Kind.PREFILL, size, cost)
    world.speak(caller := Caller("a", 1000))
    small, big = Chore(Kind.PREFILL, 1, 0.004), Chore(Kind.PREFILL, 256, 0.3)
    world.at(0.011, lambda: (world.ask(big), world.ask(small)))  # type: ignore[func-returns-value]
    world.run(2.0)
    assert small.done is not None
    assert big.done is not None
    assert small.done < 0.03
    assert big.done > small.done + 0.3
    assert not caller.late, "not even by work of four frames' length"


def test_what_somebody_waits_for_goes_before_the_rest() -> None:
    world = World()
    chores = [Chore(Kind.VOICE, 1, 0.01, awaited=k == 3) for k in range(5)]
    for chore in chores:
        world.ask(chore)
    chores[4].awaited = True  # since just now
    world.run(1.0)
    assert [world.done.index(chore) for chore in chores] == [2, 3, 4, 0, 1]


def test_prefills_that_wait_go_in_one_pass_awaited_ones_first_up_to_its_bound() -> None:
    world = World()
    chores = [Chore(Kind.PREFILL, 100, 0.01, awaited=k == 4) for k in range(5)]
    small, ear = Chore(Kind.PREFILL, 40, 0.01), Chore(Kind.VOICE, 10, 0.01)
    for chore in (*chores, ear, small):
        world.ask(chore)
    world.run(1.0)
    passes = [together for _, together in world.passes]
    assert passes == [[chores[4], chores[0], small], [chores[1], chores[2]], [chores[3]], [ear]]
    assert all(sum(chore.size for chore in together) <= PASS_POSITIONS for together in passes)


def test_no_prefill_goes_along_that_would_make_a_frame_late() -> None:
    world = World(lead_s=0.8)
    for size in (50, 100, 200):
        world.schedule.costs.spent(Kind.PREFILL, size, size / 1000)
    world.speak(caller := Caller("a", 1000))
    chores = [Chore(Kind.PREFILL, 50, 0.05) for _ in range(4)]
    world.at(0.011, lambda: [world.ask(chore) for chore in chores])  # type: ignore[func-returns-value]
    world.run(2.0)
    assert len(world.passes[0][1]) == 2, "there are .14 s to the next deadline but one step"
    assert len(world.done) == 4
    assert not caller.late


def test_work_is_done_even_where_frames_leave_no_time_at_all() -> None:
    world = World(step=lambda rows: 0.2)
    for k in range(4):
        world.speak(Caller(str(k), 10_000))
    chores = [Chore(Kind.VOICE, 64, 0.05) for _ in range(6)]
    world.at(1.0, lambda: [world.ask(chore) for chore in chores])  # type: ignore[func-returns-value]
    world.run(10.0)
    for k, chore in enumerate(chores):
        assert chore.done is not None
        assert chore.done <= 1.0 + PATIENCE_S + (k + 1) * (0.2 + 0.05) + 0.2, "a step, a piece, a step, …"
    ends = [chore.done for chore in chores if chore.done is not None]
    assert all(later - end >= 0.2 for end, later in itertools.pairwise(ends)), "frames go on between"


def test_a_listener_that_stops_reading_rests_and_holds_nobody() -> None:
    world = World(lead_s=0.8)
    deaf, other = Caller("deaf", 1000, reads=False), Caller("other", 1000)
    world.speak(deaf)
    world.speak(other)
    world.run(5.0)
    assert len(deaf.handed) == 10, "its lead, and no more"
    assert not other.late
    assert len(other.handed) > 4.5 / FRAME_S
    handed = len(deaf.handed)
    deaf.reads = True  # it comes back, having held up itself only
    for _ in range(handed):
        world.schedule.taken(deaf, world.now)
    world.run(8.0)
    assert not deaf.late
    assert not other.late
    assert len(deaf.handed) > handed + 2.5 / FRAME_S


@settings(max_examples=60)
@given(
    st.floats(0.24, 2.0),
    st.floats(0.001, 0.07),
    st.floats(0.0, 0.002),
    st.lists(st.tuples(st.floats(0, 8), st.integers(1, 120), st.booleans()), min_size=1, max_size=25),
    st.lists(st.tuples(st.floats(0, 8), st.floats(0.001, 0.15), st.booleans()), max_size=25),
)
def test_whatever_comes(
    lead_s: float,
    base: float,
    each: float,
    replies: list[tuple[float, int, bool]],
    chores: list[tuple[float, float, bool]],
) -> None:
    """No reply starves, no lead exceeds its bound, no first sound waits for a step that is not its own, no
    work waits for ever."""
    world = World(lead_s, lambda rows: base + each * rows)
    callers = [Caller(str(k), frames, reads) for k, (_, frames, reads) in enumerate(replies)]
    for caller, (when, _, _) in zip(callers, replies, strict=True):
        world.at(when, lambda caller=caller: world.speak(caller))  # type: ignore[misc]
    work = [Chore(Kind.PREFILL, round(1000 * cost), cost, awaited) for _, cost, awaited in chores]
    for chore, (when, _, _) in zip(work, chores, strict=True):
        world.at(when, lambda chore=chore: world.ask(chore))  # type: ignore[misc]
    longest_step, all_work = base + each * len(callers), sum(chore.cost for chore in work)
    world.run(60.0)
    assert world.longest_lead <= lead_s + 1e-9
    most = max(1, int(lead_s / FRAME_S))
    for caller in callers:
        assert len(caller.handed) == (caller.frames if caller.reads else min(caller.frames, most))
        piece = max([0.0, *(cost for cost, _ in world.passes)])
        assert caller.handed[0] - caller.joined <= 2 * longest_step + 2 * piece + 1e-9
    for chore in work:
        assert chore.done is not None
        # each piece out of its turn makes way for one step
        assert chore.done - chore.asked <= PATIENCE_S + all_work + (len(work) + 2) * longest_step + 1e-9
    if longest_step <= FRAME_S / 2 and not work:
        assert not any(caller.late for caller in callers), "with time enough nothing is late"


def test_a_cost_is_what_it_was_of_late_and_a_bit_more_when_it_varies() -> None:
    costs = Costs()
    assert costs.of(Kind.PREFILL, 256) == 0.0
    for _ in range(50):
        costs.spent(Kind.PREFILL, 256, 0.02)
    assert costs.of(Kind.PREFILL, 256) == pytest.approx(0.02)
    assert costs.of(Kind.PREFILL, 20) == pytest.approx(0.02), "less is not known to be faster"
    assert costs.of(Kind.PREFILL, 5000) == pytest.approx(0.02)
    assert costs.of(Kind.FRAME, 1) == 0.0
    for k in range(50):
        costs.spent(Kind.PREFILL, 256, 0.02 + 0.01 * (k % 2))
    assert 0.03 < costs.of(Kind.PREFILL, 256) < 0.04
