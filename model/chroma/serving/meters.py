"""What the engine counts, as Prometheus wants it; the names are `voicegate_chroma_*`."""

from __future__ import annotations

from collections import deque
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from model.chroma.serving.schedule import Handed, Kind
from model.task_metrics import TaskFailures

STEP_BUCKETS_S: Final = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.08, 0.12, 0.25,
    0.5,
)  # fmt: skip
"""The promised frame times (25 and 80 ms) are bounds, so that they can be read off."""
FIRST_BUCKETS_S: Final = (0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5, 1.0, 2.0)
ROWS_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
RECENT_STEPS: Final = 400
RECENT_ANSWERS: Final = 50
RECENT_S: Final = 60.0


class Meters:
    """Counts, and the frame times of late. `frame_s` is when a frame was wanted to when it was handed over:
    the step, and what it had to wait for."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        TaskFailures("voicegate_chroma_task_failures", "engine", registry)
        self.recent: deque[tuple[float, float]] = deque(maxlen=RECENT_STEPS)
        """(when, frame time) of the last steps"""
        self._firsts: deque[tuple[float, float]] = deque(maxlen=RECENT_ANSWERS)

        def name(short: str) -> str:
            return f"voicegate_chroma_{short}"

        self._steps = Histogram(
            name("step_seconds"),
            "Of the thread's work, by phase; frame: a batched step, sound included",
            ["phase"],
            buckets=STEP_BUCKETS_S,
            registry=registry,
        )
        self._frame_s = Histogram(
            name("frame_seconds"),
            "From when a frame was wanted to when it was handed over: the longest of each step",
            buckets=STEP_BUCKETS_S,
            registry=registry,
        )
        self._rows = Histogram(
            name("batch_replies"), "Replies in a step", buckets=ROWS_BUCKETS, registry=registry
        )
        self._frames = Counter(name("frames"), "Frames of sound", registry=registry)
        self._misses = Counter(
            name("deadline_misses"), "Frames that came after they had to be played", registry=registry
        )
        self._late_s = Counter(name("late_seconds"), "How late those were, together", registry=registry)
        self._first_frame_s = Histogram(
            name("first_frame_seconds"),
            "From when a reply was asked for to its first frame (TTFT)",
            buckets=FIRST_BUCKETS_S,
            registry=registry,
        )
        self._first_sound_s = Histogram(
            name("first_sound_seconds"),
            "From the end of an utterance to the first frame of its answer",
            buckets=FIRST_BUCKETS_S,
            registry=registry,
        )
        self.voices = Counter(
            name("voices"), "Voices asked for; a hit was prepared before", ["found"], registry=registry
        )
        self.refused = Counter(
            name("refused"), "Conversations refused, by what ran out", ["reason"], registry=registry
        )
        self.lacked = Counter(
            name("out_of_memory"),
            "Work that the device's memory did not hold, by phase; its conversation was refused",
            ["phase"],
            registry=registry,
        )
        self._gauges = {
            short: Gauge(name(short), what, registry=registry)
            for short, what in (
                ("slots", "Conversations that fit"),
                ("slots_used", "Conversations that are open"),
                ("replies", "Replies under way"),
                ("queue", "Pieces of work that wait for the thread"),
                ("least_lead_seconds", "How far the reply that is nearest to its playout is ahead of it"),
                ("voices_kept", "Voices that are prepared"),
                ("voice_bytes", "Of prepared voices, those in use included"),
                ("voice_bytes_limit", "What they may take"),
            )
        }
        self._kv = {
            state: Gauge(name(f"kv_{state}_bytes"), what, ["cache"], registry=registry)
            for state, what in (("reserved", "Of keys and values"), ("live", "Of positions that are in use"))
        }

    # ── counting ─────────────────────────────────────────────────────────────────────────────────────

    def spent(self, kind: Kind, seconds: float) -> None:
        """The thread did something."""
        self._steps.labels(kind.value).observe(seconds)

    def frame(self, handed: Handed) -> None:
        """A frame of sound was handed over."""
        self._frames.inc()
        if handed.late_s is not None:
            self._misses.inc()
            self._late_s.inc(handed.late_s)

    def first(self, asked: float, ended: float | None, now: float) -> None:
        """A reply's first frame is with its listener: when it was asked for, when its utterance ended."""
        self._first_frame_s.observe(now - asked)
        if ended is not None:
            self._first_sound_s.observe(now - ended)
            self._firsts.append((now, now - ended))

    def step(self, replies: int, longest_s: float, now: float) -> None:
        """A step for `replies` replies is done; the frame that took longest took `longest_s`."""
        self._rows.observe(replies)
        self._frame_s.observe(longest_s)
        self.recent.append((now, longest_s))

    def frame_p99_s(self, now: float) -> float | None:
        """The 99th percentile of recent steps' longest frames; None when there were too few to tell."""
        return _recent(self.recent, 0.99, now)

    def first_sound_p95_s(self, now: float) -> float | None:
        """The 95th percentile of recent replies; None when there were too few to tell."""
        return _recent(self._firsts, 0.95, now)

    # ── showing ──────────────────────────────────────────────────────────────────────────────────────

    def show(self, states: dict[str, float], kv: dict[str, tuple[int, int]]) -> str:
        """The exposition. `states`: the gauges' values; `kv`: bytes (reserved, live) by cache."""
        for short, value in states.items():
            self._gauges[short].set(value)
        for cache, (reserved, live) in kv.items():
            self._kv["reserved"].labels(cache).set(reserved)
            self._kv["live"].labels(cache).set(live)
        return generate_latest(self._registry).decode()


def _recent(found: deque[tuple[float, float]], share: float, now: float) -> float | None:
    """The percentile of what `found` holds, if it is full of what is not old."""
    while found and now - found[0][0] > RECENT_S:
        found.popleft()
    if len(found) != found.maxlen:
        return None
    return sorted(took for _, took in found)[int(share * len(found))]
