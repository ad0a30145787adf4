"""What `/metrics` says, read back by Prometheus' own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from gateway.front.calls.hall_reports import HallReports
from gateway.front.halls.headroom import Headroom
from gateway.front.house.metrics import Metrics
from gateway.ipc.hall_messages import CallRated, HallHealth, WayRated
from gateway.ipc.line_messages import RtpMoved


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.expose().decode())
        for sample in family.samples
    }


def test_calls_turns_and_refusals_are_counted() -> None:
    metrics = Metrics()
    metrics.call_ended("failed: its line n3 died", lasted_s=12.0)
    metrics.call_ended("hung up: the longest duration was reached")
    metrics.call_ended("the caller wrote this")
    metrics.turn({"engine": 0.04, "whole": 0.5})
    metrics.refused(503, "udp")
    metrics.grant_refused("revoked")
    metrics.alarm("mark")
    seen = samples(metrics)
    assert seen["voicegate_calls_total", (("how", "failed"),)] == 1
    assert seen["voicegate_calls_total", (("how", "hung up"),)] == 1
    assert seen["voicegate_calls_total", (("how", "other"),)] == 1
    assert seen["voicegate_call_seconds_sum", ()] == 12
    assert seen["voicegate_turns_total", ()] == 1
    assert seen["voicegate_latency_seconds_bucket", (("le", "0.4"), ("stage", "whole"))] == 0
    assert seen["voicegate_latency_seconds_bucket", (("le", "0.55"), ("stage", "whole"))] == 1
    assert seen["voicegate_calls_refused_total", (("status", "503"), ("transport", "udp"))] == 1
    assert seen["voicegate_grants_refused_total", (("reason", "revoked"),)] == 1
    assert seen["voicegate_alarms_total", (("kind", "mark"),)] == 1


def test_what_an_alert_waits_for_is_shown_before_it_happens() -> None:
    seen = samples(Metrics())
    assert seen["voicegate_calls_total", (("how", "failed"),)] == 0
    assert seen["voicegate_calls_refused_total", (("status", "503"), ("transport", "udp"))] == 0
    assert seen["voicegate_alarms_total", (("kind", "mark failed"),)] == 0


def test_halls_reports_are_shown_by_hall_the_latest_of_each() -> None:
    metrics = Metrics()
    metrics.hall("hall0", HallHealth(engine=True, counters={"busy_s": 1.0, "seated": 2}))
    metrics.hall("hall0", HallHealth(engine=True, redis=True, counters={"busy_s": 2.5, "seated": 3}))
    metrics.hall("hall1", HallHealth(counters={"busy_s": 4.0}, sessions={"waiting": 7}))
    seen = samples(metrics)
    assert seen["voicegate_hall_up", (("hall", "hall0"), ("part", "redis"))] == 1
    assert seen["voicegate_hall_up", (("hall", "hall1"), ("part", "engine"))] == 0
    assert seen["voicegate_hall_busy_seconds_total", (("hall", "hall0"),)] == 2.5
    assert seen["voicegate_hall_busy_seconds_total", (("hall", "hall1"),)] == 4.0
    assert seen["voicegate_hall_seated", (("hall", "hall0"),)] == 3
    assert seen["voicegate_sessions", (("hall", "hall1"), ("what", "waiting"))] == 7
    metrics.hall_lost("hall1")
    assert not [key for key in samples(metrics) if ("hall", "hall1") in key[1]]


def test_the_fronts_own_state() -> None:
    metrics = Metrics()
    metrics.front(
        calls=3, lines=6, web_lines=1, edge={"dialogs": 4, "invites": 9, "refused": {"403": 2, "503": 1}}
    )
    seen = samples(metrics)
    assert seen["voicegate_calls_live", ()] == 3
    assert seen["voicegate_lines", (("kind", "sip"),)] == 6
    assert seen["voicegate_sip_total", (("detail", ""), ("event", "invites"))] == 9
    assert seen["voicegate_sip_now", (("what", "dialogs"),)] == 4
    assert seen["voicegate_sip_total", (("detail", "503"), ("event", "refused"))] == 1


def test_web_slots_refusals_memory_and_the_build() -> None:
    metrics = Metrics()
    metrics.front(calls=0, lines=0, web_lines=2, web_slots=(12, 5), edge={})
    metrics.web_refused("lines busy")
    metrics.memory({"front": 5000, "hall0": 7000})
    metrics.memory({"front": 6000})
    seen = samples(metrics)
    assert seen["voicegate_web_slots", ()] == 12
    assert seen["voicegate_web_slots_free", ()] == 5
    assert seen["voicegate_web_refused_total", (("reason", "lines busy"),)] == 1
    assert seen["voicegate_process_memory_bytes", (("process", "front"),)] == 6000
    assert not [key for key in seen if ("process", "hall0") in key[1]]
    (build,) = (dict(labels) for name, labels in seen if name == "voicegate_build_info")
    assert set(build) == {"version", "commit", "python"}


def test_how_calls_sounded_is_shown_by_way_and_what_was_not_measured_is_not() -> None:
    metrics = Metrics()
    metrics.call_rated(CallRated("c1", WayRated(4.2, 0.01, 0.003), WayRated(3.4, 0.07, 0.02), 0.12))
    metrics.call_rated(CallRated("c2", WayRated(None, 0.0, None), None, None))
    metrics.call_rated(CallRated("c3", WayRated(4.2, 0.5, 0.003), None, None, target=True))
    seen = samples(metrics)
    assert seen["voicegate_call_mos_count", (("way", "from"),)] == 1
    assert seen["voicegate_call_mos_bucket", (("le", "4.03"), ("way", "from"))] == 0
    assert seen["voicegate_call_mos_bucket", (("le", "4.34"), ("way", "from"))] == 1
    assert seen["voicegate_call_mos_bucket", (("le", "3.6"), ("way", "to"))] == 1
    assert seen["voicegate_call_loss_ratio_count", (("way", "from"),)] == 2
    assert seen["voicegate_call_loss_ratio_count", (("way", "from_target"),)] == 1
    assert seen["voicegate_call_loss_ratio_bucket", (("le", "0.0"), ("way", "from"))] == 1
    assert seen["voicegate_call_jitter_seconds_sum", (("way", "to"),)] == 0.02
    assert seen["voicegate_call_jitter_seconds_count", (("way", "from"),)] == 1
    assert seen["voicegate_call_round_trip_seconds_sum", ()] == 0.12


class Rated:
    """Whose sound is kept with the call."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def rated(self, rated: CallRated) -> None:
        self.calls.append(rated.call_id)


async def test_a_move_is_counted_by_its_way_and_is_an_alarm_when_nobody_described_it() -> None:
    metrics, kept = Metrics(), Rated()
    of_halls = HallReports(metrics, Headroom({}), kept).for_halls  # type: ignore[arg-type]
    reports = {handled.kind: handled.handler for handled in of_halls}
    for way in ("followed", "described", "stream", "stream"):
        await reports[RtpMoved](None, RtpMoved("c1", "a:1", "b:2", way))  # type: ignore[arg-type]
    await reports[CallRated](None, CallRated("c1", None, WayRated(4.0, 0.0, None), None))  # type: ignore[arg-type]
    seen = samples(metrics)
    assert seen["voicegate_rtp_moves_total", (("way", "stream"),)] == 2
    assert seen["voicegate_rtp_moves_total", (("way", "followed"),)] == 1
    assert seen["voicegate_alarms_total", (("kind", "rtp moved"),)] == 1
    assert seen["voicegate_call_mos_sum", (("way", "to"),)] == 4.0
    assert kept.calls == ["c1"]


def test_failures_of_background_tasks_are_shown_by_process_and_task() -> None:
    metrics = Metrics()
    metrics.hall("hall0", HallHealth(task_failures={"hall.judge": 1}))
    metrics.hall("hall0", HallHealth(task_failures={"hall.judge": 2}))
    metrics.task_failures("front", {"front.reap": 3})
    metrics.task_failures("web0", {})
    seen = samples(metrics)
    assert seen["voicegate_task_failures_total", (("process", "hall0"), ("task", "hall.judge"))] == 2
    assert seen["voicegate_task_failures_total", (("process", "front"), ("task", "front.reap"))] == 3
    metrics.hall_lost("hall0")
    assert not [key for key in samples(metrics) if ("process", "hall0") in key[1]]


def test_nothing_that_happened_is_still_a_valid_answer() -> None:
    assert samples(Metrics())["voicegate_turns_total", ()] == 0
