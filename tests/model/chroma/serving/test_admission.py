"""How many conversations are taken, and what is said to one too many."""

from __future__ import annotations

import gc
import re
import time
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from model.chroma.network.quirks import SERVING, Quirks
from model.chroma.network.weights import Chroma
from model.chroma.serving import admission, chat
from model.chroma.serving.admission import Capacity, capacity, fit, memory_fits
from model.chroma.serving.conductor import speak
from model.chroma.serving.engine import ChromaEngine
from model.chroma.serving.engine_settings import EngineSettings
from model.chroma.serving.meters import RECENT_ANSWERS, RECENT_S, RECENT_STEPS, Meters
from model.chroma.serving.plan import Shape
from model.chroma.serving.reply import Reply
from model.chroma.serving.slots import Slots
from model.chroma.serving.steps import PAIR, Steps
from model.errors import CheckpointError, EngineBusy
from tests.model.chroma.serving.test_conversation import Opener, noise, opened, reference_of

__all__ = ["opened"]

MS = 0.001


def test_as_many_as_keep_time_between_the_sizes_that_were_timed() -> None:
    points = [(1, 10 * MS), (2, 12 * MS), (4, 16 * MS), (8, 24 * MS), (16, 40 * MS), (32, 72 * MS)]
    base, slope = fit(points)
    assert (base, slope) == (pytest.approx(8 * MS), pytest.approx(2 * MS))
    found = capacity(points, 61 * MS)
    assert found.conversations == 26
    assert found.bound == "time"
    assert found.per_call_s == pytest.approx(2 * MS)


def test_memory_ends_it_where_time_does_not() -> None:
    found = capacity([(1, 3 * MS), (2, 3 * MS), (3, 4 * MS)], 60 * MS)
    assert (found.conversations, found.bound) == (3, "memory")
    assert found.why == "all that memory holds"


def test_a_device_that_is_too_slow_for_one_takes_one() -> None:
    found = capacity([(1, 90 * MS)], 60 * MS)
    assert (found.conversations, found.bound) == (1, "time")


def test_memory_holds_voices_and_slots_and_room_to_work() -> None:
    assert memory_fits(100, 1000, 10_000) == 80
    assert memory_fits(100, 9500, 10_000) == 0


def test_one_more_is_refused_when_frames_of_late_say_so() -> None:
    limit = capacity([(1, 10 * MS), (2, 12 * MS), (4, 16 * MS)], 60 * MS)
    for took, said in ((77 * MS, None), (79 * MS, "take up to 79 ms now, .* would push that past 80 ms")):
        meters = Meters()
        for k in range(RECENT_STEPS):
            assert limit.late(meters, 20.0, 80 * MS) is None, "too few to tell"
            meters.step(4, took, 0.05 * k)
        found = limit.late(meters, 20.0, 80 * MS)
        assert found is said or (found and said and re.search(said, found))


def test_one_more_is_refused_when_answers_of_late_began_late() -> None:
    meters = Meters()
    for k in range(RECENT_ANSWERS):
        assert Capacity(9).late(meters, 5.0, 80 * MS) is None
        meters.first(0.1 * k, None if k % 2 else 0.1 * k, 0.1 * k + 0.4)
    assert Capacity(9).late(meters, 5.0, 80 * MS) is None, "half of them answered nobody"
    for k in range(RECENT_ANSWERS):
        meters.first(0.1 * k, 0.1 * k, 0.1 * k + 0.4)
    said = Capacity(9).late(meters, 5.0, 80 * MS)
    assert said == "time: 5 of 100 answers begin to sound after 400 ms or more now"


def test_the_frames_of_late_are_forgotten() -> None:
    meters = Meters()
    for k in range(RECENT_STEPS - 1):
        meters.step(4, 0.09 if k % 50 == 0 else 0.02, 0.08 * k)
    assert meters.frame_p99_s(32.0) is None, "too few to tell"
    meters.step(4, 0.02, 32.0)
    assert meters.frame_p99_s(32.0) == 0.09
    assert meters.frame_p99_s(32.0 + RECENT_S) is None


def test_a_device_is_measured_with_full_contexts(toy_model: Chroma) -> None:
    points = admission.measure(toy_model, SERVING, 200, 5, 10.0)
    assert [count for count, _ in points] == [1, 2, 4, 5]
    assert all(0 < seconds < 10 for _, seconds in points)
    slow = admission.measure(toy_model, SERVING, 200, 64, 1e-9)
    assert len(slow) == 1, "it stops at the first that is over the limit"


async def test_an_engine_that_measures_itself(toy_model: Chroma, opened: Opener) -> None:
    """The toy's frames are 2 ms of sound, for which a CPU is too slow: it takes one caller, and says why."""
    settings = EngineSettings(conversations="auto", context=200)
    engine = ChromaEngine(toy_model, chat.stand_in(toy_model.config), settings)
    assert engine.limits.conversations == engine.slots.count == 1
    first = await opened(engine, "a")
    with pytest.raises(EngineBusy, match="1 conversations are all that keep a frame in its time"):
        await opened(engine, "b")
    await first.close()
    await engine.close()


def test_no_room_for_one_is_said(toy_model: Chroma, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "free_bytes", lambda _: 1000)
    with pytest.raises(CheckpointError, match="lower VOICEGATE_CHROMA_CONTEXT"):
        admission.find(toy_model, SERVING, 200, 100)


async def test_a_call_that_would_push_frames_past_their_time_is_refused(
    toy_model: Chroma, opened: Opener
) -> None:
    engine = ChromaEngine(
        toy_model, chat.stand_in(toy_model.config), EngineSettings(conversations=2, context=200)
    )
    engine.capacity = Capacity(2)
    for _ in range(RECENT_STEPS):
        engine.meters.step(1, 0.5, time.perf_counter())
    with pytest.raises(EngineBusy, match="time: 99 of 100 frames take up to 500 ms now"):
        await opened(engine, "a")
    assert engine.free == 2
    assert 'voicegate_chroma_refused_total{reason="time"} 1.0' in await engine.metrics()
    await engine.close()


async def test_voices_of_open_calls_are_kept_and_one_that_does_not_fit_beside_them_is_refused(
    toy_model: Chroma, opened: Opener
) -> None:
    settings = EngineSettings(conversations=3, context=200, voices_bytes=1)
    engine = ChromaEngine(toy_model, chat.stand_in(toy_model.config), settings)
    one, other = reference_of(noise(0.02, 1)), reference_of(noise(0.02, 2))
    first = await opened(engine, "a", one)
    with pytest.raises(EngineBusy, match="memory: the voices of open conversations"):
        await opened(engine, "b", other)
    again = await opened(engine, "c", one)
    assert engine.free == 1
    engine.forget(one.voice_hash)
    assert engine.voices.nbytes > 0, "it is in use, erased or not"
    await first.close()
    await again.close()
    assert engine.voices.nbytes == 0
    await (await opened(engine, "b", other)).close()
    shown = await engine.metrics()
    for line in (
        'voicegate_chroma_voices_total{found="miss"} 3.0',
        'voicegate_chroma_voices_total{found="hit"} 1.0',
        'voicegate_chroma_refused_total{reason="memory"} 1.0',
        "voicegate_chroma_voices_kept 1.0",
    ):
        assert line in shown
    await engine.close()


async def test_what_an_engine_shows_of_itself(toy_model: Chroma, opened: Opener) -> None:
    engine = ChromaEngine(
        toy_model, chat.stand_in(toy_model.config), EngineSettings(conversations=3, context=200)
    )
    conversation = await opened(engine, "a")
    conversation.hear(noise(0.3))
    await conversation.commit()
    async for _ in conversation.respond("one"):
        break
    shown = await engine.metrics()
    for line in (
        "voicegate_chroma_slots 3.0",
        "voicegate_chroma_slots_used 1.0",
        "voicegate_chroma_first_frame_seconds_count 1.0",
        "voicegate_chroma_first_sound_seconds_count 1.0",
        f'voicegate_chroma_kv_reserved_bytes{{cache="thinker"}} {float(engine.slots.thinker.nbytes)}',
    ):
        assert f"\n{line}\n" in shown, shown
    position = toy_model.config.thinker.kv_floats * torch.float32.itemsize
    live = position * engine.slots.thinker.lengths[0]
    assert f'kv_live_bytes{{cache="thinker"}} {float(live)}' in shown
    await conversation.close()
    assert 'kv_live_bytes{cache="backbone"} 0.0' in await engine.metrics()
    await engine.close()


# ── trials take memory one after the other ──────────────────────────────────────────────────────────────────


class Device:
    """A device that holds so many slots, and whatever else a step of `works` slots takes; counted by the
    thinkers' caches that live."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, holds: int, works: int | None = None) -> None:
        self.live = 0
        self.most = 0
        self.given_back: list[int] = []
        """slots that lived when memory was given back"""
        made = Slots.make.__func__  # type: ignore[attr-defined]  # it is a classmethod

        def make(cls: type[Slots], model: Chroma, count: int, *given: Any, **named: Any) -> Slots:
            if self.live + count > holds:
                raise torch.OutOfMemoryError(f"{self.live} + {count} of {holds}")
            slots: Slots = made(cls, model, count, *given, **named)
            self.live += count
            self.most = max(self.most, self.live)
            weakref.finalize(slots.thinker.keys, self._free, count)
            return slots

        def time_steps(
            model: Chroma, quirks: Quirks, context: int, count: int, reply: int | None
        ) -> list[float]:
            slots = Slots.make(model, count, quirks, context=context)
            steps = Steps(model, slots, quirks)
            speak(steps, [Reply(0, 1, [0])])
            if works is not None and count > works:
                raise torch.OutOfMemoryError("no room to work in")
            return [1 * MS, 1 * MS]

        monkeypatch.setattr(Slots, "make", classmethod(make))
        monkeypatch.setattr(admission, "time_steps", time_steps)
        monkeypatch.setattr(admission, "give_back", lambda _: self.given_back.append(self.live))

    def _free(self, count: int) -> None:
        self.live -= count


@pytest.fixture
def uncollected() -> Iterator[None]:
    """What only a collection would free lives on."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
def test_what_a_trial_took_is_free_before_the_next(
    toy_model: Chroma, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(monkeypatch, holds=9)
    assert [count for count, _ in admission.measure(toy_model, SERVING, 60, 9, 1.0)] == [1, 2, 4, 8, 9]
    assert (device.live, device.most) == (0, 9)
    assert device.given_back == [0] * 5


@pytest.mark.usefixtures("uncollected")
def test_memory_ends_the_trials_where_steps_need_more_of_it(
    toy_model: Chroma, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(monkeypatch, holds=9, works=5)
    points = admission.measure(toy_model, SERVING, 60, 9, 1.0)
    assert capacity(points, 1.0) == Capacity(4, "memory", tuple(points))
    assert device.given_back == [0] * 4, "of the trial that failed too"


@pytest.mark.usefixtures("uncollected")
def test_a_device_without_room_to_work_for_one_says_so(
    toy_model: Chroma, monkeypatch: pytest.MonkeyPatch
) -> None:
    Device(monkeypatch, holds=9, works=0)
    with pytest.raises(CheckpointError, match="a step of one reply needs more memory than cpu has"):
        admission.measure(toy_model, SERVING, 60, 9, 1.0)


def test_a_step_with_words_and_one_without_are_timed_by_turns(
    toy_model: Chroma, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[Shape] = []
    run = Steps.run

    def seen(self: Steps, shape: Shape, rows: Sequence[int]) -> Any:
        shapes.append(shape)
        return run(self, shape, rows)

    monkeypatch.setattr(Steps, "run", seen)
    took = admission.time_steps(toy_model, SERVING, 200, 4)
    timed = shapes[-len(took) :]
    assert [shape.words for shape in timed] == [True, False] * (len(took) // 2)
    assert {shape.width for shape in timed} == {PAIR}, "half of them take a word in at each"
    assert admission.of_a_step([3 * MS, 5 * MS, 3 * MS, 5 * MS, 90 * MS, 5 * MS]) == pytest.approx(4 * MS)


@pytest.mark.usefixtures("uncollected")
def test_the_slots_of_a_timed_trial_die_with_it(toy_model: Chroma, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[torch.Tensor]] = []
    make = Slots.make.__func__  # type: ignore[attr-defined]  # it is a classmethod

    def seen(*given: Any, **named: Any) -> Slots:
        slots: Slots = make(*given, **named)
        made.extend(weakref.ref(tensor) for tensor in (slots.thinker.keys, slots.backbone.keys, slots.hidden))
        return slots

    monkeypatch.setattr(Slots, "make", classmethod(seen))
    admission.time_steps(toy_model, SERVING, 200, 2)
    assert len(made) == 3
    assert not [tensor() for tensor in made if tensor() is not None]
