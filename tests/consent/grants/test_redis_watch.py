"""A process says once that its Redis is away, and once that it is back."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from consent.grants import redis_watch
from consent.grants.redis_watch import BEGINS_WITHIN_S, LONGEST_WAIT_S, Backoff, RedisWatch, redis_place

GONE = ConnectionError("no route")


class Clock:
    """Stands for the module `time`."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(redis_watch, "time", clock)
    return clock


def test_however_many_parts_and_tries_it_is_one_line_each(clock: Clock) -> None:
    watch = RedisWatch("redis://vg:hush@h:6380/2")
    with capture_logs() as logs:
        watch.reached("sessions")
        watch.reached("revocations")
        for _ in range(50):
            watch.failed("revocations", GONE)
            watch.failed("sessions", GONE)
        clock.now += 7
        watch.reached("sessions")
        assert len(logs) == 1, "another part does not reach it yet"
        watch.reached("revocations")
        watch.reached("revocations")
    assert logs == [
        {
            "event": "redis.away", "log_level": "warning", "redis": "redis://h:6380/2",
            "error": "ConnectionError: no route",
        },
        {"event": "redis.back", "log_level": "info", "redis": "redis://h:6380/2", "away_s": 7.0},
    ]  # fmt: skip


def test_it_goes_again_and_is_said_again(clock: Clock) -> None:
    watch = RedisWatch("redis://h")
    with capture_logs() as logs:
        for _ in range(3):
            watch.reached("sessions")
            watch.failed("sessions", GONE)
    assert [log["event"] for log in logs] == ["redis.away", "redis.back"] * 2 + ["redis.away"]


def test_one_that_begins_beside_us_is_missed_only_after_a_while(clock: Clock) -> None:
    watch = RedisWatch("redis://h")
    with capture_logs() as logs:
        watch.failed("sessions", GONE)
        watch.reached("sessions")
        assert logs == []
        other = RedisWatch("redis://h")
        other.failed("sessions", GONE)
        clock.now += BEGINS_WITHIN_S
        other.failed("sessions", GONE)
    assert [log["event"] for log in logs] == ["redis.away"]


def test_pauses_grow_to_a_limit_and_begin_anew() -> None:
    backoff = Backoff()
    pauses = [backoff.pause_s() for _ in range(12)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_WAIT_S
    backoff.reset()
    assert backoff.pause_s() == pauses[0]


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://:hush@10.0.0.1:6379/0", "redis://10.0.0.1:6379/0"),
        ("rediss://vg:hu@sh@redis.local", "rediss://redis.local"),
        ("redis://[::1]:7000/1?password=hush", "redis://[::1]:7000/1"),
        ("unix://vg:hush@/run/redis.sock?db=1", "unix:///run/redis.sock"),
        ("redis://h:hush/0", "VOICEGATE_REDIS_URL"),
    ],
)
def test_a_place_has_no_password(url: str, place: str) -> None:
    assert redis_place(url) == place
