"""Prometheus metrics of the whole house, exposed by the front.

Halls count in plain numbers (they may not spend their 20 ms on this) and report them with their health; the
front keeps each hall's latest report and counts by itself what it decides. A process that restarts begins at
zero, which is what `rate()` of Prometheus expects. Labels hold words from short lists, never what a caller
wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.front.house.build_facts import build_facts
from gateway.ipc.ending import CallEnding, Party
from gateway.ipc.front_messages import TrunkState
from gateway.ipc.hall_messages import CallRated, HallHealth
from model.task_metrics import family

LATENCY_BUCKETS_S: Final = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.55, 0.65, 0.8, 1.0, 1.5, 2.0, 4.0)
"""The promised limits (150 to 300 ms, 550 and 650 ms) are bounds, so that they can be read off."""
DURATION_BUCKETS_S: Final = (5, 10, 30, 60, 120, 300, 600, 1800, 3600)
MOS_BUCKETS: Final = (1.5, 2.0, 2.58, 3.1, 3.6, 4.03, 4.34, 4.5)
"""From 2.58 on the borders between G.107's classes of how satisfied users are (Annex B)."""
LOSS_BUCKETS: Final = (0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
JITTER_BUCKETS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
TRIP_BUCKETS_S: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1.0)

HALL_COUNTERS: Final = {
    "frames": "Frames of 20 ms that the hall answered",
    "turns": "Passes over the calls, one per tick of the lines",
    "late_turns": "Passes that took longer than half a frame",
    "late_ticks": "Ticks that came too late for their pass",
    "busy_s": "Seconds spent in passes",
    "marked_s": "Seconds of sound that were marked",
    "mark_alarms": "Frames that could not be marked and went out as silence",
    "marks_checked": "Windows of 10 s of voice whose mark was looked for",
    "underruns": "Frames that a line pulled in vain",
    "echoes": "Echoes of our voice that were found in calls",
    "echo_looks": "Looks for an echo of our voice",
    "turns_written": "Callers' turns that were written down beside their calls",
    "turns_unwritten": "Callers' turns that were not: too many waited for it",
    "echo_frames_late": "Frames of 20 ms that there was no time to take an echo out of",
}
"""What halls count, of `HallHealth.counters`; what is not listed is a gauge."""

ALARMS: Final = (
    "mark failed", "rtp moved", "ledger unwitnessed", "revocations in doubt", "events lost",
    "events not kept", "events broken",
)  # fmt: skip
"""Kinds that are shown before they happen, for else `increase()` would not see the first one."""
TRANSPORTS: Final = ("udp", "tcp", "tls", "ws", "wss", "webrtc")
"""By which a call that there is no time for may come; the same."""
EDGE_HOLDS: Final = frozenset(
    {"dialogs", "transactions", "slots", "slots_free", "unacknowledged", "connections", "bindings",
     "bindings_lost", "bindings_silent"}
)  # fmt: skip
"""Of the edge's stats, what is a state and no count."""


class Metrics:
    """What `/metrics` shows."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._halls: dict[str, HallHealth] = {}
        self._front: dict[str, Any] = {}
        self._failures: dict[str, Mapping[str, int]] = {}
        self._memory: dict[str, int] = {}
        self._calls = Counter("voicegate_calls", "Calls that ended, by how", ["how"], registry=self._registry)
        self._seconds = Histogram(
            "voicegate_call_seconds",
            "How long calls lasted",
            buckets=DURATION_BUCKETS_S,
            registry=self._registry,
        )
        self._turns = Counter("voicegate_turns", "Caller's turns that were answered", registry=self._registry)
        self._latency = Histogram(
            "voicegate_latency_seconds",
            "Of an answer, by stage; whole: from the end of speech to the first sound",
            ["stage"],
            buckets=LATENCY_BUCKETS_S,
            registry=self._registry,
        )
        self._refused = Counter(
            "voicegate_calls_refused",
            "Calls not taken, by what the caller heard (of webrtc an HTTP status)",
            ["status", "transport"],
            registry=self._registry,
        )
        self._http = Counter(
            "voicegate_http_refused",
            "Requests refused by why: token, wait, page, host, size, away, over, or the right missing",
            ["why"],
            registry=self._registry,
        )
        self._web_refused = Counter(
            "voicegate_web_refused",
            "Calls that browsers offered over HTTP and that were not taken, by reason",
            ["reason"],
            registry=self._registry,
        )
        Info("voicegate_build", "Which gateway this is", registry=self._registry).info(build_facts())
        self._grants = Counter(
            "voicegate_grants_refused", "Voices not allowed, by reason", ["reason"], registry=self._registry
        )
        self._alarms = Counter(
            "voicegate_alarms", "What somebody must look at, by kind", ["kind"], registry=self._registry
        )
        for kind in ALARMS:
            self._alarms.labels(kind)
        for party in Party:
            self._calls.labels(party.value)
        for transport in TRANSPORTS:
            self._refused.labels("503", transport)
        self._mos = self._sound("mos", "MOS of calls that are over (G.107)", MOS_BUCKETS)
        self._loss = self._sound("loss_ratio", "Share of a call's packets that was not heard", LOSS_BUCKETS)
        self._jitter = self._sound("jitter_seconds", "Jitter of calls that are over", JITTER_BUCKETS_S)
        self._trip = Histogram(
            "voicegate_call_round_trip_seconds",
            "Of RTP, as RTCP measured it",
            buckets=TRIP_BUCKETS_S,
            registry=self._registry,
        )
        self._moves = Counter(
            "voicegate_rtp_moves",
            "Callers' sound that came from elsewhere all at once, by why it was believed",
            ["way"],
            registry=self._registry,
        )
        self._hep = Counter(
            "voicegate_hep_packets", "SIP messages for a HEP collector", ["outcome"], registry=self._registry
        )
        for outcome in ("sent", "lost"):
            self._hep.labels(outcome)
        self._registry.register(_Reports(self._halls, self._front, self._failures, self._memory))

    def _sound(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        """One of a call's ways: from the caller or to it; the same of its target, whose labels end so."""
        return Histogram(f"voicegate_call_{name}", text, ["way"], buckets=buckets, registry=self._registry)

    def call_ended(self, how: str, lasted_s: float | None = None) -> None:
        """A call ended as `CallEnding` says; the label is whose doing it was."""
        self._calls.labels(CallEnding.read(how).party.value).inc()
        if lasted_s is not None:
            self._seconds.observe(lasted_s)

    def turn(self, latency: Mapping[str, float]) -> None:
        """A turn was answered; `latency` is seconds by stage."""
        self._turns.inc()
        for stage, seconds in latency.items():
            self._latency.labels(stage).observe(seconds)

    def call_rated(self, rated: CallRated) -> None:
        """A call is over, and sounded so."""
        whom = "_target" if rated.target else ""
        for side, way in (("from", rated.from_caller), ("to", rated.to_caller)):
            if way is None:
                continue
            name = f"{side}{whom}"
            self._loss.labels(name).observe(way.loss)
            if way.mos is not None:
                self._mos.labels(name).observe(way.mos)
            if way.jitter_s is not None:
                self._jitter.labels(name).observe(way.jitter_s)
        if rated.round_trip_s is not None:
            self._trip.observe(rated.round_trip_s)

    def rtp_moved(self, way: str) -> None:
        """A caller's sound comes from elsewhere; `way` is one of `gateway.ipc.line_messages.MoveWay`."""
        self._moves.labels(way).inc()

    def hep(self, outcome: str) -> None:
        """A SIP message for a HEP collector was `sent`, or `lost`."""
        self._hep.labels(outcome).inc()

    def refused(self, status: int, transport: str) -> None:
        """A call was not taken; `transport` is that of `CallFacts`."""
        self._refused.labels(str(status), transport).inc()

    def http_refused(self, why: str) -> None:
        """A request of HTTP was refused before it was heard; see `gateway.front.http.boundary`."""
        self._http.labels(why).inc()

    def web_refused(self, reason: str) -> None:
        """A browser's offer was refused; the word is one of `gateway.front.http.refused_offers`'s."""
        self._web_refused.labels(reason).inc()

    def memory(self, resident: Mapping[str, int]) -> None:
        """Bytes in memory by process."""
        self._memory.clear()
        self._memory.update(resident)

    def grant_refused(self, reason: str) -> None:
        """`reason` is one of `consent.grants.grant.REASONS`."""
        self._grants.labels(reason).inc()

    def alarm(self, kind: str) -> None:
        self._alarms.labels(kind).inc()

    def alarms(self) -> dict[str, int]:
        """How often somebody had to look at something since this front began, by kind; of what happened."""
        samples = (sample for family in self._alarms.collect() for sample in family.samples)
        totals = {one.labels["kind"]: int(one.value) for one in samples if one.name.endswith("_total")}
        return {kind: count for kind, count in totals.items() if count}

    def hall(self, name: str, health: HallHealth) -> None:
        """How a hall is."""
        self._halls[name] = health
        self.task_failures(name, health.task_failures)

    def task_failures(self, process: str, counts: Mapping[str, int]) -> None:
        """Background tasks of a process that failed since its start, by task."""
        self._failures[process] = dict(counts)

    def hall_lost(self, name: str) -> None:
        self._halls.pop(name, None)
        self._failures.pop(name, None)

    def front(
        self,
        *,
        calls: int,
        lines: int,
        web_lines: int,
        web_slots: tuple[int, int] = (0, 0),
        edge: Mapping[str, Any],
        feeds: Mapping[str, Mapping[str, float]] = {},
        trunks: Sequence[TrunkState] = (),
        receivers: Mapping[str, tuple[int, int]] = {},
        listeners: int = 0,
    ) -> None:
        """The front now. `edge`: counts by event, or by event and detail ({"refused": {"503": 2}}).

        `web_slots`: places for browsers' calls, and how many are free.
        `feeds`: by process, what its feed of revocations says of itself. `receivers`: of events, by name, how
        many wait for it and how many it will never be told; `listeners`: of the stream.
        """
        self._front.update(
            calls=calls, lines={"sip": lines, "web": web_lines}, edge=edge, feeds=feeds, trunks=trunks,
            receivers=receivers, listeners=listeners, web_slots=web_slots,
        )  # fmt: skip

    def expose(self) -> bytes:
        """The text of `/metrics` (content type: `prometheus_client.CONTENT_TYPE_LATEST`)."""
        return generate_latest(self._registry)

    def families(self) -> list[Metric]:
        """The same as objects."""
        return list(self._registry.collect())


class _Reports:
    """What others reported, as prometheus_client asks of a collector."""

    def __init__(
        self,
        halls: Mapping[str, HallHealth],
        front: Mapping[str, Any],
        failures: Mapping[str, Mapping[str, int]],
        memory: Mapping[str, int],
    ) -> None:
        self._halls = halls
        self._front = front
        self._failures = failures
        self._memory = memory

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield from self._of_front()
        yield from self._of_halls()
        yield family("voicegate_task_failures", self._failures)
        memory = GaugeMetricFamily(
            "voicegate_process_memory_bytes",
            "Resident memory of each process of the house; of pages in common each counts all",
            labels=["process"],
        )
        for process, resident in self._memory.items():
            memory.add_metric([process], resident)
        yield memory

    def _of_front(self) -> Iterator[Metric]:
        if not self._front:
            return
        yield GaugeMetricFamily("voicegate_calls_live", "Calls now", value=self._front["calls"])
        lines = GaugeMetricFamily("voicegate_lines", "Lines that are up", labels=["kind"])
        for kind, count in self._front["lines"].items():
            lines.add_metric([kind], count)
        yield lines
        slots, free = self._front["web_slots"]
        yield GaugeMetricFamily("voicegate_web_slots", "Places for browsers' calls", value=slots)
        yield GaugeMetricFamily("voicegate_web_slots_free", "Those of them that are free", value=free)
        now = GaugeMetricFamily("voicegate_sip_now", "What the edge holds", labels=["what"])
        edge = CounterMetricFamily("voicegate_sip", "What the edge met", labels=["event", "detail"])
        for event, count in self._front["edge"].items():
            if event in EDGE_HOLDS:
                now.add_metric([event], float(count))
                continue
            for detail, number in count.items() if isinstance(count, Mapping) else [("", count)]:
                edge.add_metric([str(event), str(detail)], float(number))
        yield now
        yield edge
        yield from self._of_trunks()
        yield from self._of_feeds()
        yield from self._of_events()

    def _of_events(self) -> Iterator[Metric]:
        listeners = self._front["listeners"]
        yield GaugeMetricFamily("voicegate_event_listeners", "Who listens to events", value=listeners)
        waiting = GaugeMetricFamily("voicegate_events_waiting", "Events for a receiver", labels=["receiver"])
        missed = CounterMetricFamily(
            "voicegate_events_missed", "Events that a receiver is never told", labels=["receiver"]
        )
        for receiver, (waits, lost) in self._front["receivers"].items():
            waiting.add_metric([receiver], waits)
            missed.add_metric([receiver], lost)
        yield from (waiting, missed)

    def _of_trunks(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("voicegate_trunk_up", "Whether calls can leave by a trunk", labels=["trunk"])
        calls = GaugeMetricFamily("voicegate_trunk_calls", "Calls that left by a trunk", labels=["trunk"])
        answers = CounterMetricFamily(
            "voicegate_trunk_answers", "Final answers to calls that left", labels=["trunk", "status"]
        )
        kept = CounterMetricFamily(
            "voicegate_trunk_not_let_out", "Calls that did not leave", labels=["trunk", "why"]
        )
        out = GaugeMetricFamily(
            "voicegate_trunk_out", "Whether a trunk was taken out of service", labels=["trunk"]
        )
        for trunk in self._front["trunks"]:
            out.add_metric([trunk.name], float(trunk.out is not None))
            up.add_metric([trunk.name], float(trunk.why is None))
            calls.add_metric([trunk.name], trunk.calls)
            for status, count in trunk.answers.items():
                answers.add_metric([trunk.name, status], count)
            for why, count in trunk.not_let_out.items():
                kept.add_metric([trunk.name, why], count)
        yield from (up, out, calls, answers, kept)

    def _of_feeds(self) -> Iterator[Metric]:
        doubt = GaugeMetricFamily(
            "voicegate_revocations_in_doubt", "1: this process may learn late of them", labels=["process"]
        )
        heard = CounterMetricFamily(
            "voicegate_revocations_not_ours",
            "What came as a revocation and was none, or failed otherwise",
            labels=["process", "what"],
        )
        for process, figures in self._front["feeds"].items():
            for what, value in figures.items():
                if what == "in_doubt":
                    doubt.add_metric([process], value)
                else:
                    heard.add_metric([process, what], value)
        yield doubt
        yield heard

    def _of_halls(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("voicegate_hall_up", "What a hall can reach", labels=["hall", "part"])
        sessions = GaugeMetricFamily(
            "voicegate_sessions",
            "Living sessions, writes waiting for Redis, writes lost",
            labels=["hall", "what"],
        )
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for hall, health in self._halls.items():
            up.add_metric([hall, "engine"], float(health.engine))
            up.add_metric([hall, "redis"], float(health.redis))
            for what, waiting in health.sessions.items():
                sessions.add_metric([hall, what], float(waiting))
            for name, count in health.counters.items():
                counted = families.setdefault(name, _hall_family(name))
                counted.add_metric([hall], count)
        yield up
        yield sessions
        yield from families.values()


def _hall_family(name: str) -> CounterMetricFamily | GaugeMetricFamily:
    full = f"voicegate_hall_{name.removesuffix('_s')}" + ("_seconds" if name.endswith("_s") else "")
    if name in HALL_COUNTERS:
        return CounterMetricFamily(full, HALL_COUNTERS[name], labels=["hall"])
    return GaugeMetricFamily(full, f"The hall's {name}", labels=["hall"])
