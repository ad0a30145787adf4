"""Background tasks: none fails unseen, none vanishes, all end with their owner."""

from __future__ import annotations

import asyncio
import errno
import gc
import subprocess
import sys
import weakref

import pytest
from structlog.testing import capture_logs

from model import tasks
from model.tasks import Tasks, race


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "PAUSES_S", (0.0, 0.001))


async def boom() -> None:
    raise RuntimeError("boom")


async def test_a_failure_is_logged_with_its_name_and_counted() -> None:
    with capture_logs() as logs:
        task = Tasks().short(boom(), "the tidy")
        await asyncio.wait({task})
    (line,) = logs
    assert (line["event"], line["task"], line["error"]) == ("task.failed", "the tidy", "RuntimeError: boom")
    assert isinstance(line["exc_info"], RuntimeError), "the log has its traceback"
    assert tasks.failures == {"the tidy": 1}


async def test_an_error_that_somebody_takes_is_no_failure() -> None:
    task = Tasks().short(boom(), "asked", told=(RuntimeError,))
    with pytest.raises(RuntimeError, match="boom"):
        await task
    assert not tasks.failures
    with pytest.raises(RuntimeError):
        await Tasks().short(boom(), "asked", told=(ValueError,))
    assert tasks.failures == {"asked": 1}


async def test_what_ends_well_is_quiet_and_forgotten() -> None:
    owner = Tasks()
    assert await owner.short(asyncio.sleep(0, "done"), "well") == "done"
    assert len(owner) == 0
    assert not tasks.failures


async def test_a_lasting_task_is_started_again_and_each_failure_is_counted() -> None:
    began = 0
    settled = asyncio.Event()

    async def feed() -> None:
        nonlocal began
        began += 1
        if began == 1:
            raise ConnectionError("lost")
        if began == 2:
            return  # it should not
        if began == 3:
            raise asyncio.CancelledError  # nobody cancelled it: what it waited for was
        settled.set()
        await asyncio.Event().wait()

    owner = Tasks()
    with capture_logs() as logs:
        owner.lasting(feed, "the feed")
        await settled.wait()
    assert tasks.failures == {"the feed": 3}
    errors = [line["error"] for line in logs]
    assert errors[0] == "ConnectionError: lost"
    assert errors[1] == "_Ended: it returned"
    assert errors[2].startswith("_Ended: something that it waited for was cancelled")
    assert [line["again_in_s"] for line in logs] == [0.0, 0.001, 0.001]
    await owner.stop()
    assert began == 4
    assert len(owner) == 0


def test_the_failure_of_a_vital_task_ends_the_process() -> None:
    cleaned = []

    async def work() -> None:
        Tasks().vital(boom, "the conductor")
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append("main")

    with pytest.raises(SystemExit) as left:
        asyncio.run(work())
    assert left.value.code == "the conductor failed: RuntimeError: boom"
    assert tasks.failures == {"the conductor": 1}
    assert cleaned == ["main"], "the rest of the process ended in order"


async def test_a_vital_task_may_end() -> None:
    await Tasks().vital(lambda: asyncio.sleep(0), "the keeper")
    assert not tasks.failures


async def test_a_vital_task_that_is_stopped_ends_nothing() -> None:
    owner = Tasks()
    owner.vital(asyncio.Event().wait, "the conductor")
    await asyncio.sleep(0)
    await owner.stop()
    assert not tasks.failures


async def test_stop_waits_for_the_ends_of_all() -> None:
    ended = []

    async def slow(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.001)
            ended.append(name)

    owner = Tasks()
    owner.short(slow("a"), "a")
    owner.lasting(lambda: slow("b"), "b")
    await asyncio.sleep(0)
    await owner.stop()
    assert sorted(ended) == ["a", "b"]
    assert not tasks.failures, "an end that was asked for is no failure"


async def test_what_fails_while_it_is_stopped_is_counted() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("cannot close")

    owner = Tasks()
    owner.short(stubborn(), "stubborn")
    await asyncio.sleep(0)
    await owner.stop()
    assert tasks.failures == {"stubborn": 1}


async def test_a_task_may_stop_the_others_of_its_owner() -> None:
    owner = Tasks()
    other = owner.short(asyncio.sleep(60), "other")
    await owner.short(owner.stop(), "closing")
    assert other.cancelled()


async def test_join_waits_no_longer_than_it_may() -> None:
    owner = Tasks()
    owner.short(asyncio.sleep(60), "long")
    await owner.join(0.001)
    assert len(owner) == 1
    await owner.stop()
    await owner.join()


async def test_nothing_vanishes_while_it_runs() -> None:
    """The task, its owner and what it waits for hold each other; nobody else holds any of them."""
    woken = []

    class Alone:
        def __init__(self) -> None:
            self.tasks = Tasks()
            self.wanted = asyncio.get_running_loop().create_future()

        async def wait(self) -> None:
            woken.append(await self.wanted)

    alone = Alone()
    alone.tasks.short(alone.wait(), "alone")
    await asyncio.sleep(0)
    held = weakref.ref(alone)
    del alone
    gc.collect()
    found = held()
    assert found is not None
    found.wanted.set_result("here")
    await found.tasks.join()
    assert woken == ["here"]
    del found
    gc.collect()
    assert held() is None, "and nothing is kept afterwards"


async def test_a_race_ends_with_its_first() -> None:
    ended = []

    async def late() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("late")

    first, second = await race(asyncio.sleep(0, "won"), late())
    assert first is not None
    assert first.result() == "won"
    assert second is None
    assert ended == ["late"], "the other was waited for"


async def test_a_race_that_nobody_wins() -> None:
    assert await race(asyncio.sleep(60), asyncio.Event().wait(), within_s=0.001) == [None, None]


async def test_a_race_keeps_an_error_for_who_asks() -> None:
    lost, _ = await race(boom(), asyncio.sleep(60))
    assert lost is not None
    with pytest.raises(RuntimeError, match="boom"):
        lost.result()


async def test_a_loop_without_descriptors_says_so_now_and_then_and_not_each_time() -> None:
    tasks.watch_loop()
    loop = asyncio.get_running_loop()
    context = {
        "message": "socket.accept() out of system resource",
        "exception": OSError(errno.EMFILE, "no more"),
    }
    with capture_logs() as logs:
        for _ in range(2048):
            loop.call_exception_handler(context)
    (line,) = logs
    assert (line["event"], line["error"], line["log_level"]) == ("resources.spent", "no more", "error")
    assert "exc_info" not in line, "it is no fault of the code"
    assert tasks.failures == {"loop": 1}


SPENDS = """
import asyncio
from model import json_log, tasks

json_log.configure("me")

def no_memory():
    raise MemoryError

async def main():
    tasks.watch_loop(outlives_memory={outlives})
    asyncio.get_running_loop().call_soon(no_memory)
    await asyncio.sleep(0.05)
    print("lives on")

asyncio.run(main())
"""


@pytest.mark.parametrize(("outlives", "status"), [(False, tasks.NO_MEMORY), (True, 0)])
def test_a_process_whose_loop_finds_no_memory_ends_unless_nobody_would_start_another(
    outlives: bool, status: int
) -> None:
    script = SPENDS.format(outlives=outlives)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.returncode == status
    assert ("lives on" in done.stdout) is outlives
    assert ("memory.spent" in done.stderr) is not outlives
