"""How a call sounds, by what its line tells: what is noted of it, how often, and what of it the front counts.

A line tells the whole call's counts again and again. What was lost between two words is what the present is
rated by; what was lost since the beginning is what the call is rated by in the end. Both ways have a rating:
the caller's sound as it comes here, and ours as it comes to the caller, by the caller's RTCP. A target that
the caller was handed to is rated in the same way, apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.ipc.hall_messages import CallRated, WayRated
from gateway.ipc.line_messages import LineQuality
from gateway.rtp.media.e_model import impairment, mos, rating

EVENT_EVERY_S: Final = 60.0
"""Between two events that say how a call sounds, while that stays good, or bad."""
POOR: Final = 3.6
"""A MOS below which many users are dissatisfied (R < 70, G.107 Annex B)."""
ENOUGH: Final = 50
"""Packets that must have been due for a stretch to be rated."""
PACKET_S: Final = 0.02
"""What a packet of the usual length adds to the delay."""
FAR_BUFFER: Final = 2.0
"""Of a caller's jitter buffer nobody tells anything; this much of the jitter is what it takes at least."""


@dataclass(frozen=True, slots=True)
class QualityNote:
    """What one word of a line comes to."""

    facts: dict[str, object]
    """of the whole call so far, for its session"""
    event: dict[str, object] | None = None
    """None: nothing that must be said now"""
    turned: bool = False
    """the call began to sound poor, or does not any more"""
    rated: CallRated | None = None
    """the whole call, when it is over"""
    stretch: dict[str, object] | None = None
    """of the time since the last word; None where too little was due"""


class CallQuality:
    """One call's. `poor`: it sounds so now, one way or the other."""

    __slots__ = ("_before", "_said_at", "_worst", "poor")

    def __init__(self) -> None:
        self.poor = False
        self._before: LineQuality | None = None
        """the end of the last stretch that was rated"""
        self._said_at: float | None = None
        self._worst: float | None = None

    def take(self, told: LineQuality, at: float) -> QualityNote:
        """A word of the line's, at `at` (`time.monotonic()`)."""
        target = told.target is not None
        trip_s = _s(told.round_trip_ms)
        whole = CallRated(told.call_id, _here(told, None, 1), _far(told, None, 1), trip_s, target)
        facts = _facts(told, whole)
        before = self._before
        here, far = _here(told, before, ENOUGH), _far(told, before, ENOUGH)
        scores = [way.mos for way in (here, far) if way is not None and way.mos is not None]
        if scores and self._worst is not None:
            self._worst = min(self._worst, *scores)
        if before is not None:
            facts["mos_worst"] = self._worst
        stretch = _stretch(told, here, far) if here is not None or far is not None else None
        if told.last:
            self.poor = False
            return QualityNote(facts, facts, rated=whole, stretch=stretch)
        if stretch is None:
            return QualityNote(facts)
        self._before = told
        if not scores:
            return QualityNote(facts, stretch=stretch)
        self._worst = min(scores) if self._worst is None else self._worst
        turned, self.poor = self.poor != (min(scores) < POOR), min(scores) < POOR
        if not turned and self._said_at is not None and at - self._said_at < EVENT_EVERY_S:
            return QualityNote(facts, stretch=stretch)
        self._said_at = at
        return QualityNote(facts, stretch, turned, stretch=stretch)


def _here(told: LineQuality, before: LineQuality | None, least: int) -> WayRated | None:
    """The caller's sound since `before`; None where fewer than `least` packets were due."""
    lost, due = told.lost, told.received + told.lost
    if before is not None:
        lost, due = lost - before.lost, due - before.received - before.lost
    delay_ms = (told.round_trip_ms or 0.0) / 2 + (told.buffer_ms or 0.0)
    return _way(told.codec, lost, due, least, delay_ms, told.jitter_ms)


def _far(told: LineQuality, before: LineQuality | None, least: int) -> WayRated | None:
    """Our sound, as it comes to the caller; None where the caller has told nothing new."""
    if told.far is None:
        return None
    lost, due = told.far.lost, told.far.sent
    if before is not None and before.far is not None:
        lost, due = lost - before.far.lost, due - before.far.sent
    delay_ms = (told.round_trip_ms or 0.0) / 2 + FAR_BUFFER * told.far.jitter_ms
    return _way(told.codec, lost, due, least, delay_ms, told.far.jitter_ms)


def _way(
    codec: str | None, lost: int, due: int, least: int, delay_ms: float, jitter_ms: float | None
) -> WayRated | None:
    if due < least:
        return None
    loss = min(max(0, lost), due) / due  # what came late after all makes less of what was lost before
    costs = impairment(codec)
    score = None
    if costs is not None:
        score = round(mos(rating(costs, loss, max(0.0, delay_ms) / 1000 + PACKET_S)), 2)
    return WayRated(score, round(loss, 4), _s(jitter_ms))


def _s(ms: float | None) -> float | None:
    return None if ms is None else ms / 1000


def _facts(told: LineQuality, whole: CallRated) -> dict[str, object]:
    """Of the call so far."""
    facts: dict[str, object] = {"codec": told.codec, "packets": told.received, "lost": told.lost}
    facts |= {"jitter_ms": told.jitter_ms, "buffer_ms": told.buffer_ms, "round_trip_ms": told.round_trip_ms}
    facts |= {"srtp": told.srtp} if told.srtp else {}
    facts["mos"] = None if whole.from_caller is None else whole.from_caller.mos
    if told.far is not None:
        facts |= {"far_sent": told.far.sent, "far_lost": told.far.lost, "far_jitter_ms": told.far.jitter_ms}
        facts["far_mos"] = None if whole.to_caller is None else whole.to_caller.mos
    return facts


def _stretch(told: LineQuality, here: WayRated | None, far: WayRated | None) -> dict[str, object]:
    """Of the time since the last word."""
    event: dict[str, object] = {"buffer_ms": told.buffer_ms, "round_trip_ms": told.round_trip_ms}
    for name, way, jitter_ms in (
        ("", here, told.jitter_ms),
        ("far_", far, None if told.far is None else told.far.jitter_ms),
    ):
        if way is not None:
            event |= {f"{name}mos": way.mos, f"{name}loss_percent": round(100 * way.loss, 1)}
            event[f"{name}jitter_ms"] = jitter_ms
    return event
