"""The simulator's costs against what was counted elsewhere, and its calls against what must come of them."""

from __future__ import annotations

import importlib.util
import itertools
import json
from dataclasses import replace

import pytest

from benchmarks.engine_capacity import mean_step_ms
from benchmarks.engine_code import BEFORE, Code, now
from benchmarks.engine_costs import DEVICES, LEVELS, Device, Load, Parts, fitted
from benchmarks.engine_simulator import World, predicted_capacity
from benchmarks.engine_talk import talk
from model.chroma.network import checkpoint, config
from model.chroma.serving.admission import Capacity
from tests.needs import missing

PARTS = Parts.full()
H100, H200 = (DEVICES[name]["low"] for name in ("H100", "H200"))


@pytest.fixture(scope="module")
def code() -> Code:
    """This tree's, counted."""
    if importlib.util.find_spec("triton") is None:
        missing("triton is not installed, so no launch is counted: pip install triton==3.9.0 (1 GB)")
    return now(PARTS.config)


def test_bytes_are_those_that_the_full_model_has() -> None:
    """GB a frame as they were counted from the parameters: 3.09 (half), 1.96, 1.62, .08 (in bfloat16)."""
    assert PARTS.thinker(1, 1, 0).bytes / 2 == pytest.approx(3.09e9, rel=0.01)
    assert PARTS.backbone(1, 1, 0).bytes == pytest.approx(1.96e9, rel=0.01)
    assert PARTS.decoder(1).bytes == pytest.approx(1.62e9, rel=0.01)
    assert 4 * PARTS.mimi_weights() / 2 == pytest.approx(0.08e9, rel=0.05)
    assert PARTS.thinker(1, 1, 1).bytes - PARTS.thinker(1, 1, 0).bytes == 36_864
    assert PARTS.backbone(1, 1, 1).bytes - PARTS.backbone(1, 1, 0).bytes == 32_768
    sizes = config.parse(json.loads(config.FULL_SIZE.read_text()))
    model = checkpoint.blueprint(sizes)
    stored = {name: tensor.numel() for name, tensor in model.state_dict().items()}
    weights = sum(n * (4 if name.startswith("codec_model.") else 2) for name, n in stored.items())
    assert PARTS.weights == pytest.approx(weights, rel=0.01)
    half = sum(n for name, n in stored.items() if name.startswith(("codec_model.dec", "codec_model.up")))
    assert PARTS.mimi_weights() == pytest.approx(half, rel=0.01)


def test_arithmetic_is_what_the_floors_page_estimates() -> None:
    """2.4 ms for 128 calls."""
    word, none = PARTS.frame(128, 128, True, 0, 0), PARTS.frame(128, 0, False, 0, 0)
    assert 500 * (word.flops + none.flops) / H100.flops == pytest.approx(2.4, rel=0.1)


@pytest.mark.parametrize(("device", "floor_ms"), [(H100, 2.26), (H200, 1.58)])
def test_no_step_is_faster_than_its_floor(device: Device, floor_ms: float, code: Code) -> None:
    assert floor_ms < mean_step_ms(device, PARTS, code, 1) < 2.5 * floor_ms
    steps = [mean_step_ms(device, PARTS, code, replies) for replies in (1, 16, 128, 400)]
    assert steps == sorted(steps)


def test_a_device_is_found_from_what_it_took() -> None:
    loads = [
        *(PARTS.frame(n, n // 2, True, context, 800) for n in (2, 8, 32, 128) for context in (100, 3000)),
        *(PARTS.prefill(n, 100) for n in (1, 50, 256)),
        PARTS.hearing(1),
        Load(nodes=5000.0),
    ]
    samples = [(load, rows, H100.seconds(load, rows)) for rows, load in enumerate(loads)]
    found = fitted("again", samples, 1.0)
    for load, rows, seconds in samples:
        assert found.seconds(load, rows) == pytest.approx(seconds, rel=1e-3)


def test_talk_is_what_the_goal_says_it_is() -> None:
    """A tenth of the callers starts a reply each second."""
    turns = list(itertools.islice(talk(1), 3000))
    assert turns[:50] == list(itertools.islice(talk(1), 50))
    assert turns != list(itertools.islice(talk(2), 3000))
    lasted = [t.speech_s + 0.35 + (t.reply_s + t.pause_s if t.barge_s is None else t.barge_s) for t in turns]
    assert sum(lasted) / len(lasted) == pytest.approx(10.0, rel=0.06)


def test_what_every_call_gets_when_there_is_time(code: Code) -> None:
    world = World(H100, PARTS, code, slots=30)
    for seed in range(30):
        world.call(seed, 0.0)
    found = world.run(60.0)
    assert found.misses == 0
    assert not found.refused
    assert found.taken == 30
    replies = len(found.first_s)
    assert replies == pytest.approx(30 * 60 / 10, rel=0.2)
    assert max(found.first_s) < 0.05
    assert found.played == pytest.approx(len(found.frame_s) - found.unheard, rel=0.05)
    assert found.unheard < 0.03 * found.played, "what is made in vain for interrupted replies"


def test_too_many_calls_are_refused_for_what_runs_out(code: Code) -> None:
    world = World(H100, PARTS, code, slots=5, limit=Capacity(5, "memory"))
    for seed in range(8):
        world.call(seed, 0.0)
    assert world.run(5.0).refused == {"slots (memory)": 3}
    slow = Device("slow", 1e12, 100e12, 10e12, 10e-6, 10e-6, 1e-3, 100e-6, 85.5e9)
    world = World(slow, PARTS, code, slots=400, limit=Capacity(1000))
    for seed in range(400):
        world.call(seed, seed / 4)
    found = world.run(100.0)
    assert found.refused.keys() == {"time"}
    assert 20 < found.taken < 390
    assert found.misses < 0.02 * len(found.frame_s), "those who were taken are served"


def test_memory_and_time_bound_what_is_admitted(code: Code) -> None:
    # by the highest costs, with all slots speaking, an H200's time ends before its memory does
    for name, bound, goal in (("H100", "memory", 400), ("H200", "time", 700)):
        device = DEVICES[name]["high"]
        found = predicted_capacity(device, PARTS, code, 2048)
        assert found.bound == bound
        assert found.conversations >= goal
        assert PARTS.weights + found.conversations * PARTS.slot(2048, code.promised) < 0.95 * device.memory
    slow = Device("slow", 1e12, 50e12, 5e12, 2e-6, 2e-6, 1e-3, 100e-6, 150e9)
    assert predicted_capacity(slow, PARTS, code, 2048).bound == "time"


def test_what_auto_tries_fills_the_memory_where_it_stays() -> None:
    """128 on an H100, 256 on an H200: the review of 545a5a0 found the same by hand."""
    found = [
        predicted_capacity(device, PARTS, BEFORE, 2048, leaks=True).conversations for device in (H100, H200)
    ]
    assert found == [128, 256]


def test_each_level_is_dearer_than_the_one_before() -> None:
    load = Load(1e9, 1e12, 1e11, 1000, 100)
    for levels in DEVICES.values():
        took = [levels[level].seconds(load, 100) for level in LEVELS]
        assert took == sorted(took)
        assert len(set(took)) == len(LEVELS)


def test_a_step_is_charged_with_what_its_graph_computes(code: Code) -> None:
    def step(of: Code, slots: list[int]) -> Load:
        return of.step(
            PARTS, slots, 400, thinking=0, words=False, pairs=False, begins=0, context=1000, reply=800
        )

    few = step(BEFORE, [0, 1, 2])
    high = step(BEFORE, [0, 1, 300])
    assert high.flops > 50 * few.flops, "all slots up to the highest"
    assert high.bytes - few.bytes < 400 * PARTS.mimi(1).bytes, "caches of those who rest are not read"
    assert step(BEFORE, [0, 1, 255]).flops < high.flops == step(BEFORE, [399]).flops
    assert step(code, [0, 1, 2]).nodes == code.counts.step[False, False]


def test_launches_by_the_host_cost_more_than_a_graphs(code: Code) -> None:
    eager = replace(code, passes=(), chunks=())
    for load, dear in (
        (code.prefill(PARTS, [50], 1000), eager.prefill(PARTS, [50], 1000)),
        (code.hearing(PARTS, 3, 48_000), eager.hearing(PARTS, 3, 48_000)),
    ):
        assert H100.seconds(load) < H100.seconds(dear)
        assert load.flops > dear.flops, "a bucket is computed whole"


def test_the_first_frames_are_late_where_kernels_are_compiled_on_the_way() -> None:
    found = []
    for first_start in (False, True):
        world = World(H100, PARTS, BEFORE, slots=4, first_start=first_start)
        for seed in range(4):
            world.call(seed, 0.0)
        found.append(world.run(30.0))
    known, compiled = found
    assert max(known.first_s) < 0.1
    assert max(compiled.first_s) > 0.7
