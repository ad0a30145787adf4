"""When the collector runs in an engine's process: between two pieces of work, and at no other time."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.chroma.serving import garbage
from model.chroma.serving.conductor import Spoken
from model.chroma.serving.garbage import EVERY_S, GROWN, Garbage
from model.chroma.serving.reply import Reply
from model.chroma.serving.schedule import Kind
from tests.model.chroma.serving.test_conductor import Band
from tests.needs import HANGS_S


@pytest.fixture(autouse=True)
def collecting() -> Iterator[None]:
    gc.collect()
    gc.freeze()  # as in an engine's process: else a collection takes longer than the reply
    yield
    gc.unfreeze()
    gc.enable()


def test_a_collection_is_due_when_objects_have_come_to_be_and_once_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(garbage.time, "perf_counter", lambda: 1000.0)
    asked = Garbage()
    asked.begin()
    assert not gc.isenabled()
    gc.collect()
    assert not asked.due(1000.0 + EVERY_S - 1)
    kept = [[] for _ in range(GROWN)]
    assert asked.due(1001.0)
    assert not asked.due(1001.0), "it is asked for once"
    asked.collect()
    assert not asked.due(1001.0)
    assert asked.due(1000.0 + EVERY_S)
    del kept


async def test_nothing_is_collected_in_the_middle_of_a_step() -> None:
    """The steps make garbage enough for many collections; all of them are pieces of work of their own."""
    seen: list[str] = []
    now: list[str] = []

    class Littering(Band):
        def _step(self, replies: list[Reply]) -> list[Spoken]:
            now.append("step")
            for _ in range(GROWN // 4):
                knot: list[object] = []
                knot.append(knot)
            found = super()._step(replies)
            now.pop()
            return found

    class Watched(Garbage):
        def collect(self) -> None:
            now.append("collection")
            super().collect()
            now.pop()

    def note(phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            seen.append(now[-1] if now else "nothing")

    band = Littering(garbage=Watched())
    gc.collect()
    gc.callbacks.append(note)
    try:
        async with asyncio.timeout(HANGS_S):
            assert [frame.word async for frame in band.perform(Reply(0, 30))] == list(range(1, 31))
    finally:
        gc.callbacks.remove(note)
        await band.close()
    assert seen
    assert set(seen) == {"collection"}
    counted = re.search(rf'step_seconds_count{{phase="{Kind.GARBAGE}"}} ([0-9.]+)', band.meters.show({}, {}))
    assert counted is not None
    assert len(seen) - float(counted[1]) in (0, 1), "one may have begun as the band was closed"


OWN = """
import gc, json, sys
from model import worker

async def work(_):
    made = worker.Worker()
    await made._load(FACTORY)
    kept = [[] for _ in range(100)]
    print(json.dumps([gc.get_freeze_count(), len(gc.get_objects()), sys.getswitchinterval()]))

worker.work = work
worker.main()
"""


def test_what_is_loaded_is_frozen_and_threads_hand_over_as_in_a_line() -> None:
    script = OWN.replace("FACTORY", repr("tests.model.test_proxy:far"))
    done = subprocess.run(
        [sys.executable, "-c", script, "0", "2"],
        capture_output=True, text=True, timeout=HANGS_S, check=True, cwd=Path(__file__).parents[4],
    )  # fmt: skip
    frozen, walked, interval_s = json.loads(done.stdout)
    assert frozen > 20_000
    assert walked < 2_000
    assert interval_s == pytest.approx(0.0005)
