"""What to do next: frames by their deadlines, other work between them. Pure: the clock is the caller's.

A reply's first frame is wanted at once. Frame n is due when the n - 1 before it have been played, counted
from when the first was handed over; a frame that comes later is late, and what follows is due as if it had
not been. A reply's *lead* is how far ahead of that clock it is. It may grow to `lead_s`; below half of that a
step is worth starting, and every reply that has room comes along. A reply whose listener leaves `lead_s` of
frames unread rests, and nothing is due to it. Other work goes where it is measured to fit before the next
deadline, or when leads are as long as they get, or when it has waited for `PATIENCE_S`; before a first frame
only what other callers' first frames wait for, and for no longer than `TOGETHER_S`. A prefill takes along
others that wait, as far as they fit where it does: its cost is mostly the weights'. So does hearing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

PATIENCE_S: Final = 0.25
"""The longest that other work gives way to frames, one step and the work before it aside."""
TOGETHER_S: Final = 0.03
"""What a first frame may wait for other callers' answers, to be made with theirs: a step is not cheap."""
LEAST_FRAMES: Final = 3
"""Of lead, at least: half of it must hold more than one."""
PASS_POSITIONS: Final = 256
"""Prefilled in one pass at most; by then arithmetic outweighs the weights, and frames wait."""
PASS_CHUNKS: Final = 16
"""Encoded in one pass at most."""
GAIN: Final = 1 / 8
"""Of a new measurement in the running mean; a quarter is that of its deviation (RFC 6298's)."""

R = TypeVar("R", bound=Hashable)
J = TypeVar("J")


class Kind(StrEnum):
    """What the thread does."""

    FRAME = "frame"
    """size: replies"""
    PREFILL = "prefill"
    """size: positions"""
    HEARING = "hearing"
    """size: chunks of the audio encoder"""
    VOICE = "voice"
    """size: frames of a clip"""
    SLOT = "slot"
    """cuts and clears; of no size"""
    GARBAGE = "garbage"
    """a collection of Python's; of no size"""


PASSES: Final = {Kind.PREFILL: PASS_POSITIONS, Kind.HEARING: PASS_CHUNKS}
"""The kinds of which several go in one pass, and up to which size."""


@dataclass(frozen=True, slots=True)
class Step(Generic[R]):
    """A frame for each of these, the most urgent first."""

    replies: list[R]


@dataclass(frozen=True, slots=True)
class Work(Generic[J]):
    """A piece of other work; or prefills, or chunks for the audio encoder, in one pass."""

    jobs: list[J]


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing until then, or until something changes."""

    until: float


@dataclass(frozen=True, slots=True)
class Handed:
    """What became of a frame that was handed over: seconds after its deadline (None: it was in time, or the
    first), and seconds since it was wanted."""

    late_s: float | None
    took_s: float


class Costs:
    """What work of a kind and size takes, as it was of late: running mean and twice its deviation, in s."""

    def __init__(self) -> None:
        self._found: dict[Kind, dict[int, tuple[float, float]]] = {kind: {} for kind in Kind}

    def spent(self, kind: Kind, size: int, seconds: float) -> None:
        """Measured once more."""
        found, bucket = self._found[kind], size.bit_length()
        if bucket not in found:
            found[bucket] = (seconds, 0.0)
            return
        mean, deviation = found[bucket]
        error = seconds - mean
        found[bucket] = (mean + GAIN * error, deviation + 2 * GAIN * (abs(error) - deviation))

    def of(self, kind: Kind, size: int) -> float:
        """What to expect; of a size never seen, what the next larger one took, else the largest."""
        found, bucket = self._found[kind], size.bit_length()
        if bucket not in found:
            if not found:
                return 0.0
            bucket = min((b for b in found if b > bucket), default=max(found))
        mean, deviation = found[bucket]
        return mean + 2 * deviation


@dataclass(slots=True)
class _Place:
    """A reply's. `due`: of its next frame, None before the first; `last`: when it could begin to be wanted;
    `unread`: frames that its listener has not taken."""

    last: float
    due: float | None = None
    unread: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Asked(Generic[J]):
    job: J
    kind: Kind
    size: int
    awaited: Callable[[], bool]
    at: float


def _urgency(asked: _Asked[Any]) -> tuple[bool, float]:
    return not asked.awaited(), asked.at


class Schedule(Generic[R, J]):
    """The replies under way and the work that waits."""

    def __init__(self, lead_s: float, frame_s: float) -> None:
        assert lead_s >= LEAST_FRAMES * frame_s, "half of the lead must hold a frame and more"  # noqa: S101  # `Engine` refuses such a setting
        self._lead_s = lead_s
        self._low_s = lead_s / 2
        self._frame_s = frame_s
        self._unread_at_most = max(1, int(lead_s / frame_s))
        self._places: dict[R, _Place] = {}
        self._asked: list[_Asked[J]] = []
        self._gave_way = True
        """the last thing done was not work out of its turn"""
        self.costs = Costs()

    # ── what changes ─────────────────────────────────────────────────────────────────────────────────

    def join(self, reply: R, now: float) -> None:
        """A reply begins."""
        self._places[reply] = _Place(now)

    def leave(self, reply: R) -> None:
        """It needs no more frames."""
        self._places.pop(reply, None)

    def handed(self, reply: R, began: float, now: float) -> Handed:
        """Its next frame, of a step that began then, is with its listener."""
        place = self._places[reply]
        wanted = place.last
        late_s = None
        if place.due is None:
            place.due = now
        else:
            wanted = min(began, max(place.last, place.due - self._low_s))
            late_s = now - place.due if now > place.due else None
        place.due += self._frame_s
        place.last = now
        place.unread += 1
        return Handed(late_s, now - wanted)

    def taken(self, reply: R, now: float) -> bool:
        """The listener took a frame; answers whether the reply had rested for it."""
        place = self._places.get(reply)
        if place is None:
            return False
        rested = place.unread >= self._unread_at_most
        place.unread -= 1
        if rested and place.due is not None:  # what it has not taken it has not played
            place.due = max(place.due, now + place.unread * self._frame_s)
            place.last = now
        return rested

    def ask(self, job: J, kind: Kind, size: int, *, awaited: Callable[[], bool], now: float) -> None:
        """Other work; what somebody waits for by now (`awaited`) goes before the rest."""
        self._asked.append(_Asked(job, kind, size, awaited, now))

    def withdraw(self, job: J) -> None:
        """It need not be done."""
        self._asked = [asked for asked in self._asked if asked.job is not job]

    def abandon(self) -> list[J]:
        """None of it need be done; answers what waited."""
        jobs = [asked.job for asked in self._asked]
        self._asked.clear()
        return jobs

    @property
    def waiting(self) -> int:
        """Pieces of other work."""
        return len(self._asked)

    def leads_s(self, now: float) -> list[float]:
        """How far ahead each reply is that has begun to sound."""
        return [place.due - now for place in self._places.values() if place.due is not None]

    # ── what to do ───────────────────────────────────────────────────────────────────────────────────

    def next(self, now: float) -> Step[R] | Work[J] | Rest:
        """The next thing; work that is answered is no longer asked for."""
        replies, silent, deadline = self._able(now)
        if self._asked and self._gave_way and now - self._asked[0].at >= PATIENCE_S:
            self._gave_way = not replies
            return self._take(self._asked[0], math.inf)
        latest = deadline - self.costs.of(Kind.FRAME, len(replies))
        if silent is not None:
            together = min(latest, silent + TOGETHER_S)
            fitting = self._first(
                one for one in self._asked if one.awaited() and now + self._cost(one) <= together
            )
            return self._step(replies) if fitting is None else self._take(fitting, together - now)
        if self._asked:
            fitting = self._first(one for one in self._asked if now + self._cost(one) <= latest)
            if fitting is not None:
                return self._take(fitting, latest - now)
            if replies:
                return self._step(replies)  # leads grow until it fits
            return self._take(self._asked[0], math.inf)
        if replies and deadline - self._low_s <= now:
            return self._step(replies)
        return Rest(deadline - self._low_s)

    def _able(self, now: float) -> tuple[list[R], float | None, float]:
        """(replies that may be stepped, since when one of them is silent yet, the next deadline of all whose
        listeners listen)."""
        able: list[tuple[float, R]] = []
        silent, deadline = None, math.inf
        for reply, place in self._places.items():
            if place.unread >= self._unread_at_most:
                continue
            if place.due is None:
                able.append((-math.inf, reply))
                silent = place.last if silent is None else min(silent, place.last)
                continue
            deadline = min(deadline, place.due)
            if place.due + self._frame_s - now <= self._lead_s:
                able.append((place.due, reply))
        able.sort(key=lambda one: one[0])
        return [reply for _, reply in able], silent, deadline

    def _step(self, replies: list[R]) -> Step[R]:
        self._gave_way = True
        return Step(replies)

    def _take(self, first: _Asked[J], within_s: float) -> Work[J]:
        """Takes `first`; with what goes in passes also those of its kind that fit into `within_s`."""
        taken, size = [first], first.size
        self._asked.remove(first)
        if (most := PASSES.get(first.kind)) is not None:
            for one in sorted(self._asked, key=_urgency):
                more = size + one.size
                fits = more <= most and self.costs.of(first.kind, more) <= within_s
                if one.kind is first.kind and fits:
                    taken.append(one)
                    size = more
                    self._asked.remove(one)
        return Work([one.job for one in taken])

    @staticmethod
    def _first(asked: Iterable[_Asked[J]]) -> _Asked[J] | None:
        return min(asked, key=_urgency, default=None)

    def _cost(self, asked: _Asked[J]) -> float:
        return self.costs.of(asked.kind, asked.size)
