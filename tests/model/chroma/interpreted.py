"""Kernels against plain torch, run as a program of its own by `test_kernels` under Triton's interpreter.

A kernel decides at its import whether it is interpreted; nothing here needs a GPU. With a number, so many
draws are compared and nothing else: `TRITON_INTERPRET=1 python -m tests.model.chroma.interpreted 5000`.
"""

from __future__ import annotations

import copy
import random
import sys
from itertools import product
from unittest import mock

import torch
import triton.language as tl
from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu

from model.chroma.kernels.byte_kernel import byte_linear, narrow
from model.chroma.kernels.decode_kernel import split_attend
from model.chroma.kernels.depth_kernel import depth_attend
from model.chroma.kernels.draw_kernel import draw
from model.chroma.kernels.fused_kernel import add_norm, gated, rotate_put
from model.chroma.kernels.prefill_kernel import tile_attend
from model.chroma.network import checkpoint, config
from model.chroma.network.attention import attend
from model.chroma.network.cache import PAGE, KVCache
from model.chroma.network.config import RopeConfig
from model.chroma.network.precision import ByteLinear
from model.chroma.network.quirks import SERVING
from model.chroma.network.rope import Rope, rotate
from model.chroma.network.sampling import gumbel, pick
from model.chroma.network.token_run import Packing
from model.chroma.network.weights import Chroma
from model.chroma.serving import prefill
from model.chroma.serving.reply import Frame, perform
from model.chroma.serving.slots import Slots
from model.chroma.serving.steps import Steps
from model.chroma.tools.toy import fill
from tests.model.chroma import toy
from tests.model.chroma.serving.test_step import Padded, poison, start

NAN = float("nan")


FP8 = torch.float8_e4m3fn


def scattered(slots: int, kv_heads: int, dim: int, dtype: torch.dtype, page: int, each: int) -> KVCache:
    """A cache of drawn positions whose pages lie in any order; the scratch page is poison."""
    cache = KVCache(1, slots, kv_heads, dim, page * each, page=page, device=torch.device("cpu"), dtype=dtype)
    for whole in (cache.keys, cache.values):
        whole.copy_(torch.randn(whole.shape))
        whole[:, -1] = NAN
    cache.table[:slots, :each] = torch.randperm(slots * each).view(slots, each)
    return cache


def attention(
    heads: int, kv_heads: int, dim: int, width: int, splits: int, dtype: torch.dtype,
    kept: torch.dtype | None = None,
) -> None:  # fmt: skip
    """Rows at a block's edges, at rest and at their very beginning, in slots of any order, padded; over a
    cache of the same type, or of that which is `kept`."""
    cache = scattered(7, kv_heads, dim, kept or dtype, PAGE, 4)
    q = torch.randn(6, width, heads, dim).to(dtype).transpose(1, 2)
    rows = torch.tensor([5, 0, 6, 2, 1, 7])
    starts, counts = torch.tensor([0, 63, 64, 150, 17, 0]), torch.tensor([width, width, 1, width, 0, 0])
    seen = torch.arange(256) <= (starts[:, None] + torch.arange(width))[..., None]
    keys, values = (
        torch.stack([torch.cat([*whole[0, cache.table[row, :4].long()]], dim=1) for row in rows])
        for whole in (cache.keys, cache.values)
    )
    expected = attend(q.float(), keys.float(), values.float(), seen[:, None])
    # what no row may read is poison from here on
    for slot in (3, 4, 1):
        for whole in (cache.keys, cache.values):
            whole[:, cache.table[slot, :4].long()] = NAN
    # the interpreter multiplies no bfloat16 (Triton 3.9.0): on a GPU the products are of the keys' type
    found = split_attend(
        q, cache.keys[0], cache.values[0], cache.table, rows, starts, counts, splits=splits, dot=tl.float32
    )
    same(found, expected, counts, dtype)


def same(found: Tensor, expected: Tensor, counts: Tensor, dtype: torch.dtype) -> None:
    """Where positions are real; the others are finite, so that they spoil nothing by being near."""
    assert found.dtype == dtype
    near = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 1e-2, "rtol": 1e-2}
    for row, count in enumerate(counts.tolist()):
        torch.testing.assert_close(found[row, :, :count].float(), expected[row, :, :count], **near)
    assert torch.isfinite(found).all()


def tiles(
    heads: int, kv_heads: int, dim: int, splits: int, dtype: torch.dtype, seed: int,
    kept: torch.dtype | None = None,
) -> None:  # fmt: skip
    """Runs of several slots: widths, starts, company and padding are drawn; slots left out are poison."""
    draw = random.Random(seed)
    cache = scattered(6, kv_heads, dim, kept or dtype, PAGE, 4)
    company = draw.sample(range(6), draw.randint(1, 5))
    widths = {slot: draw.choice([1, 2, 3, 7, 8, 9, 30]) for slot in company}
    starts = {slot: draw.choice([0, 1, 62, 63, 64, 65, 128, 200]) for slot in company}
    tokens = sum(widths.values())
    packing = Packing(tokens + draw.randint(0, 5), len(company) + draw.randint(0, 2))
    run = packing.run(torch.tensor(packing.numbers(starts, widths, 6)))
    assert len(run.rows) == packing.tokens
    assert len(run.tiles) == packing.tiles
    q = torch.randn(packing.tokens, heads, 1, dim).to(dtype)
    expected, first = [], 0
    for slot, width in widths.items():
        keys, values = (
            torch.cat([*whole[0, cache.table[slot, :4].long()]], dim=1).float()[None]
            for whole in (cache.keys, cache.values)
        )
        seen = torch.arange(256) <= starts[slot] + torch.arange(width)[:, None]
        mine = q[first : first + width, :, 0].transpose(0, 1)[None].float()
        expected.append(attend(mine, keys, values, seen[None, None])[0].transpose(0, 1))
        first += width
    for slot in {*range(6)} - {*company}:
        for whole in (cache.keys, cache.values):
            whole[:, cache.table[slot, :4].long()] = NAN
    found = tile_attend(
        q, cache.keys[0], cache.values[0], cache.table, run.rows, run.positions, run.tiles, run.tile,
        splits=splits, dot=tl.float32,
    )  # fmt: skip
    assert found.dtype == dtype
    near = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 1e-2, "rtol": 1e-2}
    torch.testing.assert_close(found[:tokens, :, 0].float(), torch.cat(expected), **near)


def ring(window: int, width: int, splits: int) -> None:
    """A ring before, at and behind its first turn, against the positions that it holds."""
    capacity = window + width - 1
    cache = KVCache(1, 5, 2, 8, capacity, window=window, device=torch.device("cpu"), dtype=torch.float32)
    rows, starts = torch.tensor([4, 0, 3, 1, 5]), torch.tensor([0, window - 1, 3 * window + 5, 17, 0])
    counts = torch.tensor([width, width, width, 0, 0])
    q = torch.randn(5, 4, width, 8)
    expected = torch.zeros_like(q)
    for whole in (cache.keys, cache.values):
        whole[:] = NAN
    for row, (slot, first, count) in enumerate(
        zip(rows.tolist(), starts.tolist(), counts.tolist(), strict=True)
    ):
        end = first + count
        k, v = (torch.randn(2, end, 8) for _ in range(2))
        for at in range(max(0, end - capacity), end if count else 0):
            cache.keys[0, slot, :, at % capacity] = k[:, at]
            cache.values[0, slot, :, at % capacity] = v[:, at]
        at, query = torch.arange(end), first + torch.arange(count)[:, None]
        if count:
            seen = (at <= query) & (at > query - window)
            expected[row, :, :count] = attend(q[row : row + 1], k[None], v[None], seen[None, None])[0]
    found = split_attend(
        q, cache.keys[0], cache.values[0], cache.table, rows, starts, counts, window=window, splits=splits
    )
    same(found, expected, counts, torch.float32)


def put(page: int, each: int, width: int) -> None:
    """Turned keys go where their slot's pages are, padding to the scratch page, and nothing anywhere else;
    queries, keys and values are parts of one projection."""
    heads, kv_heads, dim, rows = 4, 2, 12, torch.tensor([3, 0, 5])
    cache = scattered(5, kv_heads, dim, torch.float32, page, each)
    starts, counts = torch.tensor([page * each - width - 1, 2, 0]), torch.tensor([width, width - 1, 0])
    before = cache.keys.clone(), cache.values.clone()
    plain, ours = cache.device_span(rows, starts, counts, width, page * each), None
    cache.kernels = True
    ours = cache.device_span(rows, starts, counts, width, page * each)
    assert torch.equal(plain.places, ours.places)
    sizes = [heads * dim, kv_heads * dim, kv_heads * dim]
    q, k, v = torch.randn(3, width, sum(sizes)).split(sizes, dim=2)
    angles = Rope(RopeConfig(10_000.0), dim).angles(plain.positions, torch.float32)

    def by_head(x: Tensor) -> Tensor:
        return x.unflatten(2, (-1, dim)).transpose(1, 2)

    found = rotate_put(q, k, v, angles, rows, ours.places, cache.table, cache.keys[0], cache.values[0])
    torch.testing.assert_close(found, rotate(by_head(q), angles))
    kernel = cache.keys.clone(), cache.values.clone()
    for whole, past in zip((cache.keys, cache.values), before, strict=True):
        whole.copy_(past)
    cache.put(0, plain, rotate(by_head(k), angles), by_head(v))
    for whole, by_kernel, past in zip((cache.keys, cache.values), kernel, before, strict=True):
        torch.testing.assert_close(by_kernel[:, :-1], whole[:, :-1])
        changed = (whole[:, :-1] != past[:, :-1]).any(-1).any(0).any(1).sum()
        assert changed == counts.sum(), "as many places as there are new positions"


def put_bytes() -> None:
    """A cache in float8 gets what plain torch rounds to it.

    Triton's interpreter loses the carry when a number is rounded up to a power of two, does not round the
    numbers up to the smallest normal one, and does not end at the largest: those are left out. On a GPU the
    cast is one instruction, which has no other form.
    """
    heads, kv_heads, dim, width, rows = 4, 2, 12, 3, torch.tensor([3, 0, 5])
    found: list[Tensor] = []
    starts, counts = torch.tensor([70, 2, 0]), torch.tensor([width, width - 1, 0])
    both = torch.randn(3, width, (heads + 2 * kv_heads) * dim)
    q, k, v = both.split([heads * dim, kv_heads * dim, kv_heads * dim], dim=2)
    for kernels in (False, True):
        cache = KVCache(1, 5, kv_heads, dim, 2 * PAGE, page=PAGE, device=both.device, dtype=FP8)
        for slot in range(5):
            cache.reserve({slot: 2 * PAGE})
        plain = cache.device_span(rows, starts, counts, width, 2 * PAGE)
        cache.kernels = kernels
        span = cache.device_span(rows, starts, counts, width, 2 * PAGE)
        angles = Rope(RopeConfig(10_000.0), dim).angles(plain.positions, torch.float32)
        if kernels:
            rotate_put(q, k, v, angles, rows, span.places, cache.table, cache.keys[0], cache.values[0])
        else:
            by_head = [x.unflatten(2, (-1, dim)).transpose(1, 2) for x in (k, v)]
            cache.put(0, span, rotate(by_head[0], angles), by_head[1])
        found.append(torch.cat((cache.keys, cache.values))[:, :-1].view(torch.uint8).short())
    expected, ours = found
    carried, small = expected & 7 == 0, expected & 0x7F <= 8
    exact = ~carried & ~small
    # turned keys may differ in their last place, and so lie on the other side of a half
    assert ((ours - expected).abs()[exact] <= 1).all()
    assert (ours == expected)[exact].float().mean() > 0.999
    as_came = (ours == expected) | small | carried & (ours == expected - 8)
    assert as_came[1].all(), "values are as they came"
    written = (ours != 0).any(-1).sum()
    assert written == (expected != 0).any(-1).sum() == 2 * counts.sum() * kv_heads


@torch.inference_mode()
def bytes_(kind: str, rows: int, inputs: int, outputs: int) -> None:
    """Whole and in shares, with and without a bias, again and again over the same counters."""
    x = torch.randn(rows, inputs)
    for bias, splits in product((True, False), (1, 3, None)):
        layer = ByteLinear.of(nn.Linear(inputs, outputs, bias=bias), kind)
        for _ in range(2):
            found = byte_linear(x, layer.weight, layer.scale, layer.bias, layer.turn, splits=splits)
            torch.testing.assert_close(found, layer(x), atol=1e-5, rtol=1e-5)
            assert not layer.turn.any(), "the counters stand at nought again"


def states_in_fp8() -> None:
    """All but the cast itself: the interpreter's loses the carry when it rounds up to a power of 2."""
    x = torch.randn(3, 50)
    x[1] = 0
    found, scale = narrow(x, torch.float32)
    torch.testing.assert_close(found * scale, x)
    torch.testing.assert_close(found.abs().amax(1), torch.tensor([448.0, 0.0, 448.0]))


def two_layers() -> Chroma:
    """The toy with no more layers in a part than tell a layer's cache from another's."""
    table = copy.deepcopy(toy.TABLE)
    for of in (table["thinker_config"]["text_config"], table["decoder_config"]):
        of["num_hidden_layers"] = 2
    return fill(checkpoint.blueprint(config.parse(table)), 0)


def frames() -> None:
    """Packed prefills and whole steps by kernels say what the plain ones say: alone and among others, padded
    as a graph is and not, while a row rests. No cache is read where nobody wrote before: all is poison."""
    model, found = two_layers(), []
    heard = torch.randn(11, model.config.thinker.hidden)
    for kernels in (False, True):
        steps = Steps(model, Slots.make(model, 5, SERVING, context=60, reply=60), SERVING)
        slots, padded = steps.slots, Padded(steps)
        for cache in (slots.thinker, slots.backbone, slots.frame, slots.codec.cache):
            cache.kernels = kernels
            if kernels:
                random.Random(1).shuffle(cache.pages._free)
                cache.keys.fill_(NAN)
                cache.values.fill_(NAN)
        if kernels:
            poison(slots)
            steps._runner = padded  # type: ignore[assignment]  # as a graph would
        replies = [start(steps, slot, seed) for slot, seed in ((4, 1), (0, 3), (2, 4))]
        steps.prefill({2: heard[:5], 4: heard[5:]})
        told: list[Frame] = []
        for company in (replies[:2], replies, replies[:1], replies[::2], replies):
            padded._rows = {1: 1, 2: 3, 3: 4}[len(company)]
            told += perform(steps, company)
        found.append(told)
    assert sum(frame.pcm is not None for frame in found[0]) > 8
    for plain, ours in zip(*found, strict=True):
        assert plain.word == ours.word
        assert (plain.codes is None, plain.pcm is None) == (ours.codes is None, ours.pcm is None)
        if plain.codes is not None:
            assert plain.codes.tolist() == ours.codes.tolist()
        if plain.pcm is not None:
            torch.testing.assert_close(
                torch.from_numpy(ours.pcm), torch.from_numpy(plain.pcm), atol=1e-4, rtol=0
            )


def depth(heads: int, kv_heads: int, dim: int, places: int, dtype: torch.dtype) -> None:
    """A frame's positions one after the other, the first two at once, in rows of a larger cache."""
    rope = Rope(RopeConfig(10_000.0), dim)
    plain, ours = (
        KVCache(1, 4, kv_heads, dim, places, device=torch.device("cpu"), dtype=dtype) for _ in range(2)
    )
    at = 0
    for width in (2, *[1] * (places - 2)):
        both = torch.randn(3, width, (heads + 2 * kv_heads) * dim).to(dtype)
        q, k, v = both.split([heads * dim, kv_heads * dim, kv_heads * dim], dim=-1)
        angles = rope.known(tuple(range(at, at + width)), both.device, dtype)
        apart = [x.unflatten(2, (-1, dim)).transpose(1, 2) for x in (q, k, v)]
        span = plain.fresh_span(3, at, width)
        held = plain.put(0, span, rotate(apart[1], angles), apart[2])
        expected = attend(rotate(apart[0], angles).float(), *(x.float() for x in held), span.mask)
        found = depth_attend(q, k, v, angles, ours.keys[0], ours.values[0], at)
        near = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 3e-2, "rtol": 3e-2}
        torch.testing.assert_close(found.float(), expected.transpose(1, 2).flatten(2), **near)
        at += width
    torch.testing.assert_close(ours.keys[:, :3], plain.keys[:, :3], **near)
    assert torch.equal(ours.values, plain.values)


def gate() -> None:
    both = torch.randn(3, 2, 2 * 1100)
    a, b = both.chunk(2, dim=-1)
    torch.testing.assert_close(gated(both), silu(a) * b)


def norm(dtype: torch.dtype, hidden: int) -> None:
    """The sum to the bit, and its norm to the last place that the order of adding squares decides.

    The interpreter cuts bfloat16 off where a GPU rounds, so the sum is compared with one that was cut off.
    """
    x, more = (torch.randn(2, 3, hidden).to(dtype) for _ in range(2))
    weight = torch.randn(hidden).to(dtype)
    total, normed = add_norm(x, more, weight, 1e-5)
    cut = 0 if dtype == torch.float32 else 0xFFFF
    wide = (x.float() + more.float()).view(torch.int32) & ~cut
    assert torch.equal(total.float(), wide.view(torch.float32))
    expected = rms_norm(total.double(), (hidden,), weight.double(), 1e-5)
    near = {"atol": 1e-6, "rtol": 1e-6} if dtype == torch.float32 else {"atol": 0.0, "rtol": 2**-7}
    torch.testing.assert_close(normed.double(), expected, **near)


def draws(count: int) -> None:
    """Draw by draw the same as `pick`, over all settings, ties, ids that cannot be, and rows of few ids."""
    generator = torch.Generator().manual_seed(count)

    def one_of(*values: float, rows: int) -> Tensor:
        return torch.tensor(values)[torch.randint(len(values), (rows,), generator=generator)]

    kinds = product(((2051, 2048), (37, 33), (64, 64)), ("plain", "ties", "never", "narrow"))
    for (vocab, limit), kind in kinds:
        rows = -(-count // 12)
        logits = 3 * torch.randn(rows, vocab, generator=generator)
        if kind == "ties":
            logits = logits.round()
        if kind == "never":
            logits[torch.rand(logits.shape, generator=generator) < 0.4] = -torch.inf
        if kind == "narrow":
            logits = logits.bfloat16()
        settings = (
            one_of(0.0, 0.1, 0.7, 1.0, 2.0, rows=rows),
            one_of(0, 1, 2, 50, vocab - 1, vocab, vocab + 5, rows=rows).long(),
            one_of(0.0, 0.001, 0.3, 0.5, 0.9, 0.999, 1.0, rows=rows),
        )
        seed = torch.randint(-(2**62), 2**62, (rows,), generator=generator)
        number = torch.randint(0, 1000, (rows,), generator=generator)
        masked = logits.clone()
        masked[:, limit:] = -torch.inf
        expected = pick(masked, *settings, gumbel(seed, number * 8 + 3, vocab))
        found = draw(logits, *settings, seed, number, book=3, books=8, limit=limit)
        assert torch.equal(found, expected), (vocab, kind, (found != expected).nonzero().flatten())


def nonsense() -> None:
    """Whatever stands in a row that rests, what is drawn from it is an id."""
    logits = torch.full((4, 37), torch.nan)
    logits[1], logits[2] = -torch.inf, torch.inf
    logits[3, 5:] = 1.0
    odd = torch.tensor([torch.nan, 1e-30, 0.7, -1.0])
    number = torch.tensor([-5, 2**62, 3, 0])
    found = draw(logits, odd, number, odd, number, number, book=0, books=8, limit=37)
    assert ((found >= 0) & (found < 37)).all(), found


if __name__ == "__main__":
    torch.manual_seed(0)
    if len(sys.argv) > 1:
        draws(int(sys.argv[1]))
        sys.exit()
    draws(36)
    nonsense()
    for dtype in (torch.float32, torch.bfloat16):
        attention(16, 2, 128, 1, 4, dtype)
        attention(8, 2, 64, 3, 2, dtype)
        attention(4, 1, 12, 3, 1, dtype)
    attention(16, 2, 128, 1, 4, torch.bfloat16, FP8)
    attention(4, 1, 12, 3, 2, torch.float32, FP8)
    tiles(16, 2, 128, 2, torch.bfloat16, 3, FP8)
    tiles(6, 3, 8, 2, torch.float32, 5, FP8)
    put_bytes()
    tiles(16, 2, 128, 4, torch.bfloat16, 3)
    tiles(4, 1, 12, 1, torch.bfloat16, 2)
    for seed in (1, 4, 9):
        tiles(6, 3, 8, 2, torch.float32, seed)
    ring(10, 2, 1)
    ring(70, 3, 4)
    put(PAGE, 3, 3)
    put(9, 1, 2)
    for kind in ("int8", "fp8"):
        bytes_(kind, 3, 300, 70)
        bytes_(kind, 70, 130, 33)
        bytes_(kind, 140, 70, 40)
    states_in_fp8()
    for dtype in (torch.float32, torch.bfloat16):
        depth(8, 2, 24, 8, dtype)
        depth(3, 3, 10, 5, dtype)
    gate()
    for dtype in (torch.float32, torch.bfloat16):
        norm(dtype, 1000)
    with mock.patch.object(prefill, "BUCKETS", (Packing(9, 2), Packing(12, 3))):  # little padding for a few
        frames()
