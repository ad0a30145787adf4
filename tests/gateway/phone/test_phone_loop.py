"""The test phone's loop: timers, and what other threads hand over."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from gateway.phone.phone_loop import Loop


@pytest.fixture
def loop() -> Loop:
    return Loop()


def in_a_thread(function: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_what_is_handed_over_is_done_in_order_and_before_what_it_hands_over_itself(loop: Loop) -> None:
    done: list[object] = []

    def first() -> None:
        done.append("first")
        loop.call(done.append, "last")
        loop.call(loop.stop)

    loop.call(first)
    for n in range(100):
        loop.call(done.append, n)
    loop.run()
    assert done == ["first", *range(100), "last"]


def test_other_threads_wake_it_and_each_ones_calls_stay_in_order(loop: Loop) -> None:
    done: list[tuple[int, int]] = []
    running = in_a_thread(loop.run)

    def hand_over(thread: int) -> None:
        for n in range(1000):
            loop.call(done.append, (thread, n))

    others = [in_a_thread(partial(hand_over, thread)) for thread in range(3)]
    for other in others:
        other.join(10)
    loop.call(loop.stop)
    running.join(10)
    assert not running.is_alive()
    for thread in range(3):
        assert [n for who, n in done if who == thread] == list(range(1000))


def test_all_runs_in_the_thread_of_the_loop(loop: Loop) -> None:
    threads: list[threading.Thread] = []

    def here() -> None:
        threads.append(threading.current_thread())
        if len(threads) == 2:
            loop.stop()

    loop.later(0.0, here)
    running = in_a_thread(loop.run)
    loop.call(here)
    running.join(10)
    assert threads == [running] * 2


def test_timers_run_when_they_are_due_in_the_order_of_their_times(loop: Loop) -> None:
    done: list[str] = []
    began = time.monotonic()
    loop.later(0.04, done.append, "third")
    loop.later(0.02, done.append, "second")
    loop.later(0.0, done.append, "first")
    loop.later(0.05, loop.stop)
    loop.run()
    assert done == ["first", "second", "third"]
    assert time.monotonic() - began >= 0.05


def test_timers_of_one_time_run_in_the_order_in_which_they_were_set(loop: Loop) -> None:
    done: list[int] = []
    for n in range(50):
        loop.later(-1.0, done.append, n)
    loop.later(0.0, loop.stop)
    loop.run()
    assert done == list(range(50))


def test_a_timer_may_set_the_next_one(loop: Loop) -> None:
    done: list[int] = []

    def count(n: int) -> None:
        done.append(n)
        if n == 5:
            loop.stop()
        else:
            loop.later(0.001, count, n + 1)

    loop.later(0.0, count, 1)
    loop.run()
    assert done == [1, 2, 3, 4, 5]


def test_a_task_that_raises_is_noted_and_the_rest_is_done(
    loop: Loop, capfd: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []

    def fail() -> None:
        done.append("failed")
        raise KeyError("a bug")

    loop.call(fail)
    loop.later(0.0, fail)
    loop.later(0.01, done.append, "done")
    loop.later(0.01, loop.stop)
    loop.run()
    assert done == ["failed"] * 2 + ["done"]
    notes = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [note["event"] for note in notes] == ["phone.task_failed"] * 2
    assert {note["error"] for note in notes} == {"KeyError: 'a bug'"}
    assert "fail" in notes[0]["task"]


def test_another_thread_stops_it_while_it_waits_for_nothing(loop: Loop) -> None:
    running = in_a_thread(loop.run)
    loop.stop()
    running.join(5)
    assert not running.is_alive()


def test_what_was_handed_over_before_the_stop_is_done(loop: Loop) -> None:
    done: list[str] = []
    loop.call(loop.stop)
    loop.call(done.append, "still")
    loop.run()
    assert done == ["still"]


def test_one_that_was_stopped_before_it_ran_does_not_run(loop: Loop) -> None:
    done: list[str] = []
    loop.later(0.0, done.append, "never")
    loop.stop()
    loop.run()
    assert done == []
