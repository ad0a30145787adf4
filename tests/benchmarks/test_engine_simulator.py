"""The simulator's costs against what was counted elsewhere, and its calls against what must come of them."""

from __future__ import annotations

import itertools
import json

import pytest

from benchmarks.engine_capacity import mean_step_ms
from benchmarks.engine_costs import CHUNK, H100, H200, Device, Load, Parts, fitted
from benchmarks.engine_simulator import World, predicted_capacity
from benchmarks.engine_talk import talk
from model.chroma.network import checkpoint, config
from model.chroma.serving.admission import Capacity

PARTS = Parts.full()


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
def test_no_step_is_faster_than_its_floor(device: Device, floor_ms: float) -> None:
    assert floor_ms < mean_step_ms(device, PARTS, 1) < 2.5 * floor_ms
    steps = [mean_step_ms(device, PARTS, replies) for replies in (1, 16, 128, 400)]
    assert steps == sorted(steps)


def test_a_device_is_found_from_what_it_took() -> None:
    loads = [
        *(PARTS.frame(n, n // 2, True, context, 800) for n in (2, 8, 32, 128) for context in (100, 3000)),
        *(PARTS.prefill(n, 100) for n in (1, 50, 256)),
        PARTS.hearing(CHUNK),
        Load(kernels=5000.0),
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


def test_what_every_call_gets_when_there_is_time() -> None:
    world = World(H100, PARTS)
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


def test_too_many_calls_are_refused_for_what_runs_out() -> None:
    world = World(H100, PARTS, limit=Capacity(5, "memory"))
    for seed in range(8):
        world.call(seed, 0.0)
    assert world.run(5.0).refused == {"slots (memory)": 3}
    slow = Device("slow", 1e12, 100e12, 10e12, 10e-6, 1e-3, 100e-6, 85.5e9)
    world = World(slow, PARTS, limit=Capacity(1000))
    for seed in range(400):
        world.call(seed, seed / 4)
    found = world.run(100.0)
    assert found.refused.keys() == {"time"}
    assert 20 < found.taken < 390
    assert found.misses < 0.02 * len(found.frame_s), "those who were taken are served"


def test_memory_and_time_bound_what_is_admitted() -> None:
    for device in (H100, H200):
        found = predicted_capacity(device, PARTS, 2048)
        assert found.bound == "memory"
        assert PARTS.weights + found.conversations * PARTS.slot(2048) < 0.95 * device.memory
    slow = Device("slow", 1e12, 50e12, 5e12, 2e-6, 1e-3, 100e-6, 150e9)
    assert predicted_capacity(slow, PARTS, 2048).bound == "time"
