"""A frame's step is tensors on the device alone, and a row of it knows nothing of its company."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model.chroma.network import checkpoint, config
from model.chroma.network.precision import keep_kv
from model.chroma.network.quirks import SERVING
from model.chroma.network.sampling import Sampling
from model.chroma.network.weights import Chroma
from model.chroma.serving import slots as slots_module
from model.chroma.serving.plan import Shape
from model.chroma.serving.reply import Reply, perform
from model.chroma.serving.slots import Slots
from model.chroma.serving.steps import Steps
from tests.model.chroma import toy

FROM_HOST = ("aten.lift_fresh.default", "aten._local_scalar_dense.default", "aten.nonzero.default")
"""A tensor made of a list, a number that is read, a shape that depends on data."""


class OnDevice(TorchDispatchMode):
    """Tensors stay on their device: none comes from the host, none is asked for there.

    The device is torch's `meta`, which has shapes and no data, so that reading any raises by itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert str(func) not in FROM_HOST, func
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, found)):
            assert not isinstance(tensor, Tensor) or tensor.is_meta, func
        self.calls += 1
        return found


def split_attend(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    table: Tensor,
    rows: Tensor,
    starts: Tensor,
    counts: Tensor,
    *,
    window: int | None,
) -> Tensor:
    """A kernel's shapes; kernels have a proof of their own."""
    assert keys.shape == values.shape
    assert table.dim() == 2
    assert window is None or keys.shape[2] >= window
    assert rows.shape == starts.shape == counts.shape == q.shape[:1]
    return torch.empty_like(q)


def rotate_put(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    angles: tuple[Tensor, Tensor],
    rows: Tensor,
    places: Tensor,
    table: Tensor,
    keys: Tensor,
    values: Tensor,
) -> Tensor:
    assert k.shape == v.shape
    assert table.dim() == 2
    assert rows.shape == q.shape[:1]
    assert places.shape[1] == angles[0].shape[2] == q.shape[1]
    return q.new_empty(q.shape[0], q.shape[2] // keys.shape[3], q.shape[1], keys.shape[3])


def add_norm(x: Tensor, more: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    assert x.shape == more.shape
    assert weight.shape == x.shape[-1:]
    return torch.empty_like(x), torch.empty_like(x)


def gated(both: Tensor) -> Tensor:
    return both.new_empty(*both.shape[:-1], both.shape[-1] // 2)


def depth_attend(
    q: Tensor, k: Tensor, v: Tensor, angles: tuple[Tensor, Tensor], keys: Tensor, values: Tensor, start: int
) -> Tensor:
    assert k.shape == v.shape
    assert angles[0].shape[2] == q.shape[1]
    assert start + q.shape[1] <= keys.shape[2]
    return q.new_empty(q.shape)


def draw(logits: Tensor, *settings: Tensor, book: int, books: int, limit: int) -> Tensor:
    assert all(setting.shape == logits.shape[:1] for setting in settings)
    assert book < books
    assert limit <= logits.shape[1]
    return settings[-1].new_empty(logits.shape[:1])


KERNELS = {
    "decode": [split_attend],
    "fused": [rotate_put, add_norm, gated],
    "draw": [draw],
    "depth": [depth_attend],
}


@pytest.fixture
def without_data(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """The toy where there is nothing to be read, by the ways that a GPU takes."""
    for name, functions in KERNELS.items():
        kernel = ModuleType(f"model.chroma.kernels.{name}_kernel")
        for function in functions:
            setattr(kernel, function.__name__, function)
        monkeypatch.setitem(sys.modules, kernel.__name__, kernel)
    model = checkpoint.blueprint(config.parse(toy.TABLE))
    steps = Steps(model, Slots.make(model, 4, SERVING, context=100, reply=100), SERVING)
    slots = steps.slots
    for cache in (slots.thinker, slots.backbone, slots.frame, slots.codec.cache):
        cache.kernels = True
    with torch.inference_mode():  # frequencies and codewords are put in place once
        steps.step(steps.shape(range(4), words=True, pairs=True), torch.empty(4, device="meta").long())
    return steps


@pytest.mark.parametrize("words", [True, False])
@pytest.mark.parametrize("pairs", [True, False])
@torch.inference_mode()
def test_a_step_neither_asks_the_host_nor_depends_on_data(
    without_data: Steps, words: bool, pairs: bool
) -> None:
    """So a CUDA graph can hold it; that one does was not tried on a GPU."""
    steps, rows = without_data, torch.empty(3, dtype=torch.long, device="meta")
    with OnDevice() as watched:
        told = steps.step(steps.shape(range(3), words=words, pairs=pairs), rows)
    assert told.shape == (3, 8 + steps.model.config.codebooks + steps.model.config.codec.frame)
    assert watched.calls > 500


def test_such_a_proof_can_fail(without_data: Steps) -> None:
    slots = without_data.slots
    with OnDevice(), pytest.raises(AssertionError, match="lift_fresh"):
        slots.codes + torch.tensor([1])
    for read in (slots.token.tolist, slots.token.cpu, slots.token[0].item, slots.progress.end.any().__bool__):
        with OnDevice(), pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
            read()


def test_a_step_of_nobody_changes_nothing(toy_model: Chroma) -> None:
    """Graphs are warmed up and captured so, while others have their slots."""
    steps = Steps(toy_model, Slots.make(toy_model, 3, SERVING, context=60, reply=61), SERVING)
    replies = [start(steps, slot, slot) for slot in range(3)]
    perform(steps, replies)
    before = kept(steps)
    for words in (True, False):
        with torch.inference_mode():
            steps.step(steps.shape(range(3), words=words, pairs=True), torch.full((3,), steps.slots.count))
    for name, tensor in kept(steps).items():
        assert torch.equal(tensor, before[name]), name


def test_a_step_has_the_rows_of_its_replies_and_no_more(
    toy_model: Chroma, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever slots they have: 3 of 40 once computed all that lay between them."""
    steps = Steps(toy_model, Slots.make(toy_model, 40, SERVING, context=60, reply=61), SERVING)
    rows: list[int] = []
    backbone = toy_model.backbone.model
    handle = backbone.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    replies = [start(steps, slot, slot) for slot in (39, 2, 21)]
    frames = perform(steps, replies)
    handle.remove()
    assert rows == [3]
    assert [frame.word for frame in frames] == [reply.words[0] for reply in replies]


def test_a_padding_row_changes_nothing_that_is_kept(toy_model: Chroma) -> None:
    """Beside a reply, over a poisoned scratch slot: the others' slots stay as they were, to the last bit, and
    the reply's are as without padding."""
    found = []
    for padding in (0, 3):
        steps = Steps(toy_model, Slots.make(toy_model, 3, SERVING, context=60, reply=61), SERVING)
        replies = [start(steps, slot, slot + 1) for slot in range(3)]
        perform(steps, replies)
        steps._runner = Padded(steps, 1 + padding)  # type: ignore[assignment]  # as a graph would
        poison(steps.slots)
        before = kept(steps)
        perform(steps, replies[1:2])
        after = kept(steps)
        for name in ("progress", "settings", "hidden", "past", "thinker ends", "backbone ends", "codec ends"):
            for slot in (0, 2):
                assert torch.equal(after[name][slot], before[name][slot]), name
        found.append(after)
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, atol=2e-5, rtol=1e-4, msg=name)


def kept(steps: Steps) -> dict[str, Tensor]:
    """Everything that a later step reads: all but the scratch slot and its page, which come last."""
    slots = steps.slots
    found = {"progress": slots.progress.table, "settings": slots.settings, "script": slots.script}
    found |= {"past": slots.codec.past, "hidden": slots.hidden}
    for name, cache in (
        ("thinker", slots.thinker),
        ("backbone", slots.backbone),
        ("codec", slots.codec.cache),
    ):
        found[f"{name} ends"] = cache.ends
    found = {name: tensor[: slots.count] for name, tensor in found.items()}
    for name, cache in (
        ("thinker", slots.thinker),
        ("backbone", slots.backbone),
        ("codec", slots.codec.cache),
    ):
        found[f"{name} keys"], found[f"{name} values"] = cache.keys[:, :-1], cache.values[:, :-1]
    return {name: tensor.clone() for name, tensor in found.items()}


class Padded:
    """Runs steps as a graph does, in a bucket of `rows` that the scratch slot fills."""

    graphs = False
    """none is captured: caches are read to the furthest row's end"""

    def __init__(self, steps: Steps, rows: int = 4) -> None:
        self._steps, self._rows = steps, rows

    def __call__(self, shape: Shape, slots: Sequence[int], *, graphed: bool) -> Any:
        rows = [*slots, *[self._steps.slots.count] * (self._rows - len(slots))]
        told = self._steps.step(replace(shape, rows=len(rows)), torch.tensor(rows))
        return told[: len(slots)].numpy()


def poison(slots: Slots) -> None:
    """What is nobody's spoils what reads it."""
    for state in (slots.hidden, slots.codec.past, slots.settings):
        state[slots.count] = torch.nan
    for cache in (slots.thinker, slots.backbone, slots.codec.cache):
        cache.keys[:, -1], cache.values[:, -1] = torch.nan, torch.nan
        cache.ends[slots.count] = 5
    slots.progress.codes[slots.count], slots.progress.pending[slots.count] = 3, 1


# ── company ──────────────────────────────────────────────────────────────────────────────────────────────

Heard = tuple[list[int], list[list[int]], list[Any]]


@torch.inference_mode()
def start(steps: Steps, slot: int, seed: int) -> Reply:
    """A reply of its own kind for every seed: prompt, voice, sampler, script and length differ."""
    slots, model = steps.slots, steps.model
    slots.clear(slot)
    draw = torch.Generator().manual_seed(seed)
    steps.prefill({slot: torch.randn(5 + seed % 7, model.config.thinker.hidden, generator=draw)})
    voice = slots.backbone
    shape = (voice.keys.shape[0], voice.keys.shape[2], 3 + seed % 5, voice.keys.shape[4])
    voice.give(slot, torch.randn(shape, generator=draw), torch.randn(shape, generator=draw))
    slots.sample(slot, Sampling(temperature=float(seed % 3), top_k=seed % 4 * 5, seed=seed))
    say = [1 + seed, 2, 3 + seed, model.config.im_end] if seed % 2 else None
    return Reply(slot, 9 + seed % 4, say)


def keep(heard: Heard, reply: Reply, frame: Any) -> None:
    words, codes, pcm = heard
    if frame.word is not None:
        words.append(frame.word)
    if frame.codes is not None:
        codes.append(frame.codes.tolist())
        pcm.append(frame.pcm)


@torch.inference_mode()
def test_pieces_in_one_pass_are_what_each_is_alone(toy_model: Chroma) -> None:
    """Of other lengths, behind other pasts, in slots of any order; a slot that is left out is as it was."""

    def drawn(width: int) -> Tensor:
        return torch.randn(width, toy_model.config.thinker.hidden, generator=draw)

    draw = torch.Generator().manual_seed(3)
    pasts = {0: drawn(7), 1: drawn(9), 3: drawn(40), 4: drawn(1)}
    fresh = {3: drawn(20), 2: drawn(1), 0: drawn(50), 4: drawn(3)}
    alone, packed = (
        Steps(toy_model, Slots.make(toy_model, 5, SERVING, context=60, reply=60), SERVING) for _ in range(2)
    )
    for steps in (alone, packed):
        for slot, x in pasts.items():
            steps.prefill({slot: x})
    for slot, x in fresh.items():
        alone.prefill({slot: x})
    packed.prefill(fresh)
    assert packed.slots.thinker.lengths == alone.slots.thinker.lengths == [57, 9, 1, 60, 4]
    there = kept(alone)
    for name, tensor in kept(packed).items():
        torch.testing.assert_close(tensor, there[name], atol=2e-5, rtol=1e-4, msg=name)


SEEDS = range(6)


@pytest.fixture(scope="module")
def alone(toy_model: Chroma) -> list[Heard]:
    return say_alone(toy_model)


def say_alone(model: Chroma) -> list[Heard]:
    """What each seed says with nobody beside it."""
    found: list[Heard] = []
    for seed in SEEDS:
        steps = Steps(model, Slots.make(model, 1, SERVING, context=60, reply=60), SERVING)
        reply, heard = start(steps, 0, seed), ([], [], [])  # type: ignore[var-annotated]
        while reply.end is None:
            keep(heard, reply, perform(steps, [reply])[0])
        found.append(heard)
    return found


@settings(max_examples=12, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_row_is_as_it_would_be_alone(toy_model: Chroma, alone: list[Heard], data: st.DataObject) -> None:
    keep_company(toy_model, alone, data)


@pytest.fixture(scope="module")
def in_bytes() -> tuple[Chroma, list[Heard]]:
    """The toy with keys and values in fp8, and what it says alone."""
    model = keep_kv(toy.model(), "fp8")
    return model, say_alone(model)


@settings(max_examples=6, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_row_with_keys_and_values_in_bytes_is_as_it_would_be_alone(
    in_bytes: tuple[Chroma, list[Heard]], alone: list[Heard], data: st.DataObject
) -> None:
    model, said = in_bytes
    assert [codes for _, codes, _ in said] != [codes for _, codes, _ in alone], "they were rounded"
    keep_company(model, said, data)


def keep_company(model: Chroma, alone: list[Heard], data: st.DataObject) -> None:
    """Replies begin, rest, are cancelled and begin again in any slots, in any order and mixture of phases;
    rows that pad are poison."""
    with mock.patch.object(slots_module, "PAGE", 8):  # so that a few positions take many
        slots = Slots.make(model, 4, SERVING, context=60, reply=60)
    steps = Steps(model, slots, SERVING)
    steps._runner = Padded(steps, 5)  # type: ignore[assignment]  # as a graph would
    poison(steps.slots)
    running: dict[int, tuple[Reply, int, Heard]] = {}
    for _ in range(data.draw(st.integers(8, 24), label="steps")):
        for slot in range(4):
            if slot not in running and data.draw(st.booleans(), label=f"slot {slot} begins"):
                seed = data.draw(st.sampled_from(SEEDS), label="seed")
                running[slot] = start(steps, slot, seed), seed, ([], [], [])
        going = [slot for slot in running if data.draw(st.integers(0, 4), label=f"slot {slot} goes on")]
        if not going:
            continue
        going = data.draw(st.permutations(going), label="order")
        frames = perform(steps, [running[slot][0] for slot in going])
        for slot, frame in zip(going, frames, strict=True):
            reply, seed, heard = running[slot]
            keep(heard, reply, frame)
            same(heard, alone[seed], whole=reply.end is not None)
            if reply.end is not None or data.draw(st.integers(0, 9), label="cancelled") == 0:
                del running[slot]


def same(heard: Heard, expected: Heard, *, whole: bool) -> None:
    words, codes, pcm = heard
    assert words == expected[0][: len(words)]
    assert codes == expected[1][: len(codes)]
    if pcm:
        np.testing.assert_allclose(pcm[-1], expected[2][len(pcm) - 1], atol=1e-4)
    if whole:
        assert (len(words), len(codes)) == (len(expected[0]), len(expected[1]))
