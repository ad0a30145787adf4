"""The conductor with steps that cost nothing: what becomes of listeners, work and errors. Real time, but no
limit on it that a busy machine would not keep."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.chroma.serving.conductor import ASIDE, Conductor, Spoken
from model.chroma.serving.garbage import Garbage
from model.chroma.serving.reply import Reply
from model.chroma.serving.schedule import Kind
from model.errors import EngineError
from tests.needs import HANGS_S

FRAME_S = 0.01


class Band(Conductor):
    """Steps that answer frames of nothing; `gate` holds the thread."""

    def __init__(self, lead_s: float = 0.1, garbage: Garbage | None = None) -> None:
        config = SimpleNamespace(frame_s=FRAME_S)
        model = SimpleNamespace(config=config, device=torch.device("cpu"))
        cache = SimpleNamespace(lengths=[0] * 8, cut=self._cut)
        slots = SimpleNamespace(thinker=cache)
        steps: Any = SimpleNamespace(model=model, slots=slots, prefill=self._prefill, encoder=self._encode)
        super().__init__(steps, lead_s, garbage=garbage)
        self.stepped: list[list[Reply]] = []
        self.fed: list[list[int]] = []
        self.heard: list[list[int]] = []
        self.cut: list[int] = []
        self.stepping = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def _cut(self, slot: int, length: int) -> None:
        self.cut.append(slot)
        self.steps.slots.thinker.lengths[slot] = length

    def _prefill(self, fresh: Mapping[int, Tensor]) -> None:
        self.fed.append([*fresh])
        assert all(len(x) for x in fresh.values()), "nothing to feed"

    def _encode(self, mels: list[Tensor]) -> list[Tensor]:
        self.heard.append([int(mel[0, 0]) for mel in mels])
        return [mel[0, 0] for mel in mels]

    def _step(self, replies: list[Reply]) -> list[Spoken]:
        self.stepping.set()
        self.gate.wait(HANGS_S)
        self.stepped.append(replies)
        for reply in replies:
            reply.frames += 1
            if reply.frames == reply.frames_at_most:
                reply.end = "length"
        return [Spoken(reply.frames, np.zeros(4, np.float32)) for reply in replies]


@pytest.fixture
async def band() -> AsyncIterator[Band]:
    made = Band()
    yield made
    made.gate.set()
    await made.close()


async def hear(band: Band, reply: Reply) -> list[int | None]:
    return [frame.word async for frame in band.perform(reply)]


async def test_a_listener_that_stops_reading_holds_nobody_else(band: Band) -> None:
    deaf = band.perform(Reply(0, 1000))
    assert (await anext(deaf)).word == 1
    async with asyncio.timeout(HANGS_S):
        assert await hear(band, Reply(1, 60)) == list(range(1, 61)), "six times the lead, in its time"
    frames = sum(any(reply.slot == 0 for reply in replies) for replies in band.stepped)
    assert frames <= 1 + 10, "a lead's worth beyond what it took"
    assert (await anext(deaf)).word == 2, "and it goes on where it was"
    await deaf.aclose()  # type: ignore[attr-defined]  # it is an async generator
    assert band.playing == 0


async def test_replies_that_ask_while_a_step_is_under_way_share_the_next(band: Band) -> None:
    band.gate.clear()
    first = asyncio.create_task(hear(band, Reply(0, 3)))
    await asyncio.to_thread(band.stepping.wait, HANGS_S)
    others = [asyncio.create_task(hear(band, Reply(slot, 3))) for slot in (1, 2, 3)]
    await asyncio.sleep(0.01)
    band.gate.set()
    await asyncio.gather(first, *others)
    assert [reply.slot for reply in band.stepped[0]] == [0]
    assert {reply.slot for reply in band.stepped[1]} >= {1, 2, 3}


async def test_what_was_asked_for_and_given_up_is_not_done(band: Band) -> None:
    done: list[str] = []
    started = threading.Event()

    def hold() -> None:
        started.set()
        band.gate.wait(HANGS_S)
        done.append("first")

    band.gate.clear()
    first = asyncio.create_task(band.do(Kind.VOICE, 1, hold))
    await asyncio.to_thread(started.wait, HANGS_S)
    given_up = asyncio.create_task(band.do(Kind.VOICE, 1, lambda: done.append("given up")))
    last = asyncio.create_task(band.do(Kind.SLOT, 1, lambda: done.append("last")))
    await asyncio.sleep(0)
    given_up.cancel()
    first.cancel()  # it is under way: what follows it waits for its end
    band.gate.set()
    await last
    assert done == ["first", "last"]


async def feed(band: Band, slot: int, width: int = 50) -> None:
    await band.prefill(50, lambda: (slot, torch.zeros(width, 4)), lambda: True)


@asynccontextmanager
async def busy(band: Band) -> AsyncIterator[None]:
    """The thread is, from the beginning to the end; what is asked meanwhile waits."""
    started = threading.Event()

    def hold() -> None:
        started.set()
        band.gate.wait(HANGS_S)

    band.gate.clear()
    held = asyncio.create_task(band.do(Kind.SLOT, 1, hold))
    await asyncio.to_thread(started.wait, HANGS_S)
    yield
    await asyncio.sleep(0)
    band.gate.set()
    await held


async def test_prefills_that_wait_become_one_pass_without_those_given_up(band: Band) -> None:
    async with busy(band):
        tasks = [asyncio.create_task(feed(band, slot)) for slot in range(4)]
        await asyncio.sleep(0)
        tasks[1].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert band.fed == [[0, 2, 3]]
    assert [type(one) for one in found] == [type(None), asyncio.CancelledError, type(None), type(None)]
    assert 'voicegate_chroma_step_seconds_count{phase="prefill"} 1.0' in band.meters.show({}, {})


async def test_chunks_of_several_utterances_become_one_pass_without_those_given_up(band: Band) -> None:
    mels = [[torch.full((3, 2), 10.0 * of + k) for k in range(1 + of)] for of in range(4)]
    async with busy(band):
        tasks = [asyncio.create_task(band.hear(of, lambda: True)) for of in mels]
        await asyncio.sleep(0)
        tasks[1].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert band.heard == [[0, 20, 21, 22, 30, 31, 32, 33]]
    assert isinstance(found[1], asyncio.CancelledError)
    for of in (0, 2, 3):
        assert [int(tokens) for tokens in found[of]] == [10 * of + k for k in range(1 + of)]  # type: ignore[union-attr, call-overload, misc]
    assert 'voicegate_chroma_step_seconds_count{phase="hearing"} 1.0' in band.meters.show({}, {})


async def test_more_chunks_than_a_pass_takes_wait_for_the_next(band: Band) -> None:
    async with busy(band):
        tasks = [asyncio.create_task(band.hear([torch.zeros(3, 2)] * 6, lambda: True)) for _ in range(5)]
    await asyncio.gather(*tasks)
    assert [len(chunks) for chunks in band.heard] == [12, 12, 6]


async def test_mel_frames_are_made_beside_the_thread_and_dropped_with_who_asked(band: Band) -> None:
    """Although the thread is busy; what was given up before its turn is not made."""
    begun, go_on, made = threading.Semaphore(0), threading.Event(), []

    def hold(number: int) -> None:
        begun.release()
        go_on.wait(HANGS_S)
        made.append(number)

    async with busy(band):
        assert await band.aside(lambda: threading.current_thread().name) != "MainThread"
        held = [asyncio.create_task(band.aside(partial(hold, number))) for number in range(ASIDE)]
        for _ in held:
            await asyncio.to_thread(begun.acquire, timeout=HANGS_S)
        given_up = asyncio.create_task(band.aside(partial(hold, -1)))
        last = asyncio.create_task(band.aside(partial(hold, -2)))
        await asyncio.sleep(0)
        given_up.cancel()
        held[0].cancel()  # it is under way: its end is nobody's
        await asyncio.gather(given_up, held[0], return_exceptions=True)
        go_on.set()
        await last
        await asyncio.gather(*held, return_exceptions=True)
    assert sorted(made) == [-2, *range(ASIDE)]
    await band.close()
    with pytest.raises(EngineError, match="closed"):
        await band.aside(lambda: None)


async def test_who_is_cancelled_during_a_pass_disturbs_nobody_in_it(band: Band) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> tuple[int, Tensor]:
        begun.set()
        go_on.wait(HANGS_S)
        return 0, torch.zeros(50, 4)

    async with busy(band):
        first = asyncio.create_task(band.prefill(50, slow, lambda: True))
        second = asyncio.create_task(feed(band, 1))
    await asyncio.to_thread(begun.wait, HANGS_S)
    first.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await second
    assert first.cancelled()
    assert band.fed == [[0, 1]]


async def test_an_error_of_a_pass_goes_to_those_in_it(band: Band) -> None:
    async with busy(band):
        tasks = [asyncio.create_task(feed(band, slot, width=slot)) for slot in range(7)]
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert band.fed == [[0, 1, 2, 3, 4], [5, 6]], "256 positions at most"
    assert [isinstance(one, AssertionError) for one in found] == [True] * 5 + [False] * 2


async def test_an_error_goes_to_those_it_hit(band: Band) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await band.do(Kind.VOICE, 1, fail)
    reply = Reply(0, 3)
    with pytest.raises(ZeroDivisionError):
        async for _ in band.perform(reply, fail):
            pass
    assert reply.end == "failed"
    assert await hear(band, Reply(1, 3)) == [1, 2, 3]


async def test_what_stands_by_goes_right_before_the_first_frame(band: Band) -> None:
    stood: list[int] = []
    async for _ in band.perform(Reply(0, 3), lambda: stood.append(len(band.stepped))):
        pass
    assert stood == [0]


async def test_whoever_waits_when_the_engine_closes_is_told() -> None:
    band = Band()
    started = threading.Event()

    def hold() -> None:
        started.set()
        band.gate.wait(HANGS_S)

    band.gate.clear()
    under_way = asyncio.create_task(band.do(Kind.SLOT, 1, hold))
    await asyncio.to_thread(started.wait, HANGS_S)
    waiting = asyncio.create_task(band.do(Kind.SLOT, 1, hold))
    listening = asyncio.create_task(hear(band, Reply(0, 3)))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.05, band.gate.set)
    await band.close()
    async with asyncio.timeout(5):
        found = await asyncio.gather(under_way, waiting, listening, return_exceptions=True)
    assert [type(one) for one in found] == [asyncio.CancelledError, asyncio.CancelledError, EngineError]
    with pytest.raises(EngineError, match="closed"):
        await band.do(Kind.SLOT, 1, hold)


async def test_what_is_done_is_measured(band: Band) -> None:
    await feed(band, 0)
    await hear(band, Reply(0, 5))
    shown = band.meters.show({}, {})
    assert 'voicegate_chroma_step_seconds_count{phase="prefill"} 1.0' in shown
    assert 'voicegate_chroma_step_seconds_count{phase="frame"} 5.0' in shown
    assert "voicegate_chroma_frames_total 5.0" in shown
    assert "voicegate_chroma_batch_replies_sum 5.0" in shown


def test_a_conductor_that_breaks_ends_its_process() -> None:
    """Every caller of it would wait for ever; whoever keeps the process starts another."""

    def broken(_: float) -> None:
        raise ZeroDivisionError("a bug of the schedule")

    async def work() -> None:
        band = Band()
        band.schedule.next = broken  # type: ignore[method-assign, assignment]
        await band.do(Kind.SLOT, 1, lambda: None)

    with pytest.raises(SystemExit) as left:
        asyncio.run(work())
    assert left.value.code == "chroma.conductor failed: ZeroDivisionError: a bug of the schedule"
