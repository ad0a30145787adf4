"""Each Triton kernel against plain torch in float64, over drawn shapes; what nobody has written is no number.

On a GPU the full model's shapes come first, compiled; on a CPU Triton's interpreter takes small ones. New
memory is filled with NaN while a kernel runs, and so are caches before somebody writes them, so that a place
that was left out, or read too far, shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Final, Literal

import torch
import triton.language as tl
from torch import Tensor, nn
from torch.nn import functional as F

from model.chroma.kernels.byte_kernel import byte_linear
from model.chroma.kernels.decode_kernel import split_attend
from model.chroma.kernels.draw_kernel import draw
from model.chroma.kernels.fused_kernel import add_norm, gated, rotate_put
from model.chroma.kernels.prefill_kernel import tile_attend
from model.chroma.network.attention import attend
from model.chroma.network.cache import PAGE, KVCache
from model.chroma.network.precision import ByteLinear
from model.chroma.network.rope import rotate
from model.chroma.network.sampling import gumbel, pick
from model.chroma.network.token_run import Packing

DTYPES: Final = (torch.bfloat16, torch.float32)
NEAR: Final = {torch.bfloat16: 1e-2, torch.float32: 1e-5}
"""The largest difference, of the value and one: rounding of what goes out and of a product's parts."""
EMPTY: Final = ("empty", "empty_like", "empty_strided")
Found = dict[str, Any]
Check = tuple[str, Callable[[], Found]]


@dataclass(frozen=True, slots=True)
class HeadShape:
    """A part's attention; `width`: new positions of a row."""

    name: str
    heads: int
    kv_heads: int
    dim: int
    width: int
    window: int | None = None


FULL: Final = (
    HeadShape("thinker", 16, 2, 128, 1),
    HeadShape("backbone, sound", 32, 8, 64, 1),
    HeadShape("backbone, pair", 32, 8, 64, 3),
    HeadShape("codec", 8, 8, 64, 2, 250),
)
SMALL: Final = (HeadShape("two heads", 4, 2, 16, 1), HeadShape("a ring", 2, 2, 12, 2, 70))


def checks(device: torch.device, *, small: bool) -> Iterator[Check]:
    """Names, and what to do for each."""
    draw_shapes = torch.Generator().manual_seed(15)
    shapes = [*(SMALL if small else FULL), *(_drawn_heads(draw_shapes) for _ in range(1 if small else 3))]
    rows = (5,) if small else (1, 64, 400)
    widths = ((3, 1, 9),) if small else ((50,), (200, 3, 1, 50, 2), (13, 40, 7))
    for dtype in DTYPES:
        of = str(dtype).removeprefix("torch.")
        for heads in shapes:
            for count in rows:
                yield f"step: {heads.name}, {count} rows, {of}", partial(_step, device, heads, count, dtype)
        for heads in shapes:
            if heads.window is None and heads.width == 1:
                for each in widths:
                    yield (
                        f"prefill: {heads.name}, {each}, {of}",
                        partial(_prefill, device, heads, each, dtype),
                    )
        for inner in (40,) if small else (8192, 11008, 1999):
            yield f"gate, {inner}, {of}", partial(_gate, device, 2 * rows[-1], inner, dtype)
        for hidden in (50,) if small else (2048, 1024, 777):
            yield f"sum and norm, {hidden}, {of}", partial(_norm, device, rows[-1], hidden, dtype)
        for vocab in (37,) if small else (2051, 1500):
            yield f"draw of {vocab}, {of}", partial(_draws, device, 12 if small else 400, vocab, dtype)
        if small and dtype == torch.bfloat16:
            continue  # the interpreter multiplies no bfloat16
        kinds: tuple[Literal["int8", "fp8"], ...] = ("int8", "fp8")
        sizes = ((3, 70, 40),) if small else ((1, 2048, 2560), (64, 2048, 8192), (400, 1111, 333))
        for kind, size in product(kinds, sizes):
            yield f"{kind} weights, {size}, {of}", partial(_bytes, device, kind, size, dtype)


def _drawn_heads(draw_shapes: torch.Generator) -> HeadShape:
    """A shape that nobody chose."""

    def one(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=draw_shapes))

    kv_heads, group, dim = one(1, 4), one(1, 4), 2 * one(5, 40)
    return HeadShape(f"{kv_heads * group} / {kv_heads} heads of {dim}", kv_heads * group, kv_heads, dim, 1)


# ── what is drawn, and what is found ─────────────────────────────────────────────────────────────────────


def poison(x: Tensor) -> Tensor:
    """Filled with what nobody may read, in place."""
    if x.is_floating_point():
        return x.view(torch.uint8).fill_(0x7F) if x.element_size() == 1 else x.fill_(torch.nan)
    return x if x.dtype == torch.bool else x.fill_(max(torch.iinfo(x.dtype).min, -(1 << 62)))


@contextmanager
def poisoned() -> Iterator[None]:
    """New memory is no number."""
    made = {name: getattr(torch, name) for name in EMPTY}

    def spoilt(make: Any, *args: Any, **kwargs: Any) -> Tensor:
        found: Tensor = make(*args, **kwargs)
        poison(found)
        return found

    for name, make in made.items():
        setattr(torch, name, partial(spoilt, make))
    try:
        yield
    finally:
        for name, make in made.items():
            setattr(torch, name, make)


def near(found: Tensor, expected: Tensor) -> Found:
    """The largest difference, of the value and one, and whether that is rounding."""
    off = (found.double() - expected).abs() / (1 + expected.abs())
    worst = float(off.max()) if bool(torch.isfinite(found).all()) else float("nan")
    return {"passed": worst <= NEAR[found.dtype], "off": worst, "limit": NEAR[found.dtype]}


def _drawn(device: torch.device, dtype: torch.dtype, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator).to(device, dtype)


def _dot(device: torch.device) -> Any:
    """The type of products: None is that of the queries; the interpreter has float32's only."""
    return None if device.type == "cuda" else tl.float32


class Caches:
    """The same past twice: for kernels, and in float64 for plain torch. Scratch is no number."""

    def __init__(self, device: torch.device, of: HeadShape, lengths: list[int], dtype: torch.dtype) -> None:
        capacity = of.window + of.width if of.window else 64 * (max(lengths) // 64 + 2)
        page = None if of.window else PAGE
        self.ours, self.plain = (
            KVCache(1, len(lengths), of.kv_heads, of.dim, capacity, window=of.window, page=page,
                    device=device, dtype=kind)
            for kind in (dtype, torch.float64)
        )  # fmt: skip
        self.ours.kernels, self.plain.kernels = True, False
        poison(self.ours.keys)
        poison(self.ours.values)
        for slot, length in enumerate(lengths):
            keys, values = (
                _drawn(device, dtype, 1, of.kv_heads, min(length, capacity), of.dim + seed)[..., : of.dim]
                for seed in (slot, slot + 1)
            )
            for cache in (self.ours, self.plain):
                cache.give(slot, keys.to(cache.keys.dtype), values.to(cache.keys.dtype))
                if of.window:  # a ring that went round
                    cache.lengths[slot] = length
                    cache.ends[slot] = length


def _angles(device: torch.device, dtype: torch.dtype, *shape: int) -> tuple[Tensor, Tensor]:
    turned = _drawn(device, torch.float32, *shape)
    return turned.cos().to(dtype), turned.sin().to(dtype)


def _projected(
    device: torch.device, of: HeadShape, batch: int, width: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values as parts of one projection, `(B, T, heads * D)`."""
    widths = [of.heads * of.dim, of.kv_heads * of.dim, of.kv_heads * of.dim]
    q, k, v = torch.split(_drawn(device, dtype, batch, width, sum(widths)), widths, dim=-1)
    return q, k, v


def _by_head(x: Tensor, dim: int) -> Tensor:
    return x.double().view(*x.shape[:2], -1, dim).transpose(1, 2)


# ── kernels ──────────────────────────────────────────────────────────────────────────────────────────────


@torch.inference_mode()
def _step(device: torch.device, of: HeadShape, rows: int, dtype: torch.dtype) -> Found:
    """A step's rows, in an order of their own: at the edges of blocks, at rest, at their beginning."""
    edges = [0, PAGE - 1, PAGE, 17, 3 * PAGE + 5] if of.window is None else [0, 3, 200, 500]
    lengths = [edges[row % len(edges)] + row // len(edges) % 5 for row in range(rows)]
    caches = Caches(device, of, lengths, dtype)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(rows)).to(device)
    counts = torch.tensor([0 if row % 5 == 4 else 1 + row % of.width for row in range(rows)]).to(device)
    q, k, v = _projected(device, of, rows, of.width, dtype)
    angles = _angles(device, dtype, rows, 1, of.width, of.dim // 2)
    found: list[Tensor] = []
    for cache in (caches.ours, caches.plain):
        live = min(cache.capacity, max(lengths) + of.width)
        span = cache.device_span(order, cache.starts(order), counts, of.width, live)
        if cache is caches.ours:
            assert span.starts is not None  # noqa: S101  # for mypy: kernels have them
            keys, values = cache.keys[0], cache.values[0]
            with poisoned():
                turned = rotate_put(q, k, v, angles, span.rows, span.places, cache.table, keys, values)
                out = split_attend(turned, keys, values, cache.table, order, span.starts, counts,
                                   window=of.window, dot=_dot(device))  # fmt: skip
        else:
            wide = (angles[0].double(), angles[1].double())
            turned = rotate(_by_head(q, of.dim), wide)
            # what lies in the cache is rounded, and so are turned queries: that is no error of attention
            key = rotate(_by_head(k, of.dim), wide).to(dtype).double()
            out = attend(turned.to(dtype).double(), *cache.put(0, span, key, _by_head(v, of.dim)), span.mask)
        real = torch.arange(of.width, device=device) < counts[:, None]
        found.append(out.transpose(1, 2)[real])
    return near(found[0], found[1])


@torch.inference_mode()
def _prefill(device: torch.device, of: HeadShape, widths: tuple[int, ...], dtype: torch.dtype) -> Found:
    """New positions of several slots as one run, behind pasts of their own."""
    lengths = [(PAGE - 3 + 70 * slot) % 150 for slot in range(len(widths))]
    caches = Caches(device, of, lengths, dtype)
    for cache in (caches.ours, caches.plain):
        assert cache.capacity >= max(lengths)  # noqa: S101  # `Caches` made room
    fresh = {slot: min(width, caches.ours.room(slot)) for slot, width in enumerate(widths)}
    total = sum(fresh.values())
    packing = Packing(16 if total <= 16 else 64 if total <= 64 else 256, 32)
    starts = caches.ours.extend(fresh)
    run = packing.run(torch.tensor(packing.numbers(starts, fresh, len(widths))).to(device))
    span = caches.ours.run_span(run)
    q, k, v = _projected(device, of, packing.tokens, 1, dtype)
    angles = _angles(device, dtype, packing.tokens, 1, 1, of.dim // 2)
    cache = caches.ours
    keys, values = cache.keys[0], cache.values[0]
    with poisoned():
        turned = rotate_put(q, k, v, angles, span.rows, span.places, cache.table, keys, values)
        out = tile_attend(turned, keys, values, cache.table, run.rows, run.positions, run.tiles, run.tile,
                          dot=_dot(device))  # fmt: skip
    wide = (angles[0].double(), angles[1].double())
    queries = rotate(_by_head(q, of.dim), wide).to(dtype).double()
    new_keys, new_values = rotate(_by_head(k, of.dim), wide).to(dtype).double(), _by_head(v, of.dim)
    expected, at = [], 0
    for slot, width in fresh.items():
        past_keys, past_values = caches.plain.take(slot, lengths[slot])
        part = slice(at, at + width)
        all_keys, all_values = (
            torch.cat((past, new[part, :, 0].transpose(0, 1)[None]), dim=2)
            for past, new in ((past_keys, new_keys), (past_values, new_values))
        )
        seen = torch.arange(lengths[slot] + width, device=device)
        mask = seen <= (lengths[slot] + torch.arange(width, device=device))[:, None]
        asked = queries[part, :, 0].transpose(0, 1)[None]
        expected.append(attend(asked, all_keys, all_values, mask[None, None])[0].transpose(0, 1))
        at += width
    return near(out[:total, :, 0], torch.cat(expected))


@torch.inference_mode()
def _gate(device: torch.device, rows: int, inner: int, dtype: torch.dtype) -> Found:
    both = _drawn(device, dtype, rows, 1, 2 * inner)
    with poisoned():
        found = gated(both)
    gate, up = both.double().chunk(2, dim=-1)
    return near(found, F.silu(gate) * up)


@torch.inference_mode()
def _norm(device: torch.device, rows: int, hidden: int, dtype: torch.dtype) -> Found:
    x, more = _drawn(device, dtype, rows, 1, hidden), _drawn(device, dtype, rows, 1, hidden + 1)[..., 1:]
    more, weight = more.contiguous(), _drawn(device, dtype, hidden)
    with poisoned():
        total, normed = add_norm(x, more, weight, 1e-6)
    summed = near(total, x.double() + more.double())
    scaled = near(normed, F.rms_norm(total.double(), (hidden,), weight.double(), 1e-6))
    return {"passed": summed["passed"] and scaled["passed"], "off": max(summed["off"], scaled["off"]),
            "limit": scaled["limit"]}  # fmt: skip


@torch.inference_mode()
def _draws(device: torch.device, rows: int, vocab: int, dtype: torch.dtype) -> Found:
    """Draw by draw the same as plain torch, but where noise differs in the last place of its logarithm."""
    generator = torch.Generator().manual_seed(vocab)

    def one_of(*values: float) -> Tensor:
        return torch.tensor(values)[torch.randint(len(values), (rows,), generator=generator)].to(device)

    logits = 3 * _drawn(device, dtype, rows, vocab)
    limit = vocab - 3
    settings = one_of(0.0, 0.7, 1.0), one_of(0, 1, 50, vocab + 5).long(), one_of(0.3, 0.9, 1.0)
    seed = torch.randint(-(2**62), 2**62, (rows,), generator=generator).to(device)
    number = torch.randint(0, 1000, (rows,), generator=generator).to(device)
    with poisoned():
        found = draw(logits, *settings, seed, number, book=3, books=8, limit=limit)
    masked = logits.clone()
    masked[:, limit:] = -torch.inf
    expected = pick(masked, *settings, gumbel(seed, number * 8 + 3, vocab))
    other = int((found != expected).sum())
    return {"passed": other <= rows // 100 and bool((found < limit).all()), "other ids": other, "of": rows}


@torch.inference_mode()
def _bytes(
    device: torch.device, kind: Literal["int8", "fp8"], size: tuple[int, int, int], dtype: torch.dtype
) -> Found:
    """A layer in bytes, beside the same bytes in float64; outputs are about one."""
    rows, inputs, outputs = size
    linear = nn.Linear(inputs, outputs, device=device, dtype=dtype)
    linear.weight.copy_(_drawn(device, dtype, outputs, inputs) / inputs**0.5)
    layer = ByteLinear.of(linear, kind)
    x = _drawn(device, dtype, rows, inputs)
    with poisoned():
        found = byte_linear(x, layer.weight, layer.scale, layer.bias, layer.turn)
    expected = x.double() @ (layer.weight.double() * layer.scale.double()[:, None]).t()
    return near(found, expected if layer.bias is None else expected + layer.bias.double())
