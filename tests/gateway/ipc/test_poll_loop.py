"""The line's own loop: sockets, timers, and what other threads hand over."""

from __future__ import annotations

import json
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from gateway.ipc.poll_loop import Loop

Pairs = list[tuple[socket.socket, socket.socket]]


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def pairs() -> Iterator[Pairs]:
    made = [socket.socketpair() for _ in range(3)]
    yield made
    for ours, theirs in made:
        ours.close()
        theirs.close()


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


def test_all_runs_in_the_thread_of_the_loop(loop: Loop, pairs: Pairs) -> None:
    threads: list[threading.Thread] = []

    def here(*_: object) -> None:
        threads.append(threading.current_thread())
        if len(threads) == 3:
            loop.stop()

    def read(_: int) -> None:
        loop.forget(pairs[0][0].fileno())
        here()

    loop.watch(pairs[0][0].fileno(), select.POLLIN, read)
    loop.later(0.0, here)
    running = in_a_thread(loop.run)
    loop.call(here)
    pairs[0][1].send(b"x")
    running.join(10)
    assert threads == [running] * 3


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
    loop: Loop, pairs: Pairs, capfd: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []

    def fail(*_: object) -> None:
        done.append("failed")
        raise KeyError("a bug")

    def fail_to_read(_: int) -> None:
        loop.forget(pairs[0][0].fileno())
        fail()

    pairs[0][1].send(b"x")
    loop.watch(pairs[0][0].fileno(), select.POLLIN, fail_to_read)
    loop.call(fail)
    loop.later(0.0, fail)
    loop.later(0.01, done.append, "done")
    loop.later(0.01, loop.stop)
    loop.run()
    assert done == ["failed"] * 3 + ["done"]
    notes = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [note["event"] for note in notes] == ["line.task_failed"] * 3
    assert {note["error"] for note in notes} == {"KeyError: 'a bug'"}
    assert "fail_to_read" in notes[0]["task"]


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


def test_a_socket_is_told_of_until_it_is_read_and_by_its_newest_watcher(loop: Loop, pairs: Pairs) -> None:
    ours, theirs = pairs[0]
    seen: list[tuple[str, int]] = []

    def old(events: int) -> None:
        seen.append(("old", events))
        if len(seen) == 2:
            loop.watch(ours.fileno(), select.POLLIN | select.POLLOUT, new)

    def new(events: int) -> None:
        seen.append(("new", events))
        loop.stop()

    theirs.send(b"x")
    loop.watch(ours.fileno(), select.POLLIN, old)
    loop.run()
    assert seen == [("old", select.POLLIN)] * 2 + [("new", select.POLLIN | select.POLLOUT)]


def test_a_hang_up_is_told_to_who_watches_for_nothing(loop: Loop, pairs: Pairs) -> None:
    ours, theirs = pairs[0]
    seen: list[int] = []

    def hung_up(events: int) -> None:
        seen.append(events)
        loop.forget(ours.fileno())
        loop.stop()

    theirs.send(b"x")
    theirs.close()
    loop.watch(ours.fileno(), 0, hung_up)
    loop.run()
    assert len(seen) == 1
    assert seen[0] & select.POLLHUP


def test_who_is_forgotten_by_another_callback_of_the_same_turn_is_not_called(
    loop: Loop, pairs: Pairs
) -> None:
    called: list[int] = []
    watched = [ours.fileno() for ours, _ in pairs]

    def forget_the_others(fd: int, _: int) -> None:
        called.append(fd)
        for other in watched:
            loop.forget(other)
        loop.stop()

    for ours, theirs in pairs:
        theirs.send(b"x")
        loop.watch(ours.fileno(), select.POLLIN, partial(forget_the_others, ours.fileno()))
    loop.run()
    assert len(called) == 1


def test_who_is_not_watched_may_be_forgotten(loop: Loop) -> None:
    loop.forget(os.open(os.devnull, os.O_RDONLY))
    loop.forget(-1)
