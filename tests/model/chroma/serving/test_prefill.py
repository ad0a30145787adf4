"""Prefill by runs: packing, passes, and the bookkeeping of its graphs, with plain torch in place of kernels.

The kernels themselves are proved by Triton's interpreter; what is replayed here is the same work again, with
what is in a graph's own tensors by then, as a graph would do it.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import rms_norm, silu

from model.chroma.network.attention import attend
from model.chroma.network.cache import PAGE, KVCache
from model.chroma.network.quirks import SERVING
from model.chroma.network.rope import rotate
from model.chroma.network.token_run import Packing
from model.chroma.network.trace import Trace
from model.chroma.network.weights import Chroma
from model.chroma.serving import graph_capture, voices
from model.chroma.serving.chunk_encoder import BUCKETS as CHUNKS
from model.chroma.serving.chunk_encoder import ChunkEncoder
from model.chroma.serving.prefill import BUCKETS, passes
from model.chroma.serving.slots import Slots
from model.chroma.serving.steps import Steps

SLOTS = 40
NAN = float("nan")


# ── packing ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(20))
def test_a_run_says_of_each_token_whose_it_is_and_where_and_pads_the_rest(seed: int) -> None:
    draw = random.Random(seed)
    company = draw.sample(range(SLOTS), draw.randint(1, 16))
    widths = {slot: draw.randint(1, 12) for slot in company}
    starts = {slot: draw.randrange(100) for slot in company}
    total = sum(widths.values())
    packing = Packing(total + draw.randrange(9), len(company) + draw.randrange(9))
    numbers = packing.numbers(starts, widths, SLOTS)
    assert len(numbers) == packing.size
    run = packing.run(torch.tensor(numbers))
    there = list(zip(run.rows.tolist(), run.positions.tolist(), strict=True))
    real = [(slot, starts[slot] + k) for slot in company for k in range(widths[slot])]
    assert there == real + [(SLOTS, 0)] * (packing.tokens - total)
    for slot, last, end in zip(run.slots.tolist(), run.lasts.tolist(), run.ends.tolist(), strict=True):
        if slot == SLOTS:
            assert (last, end) == (0, 0)
        else:
            assert there[last] == (slot, end - 1) == (slot, starts[slot] + widths[slot] - 1)
    assert sorted({*run.slots.tolist()} - {SLOTS}) == sorted(company)
    tiled: list[int] = []
    for first, count in run.tiles.tolist():
        assert 0 <= count <= run.tile
        mine = there[first : first + count]
        tiled += range(first, first + count)
        assert len({slot for slot, _ in mine}) <= 1
        assert [at for _, at in mine] == [mine[0][1] + k for k in range(count)] if mine else True
    assert tiled == list(range(total)), "each token once, and no padding"


def test_every_bucket_has_tiles_for_any_company() -> None:
    for packing in BUCKETS:
        for seats in range(1, packing.seats + 1):
            widths = dict.fromkeys(range(seats - 1), 1) | {SLOTS - 1: packing.tokens - seats + 1}
            assert len(packing.numbers(dict.fromkeys(widths, 0), widths, SLOTS)) == packing.size


def test_a_pass_takes_what_the_largest_graph_does_and_each_slots_positions_in_order() -> None:
    fresh = {
        slot: torch.arange(1000 * slot, 1000 * slot + n) for slot, n in ((3, 5), (1, 700), (2, 1), (0, 0))
    }
    found = list(passes(fresh))
    assert [{slot: len(x) for slot, x in some.items()} for some in found] == [
        {3: 5, 1: 251},
        {1: 256},
        {1: 193, 2: 1},
    ]
    for slot, whole in fresh.items():
        assert torch.equal(torch.cat([some[slot] for some in found if slot in some] or [whole]), whole)
    many = list(passes({slot: torch.zeros(2) for slot in range(70)}))
    assert [len(some) for some in many] == [32, 32, 6]


# ── graphs, and plain torch in the kernels' place ────────────────────────────────────────────────────────


def rotate_put(
    q: Tensor, k: Tensor, v: Tensor, angles: tuple[Tensor, Tensor], rows: Tensor, places: Tensor,
    table: Tensor, keys: Tensor, values: Tensor,
) -> Tensor:  # fmt: skip
    def by_head(x: Tensor) -> Tensor:
        return x.unflatten(2, (-1, keys.shape[3])).transpose(1, 2)

    page, place = table[rows, places[:, 0] // PAGE].long(), places[:, 0] % PAGE
    keys[page, :, place] = rotate(by_head(k), angles)[:, :, 0]
    values[page, :, place] = by_head(v)[:, :, 0]
    return rotate(by_head(q), angles)


def tile_attend(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, rows: Tensor, positions: Tensor, tiles: Tensor, tile: int
) -> Tensor:
    out = torch.full_like(q, NAN)
    for first, count in tiles.tolist():
        for token in range(first, first + count):
            end = int(positions[token]) + 1
            pages = table[rows[token], : -(-end // PAGE)].long()
            seen = (whole[pages].transpose(0, 1).flatten(1, 2)[None, :, :end] for whole in (k, v))
            out[token] = attend(q[token : token + 1], *seen, None)[0]
    return out


def add_norm(x: Tensor, more: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return x + more, rms_norm(x + more, weight.shape, weight, eps)


def gated(both: Tensor) -> Tensor:
    gate, up = both.chunk(2, dim=-1)
    return silu(gate) * up


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], Any]]:
    """What was captured; a replay does it again."""
    for name, functions in {"fused": [rotate_put, add_norm, gated], "prefill": [tile_attend]}.items():
        kernel = ModuleType(f"model.chroma.kernels.{name}_kernel")
        for function in functions:
            setattr(kernel, function.__name__, function)
        monkeypatch.setitem(sys.modules, kernel.__name__, kernel)
    found: list[Callable[[], Any]] = []

    def capture(self: Any, work: Callable[[], Tensor | None]) -> tuple[Any, Tensor | None]:
        found.append(work)
        out = work()

        def replay() -> None:
            again = work()
            if out is not None and again is not None:
                out.copy_(again)

        return SimpleNamespace(replay=replay), out

    monkeypatch.setattr(graph_capture.Capturer, "__call__", capture)
    return found


def graphed(model: Chroma) -> Steps:
    """Steps that take the kernels and graphs, as on a GPU; what nobody wrote is poison."""
    steps = Steps(model, Slots.make(model, SLOTS, SERVING, context=600, reply=60), SERVING)
    cache = steps.slots.thinker
    cache.kernels = steps._prefill.graphed = steps.encoder.graphed = True
    for whole in (cache.keys, cache.values):
        whole.fill_(NAN)
    return steps


def drawn(model: Chroma, widths: dict[int, int], seed: int) -> dict[int, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    hidden = model.config.thinker.hidden
    return {slot: torch.randn(width, hidden, generator=draw) for slot, width in widths.items()}


ROUNDS: list[dict[int, int]] = [
    {3: 7, 0: 1},
    {39: 60, 3: 70, 1: 2},
    {slot: 1 + slot % 5 for slot in range(SLOTS)},
    {2: 300, 5: 40},
    {3: 1},
    {0: 16, 7: 100, 39: 140},
]


@torch.inference_mode()
def test_runs_by_graphs_leave_what_plain_passes_leave(
    toy_model: Chroma, captures: list[Callable[[], Any]]
) -> None:
    ours, plain = graphed(toy_model), Steps(
        toy_model, Slots.make(toy_model, SLOTS, SERVING, context=600, reply=60), SERVING
    )  # fmt: skip
    ours._prefill.prepare()
    assert len(captures) == len(BUCKETS)
    for number, widths in enumerate(ROUNDS):
        fresh = drawn(toy_model, widths, number)
        ours.prefill(fresh)
        for slot, x in fresh.items():
            plain.prefill({slot: x})
        mine, theirs = ours.slots, plain.slots
        assert mine.thinker.lengths == theirs.thinker.lengths
        assert torch.equal(mine.thinker.ends[:-1], theirs.thinker.ends[:-1])
        assert mine.thinker.ends[-1] == 0
        assert torch.equal(mine.token[:-1], theirs.token[:-1])
        torch.testing.assert_close(mine.hidden[:-1], theirs.hidden[:-1], atol=2e-5, rtol=1e-4)
        for slot, length in enumerate(mine.thinker.lengths):
            for found, expected in zip(
                mine.thinker.take(slot, length), theirs.thinker.take(slot, length), strict=True
            ):
                torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert len(captures) == len(BUCKETS), "no company made another graph"


@torch.inference_mode()
def test_a_proof_that_looks_on_sees_each_slot_before_its_first_word(
    toy_model: Chroma, captures: list[Callable[[], Any]]
) -> None:
    ours = graphed(toy_model)
    plain = Steps(toy_model, Slots.make(toy_model, SLOTS, SERVING, context=600, reply=60), SERVING)
    ours.trace, plain.trace = Trace(), Trace()
    for widths in ({4: 9, 1: 20}, {1: 300}):
        fresh = drawn(toy_model, widths, 1)
        ours.prefill(fresh)
        plain.prefill(fresh)
    assert not captures
    for slot in (1, 4):
        (mine,), (theirs,) = ours.trace.of(slot).thinker_logits, plain.trace.of(slot).thinker_logits
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("words", "frames"), [(3, 5), (20, 233), (1, 400)])
@torch.inference_mode()
def test_a_voice_by_a_run_is_the_voice_by_a_plain_pass(
    toy_model: Chroma,
    captures: list[Callable[[], Any]],
    monkeypatch: pytest.MonkeyPatch,
    words: int,
    frames: int,
) -> None:
    draw = torch.Generator().manual_seed(frames)
    ids = torch.randint(0, 290, (words,), generator=draw)
    codes = torch.randint(0, 64, (frames, toy_model.config.codebooks), generator=draw)
    plain = voices.prepare(toy_model, ids, codes)
    made = KVCache.__init__

    def with_kernels(self: KVCache, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        self.kernels = True

    monkeypatch.setattr(KVCache, "__init__", with_kernels)
    ours = voices.prepare(toy_model, ids, codes)
    assert ours.positions == plain.positions == words + frames + voices.PROMPT
    torch.testing.assert_close(ours.keys, plain.keys, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(ours.values, plain.values, atol=2e-5, rtol=1e-4)


@torch.inference_mode()
def test_chunks_by_graphs_are_heard_as_each_alone(
    toy_model: Chroma, captures: list[Callable[[], Any]]
) -> None:
    """Of fewer frames than the pass before had, too: what that left is not heard."""
    tower = toy_model.thinker.audio_tower
    encoder = ChunkEncoder(tower)
    encoder.graphed = True
    encoder.prepare()
    assert len(captures) == len(CHUNKS)
    draw, kept = random.Random(1), []
    for chunks in (16, 3, 1, 20, 5, 2):
        mels = [
            torch.randn(80, draw.choice([60, 1, 7, 59]), generator=torch.Generator().manual_seed(k))
            for k in range(chunks)
        ]
        kept.append((mels, encoder(mels)))
    for mels, heard in kept:  # all are right at the end: no pass wrote into what another returned
        for mel, tokens in zip(mels, heard, strict=True):
            torch.testing.assert_close(tokens, tower(mel[None])[0], atol=1e-5, rtol=1e-4)
    assert len(captures) == len(CHUNKS)
