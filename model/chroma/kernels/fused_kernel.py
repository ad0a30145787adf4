"""A layer's small work in one kernel each, in Triton: a step has thousands, and each costs its start.

`rotate_put` turns queries and keys and puts keys and values into their cache; `gated` is an MLP's gate;
`add_norm` adds to a residual and norms the sum.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.chroma.kernels.places import page_of

BLOCK = 1024
"""Numbers of one program of `gated`."""


# no width of a prefill may compile anew: whoever calls waits for it
@triton.jit(
    do_not_specialize=["width", "angles_row", "places_row", "table_row"],
    do_not_specialize_on_alignment=["rows"],
)
def _rotate_put(
    q, k, v, cos, sin, rows, places, table, keys, values, out,
    width, q_at, k_at, v_at, angles_row, places_row, table_row, kv_page, kv_head, kv_at,
    HEADS: tl.constexpr, KV: tl.constexpr, HALF: tl.constexpr, WIDE: tl.constexpr, PAGE: tl.constexpr,
):  # fmt: skip
    """One head of one position: queries, then keys, then values."""
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row, at = token // width, token % width
    d = tl.arange(0, WIDE)
    real = d < HALF
    place = tl.load(places + row * places_row + at)
    page = page_of(table, table_row, tl.load(rows + row), place, PAGE)
    found = page * kv_page + place % PAGE * kv_at
    if head < HEADS + KV:
        if head < HEADS:
            source = q + token * q_at + head * 2 * HALF
        else:
            source = k + token * k_at + (head - HEADS) * 2 * HALF
        first = tl.load(source + d, mask=real).to(tl.float32)
        second = tl.load(source + HALF + d, mask=real).to(tl.float32)
        c = tl.load(cos + row * angles_row + at * HALF + d, mask=real).to(tl.float32)
        s = tl.load(sin + row * angles_row + at * HALF + d, mask=real).to(tl.float32)
        if head < HEADS:
            turned = out + ((row * HEADS + head) * width + at) * 2 * HALF
            tl.store(turned + d, first * c - second * s, mask=real)
            tl.store(turned + HALF + d, second * c + first * s, mask=real)
        else:  # a cache may have another type than what is asked of it
            key = keys + found + (head - HEADS) * kv_head
            tl.store(key + d, first * c - second * s, mask=real)
            tl.store(key + HALF + d, second * c + first * s, mask=real)
    else:
        given = v + token * v_at + (head - HEADS - KV) * 2 * HALF
        value = values + found + (head - HEADS - KV) * kv_head
        # by float32, from which float8 is rounded once and ends at its largest
        tl.store(value + d, tl.load(given + d, mask=real).to(tl.float32), mask=real)
        tl.store(value + HALF + d, tl.load(given + HALF + d, mask=real).to(tl.float32), mask=real)


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
    """Projected `q` `(B, T, heads * D)`, `k`, `v` `(B, T, kv_heads * D)`: `q` turned, `(B, heads, T, D)`.

    Turned keys and the values go to `places` `(B or 1, T)` of the slots `rows` `(B,)`, in `keys` and `values`
    `(pages, kv_heads, page, D)` by `table`, as a `KVCache` has them. `angles` as `Rope` has them, of as many
    rows as `places`, or one. `q`, `k` and `v` may be parts of one projection. A cache in float8 gets them
    rounded to it.
    """
    batch, width = q.shape[:2]
    _, kv_heads, page, dim = keys.shape
    heads = q.shape[2] // dim
    cos, sin = angles
    assert all(x.is_contiguous() for x in (cos, sin, rows, places))  # noqa: S101  # `Rope` and `KVCache` made them
    assert all(x.stride() == (width * x.stride(1), x.stride(1), 1) for x in (q, k, v) if batch > 1)  # noqa: S101  # parts of what a linear layer made
    assert keys.stride() == values.stride()  # noqa: S101  # `KVCache` made both
    out = torch.empty(batch, heads, width, dim, device=q.device, dtype=q.dtype)
    with torch.cuda.device_of(q):
        _rotate_put[(batch * width, heads + 2 * kv_heads)](
            q, k, v, cos, sin, rows, places, table, keys, values, out,
            width, q.stride(1), k.stride(1), v.stride(1),
            cos.stride(0) if len(cos) > 1 else 0, width if len(places) > 1 else 0,
            table.stride(0), *keys.stride()[:3],
            HEADS=heads, KV=kv_heads, HALF=dim // 2, WIDE=triton.next_power_of_2(dim // 2), PAGE=page,
            num_warps=1,
        )  # fmt: skip
    return out


@triton.jit
def _gated(both, out, wide, BLOCK: tl.constexpr):
    """A block of one row's gate, and the same block of what it lets through."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = at < wide
    x = tl.load(both + 2 * row * wide + at, mask=real, other=0.0).to(tl.float32)
    y = tl.load(both + (2 * row + 1) * wide + at, mask=real, other=0.0).to(tl.float32)
    tl.store(out + row * wide + at, x / (1 + tl.exp(-x)) * y, mask=real)


def gated(both: Tensor) -> Tensor:
    """`(…, 2 I)`, gate and up side by side, to `silu(gate) * up` `(…, I)`."""
    assert both.is_contiguous()  # noqa: S101  # a linear layer made it
    wide = both.shape[-1] // 2
    out = torch.empty(*both.shape[:-1], wide, device=both.device, dtype=both.dtype)
    with torch.cuda.device_of(both):
        _gated[(out.numel() // wide, triton.cdiv(wide, BLOCK))](both, out, wide, BLOCK=BLOCK)
    return out


@triton.jit
def _add_norm(x, more, weight, total, normed, eps, H: tl.constexpr, WIDE: tl.constexpr):
    """One row: the sum is rounded to its type first, and what is normed is the rounded one."""
    at = tl.arange(0, WIDE)
    real = at < H
    place = tl.program_id(0).to(tl.int64) * H + at
    sum_ = tl.load(x + place, mask=real, other=0.0).to(tl.float32)
    sum_ += tl.load(more + place, mask=real, other=0.0).to(tl.float32)
    rounded = sum_.to(total.dtype.element_ty)
    tl.store(total + place, rounded, mask=real)
    wide = rounded.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, 0) / H + eps)
    by = tl.load(weight + at, mask=real, other=0.0).to(tl.float32)
    tl.store(normed + place, wide * scale * by, mask=real)


def add_norm(x: Tensor, more: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`x + more` `(…, H)`, and that scaled by its root mean square and by `weight` `(H,)`.

    The sum is rounded to its type once, as torch's addition rounds it; the norm is taken of the rounded sum
    in float32 and rounded once, as torch's own kernel does. Only the order of adding squares may differ.
    """
    assert all(one.is_contiguous() for one in (x, more))  # noqa: S101  # a step's own products
    hidden = x.shape[-1]
    total, normed = torch.empty_like(x), torch.empty_like(x)
    with torch.cuda.device_of(x):
        _add_norm[(x.numel() // hidden,)](
            x, more, weight, total, normed, eps, H=hidden, WIDE=triton.next_power_of_2(hidden)
        )
    return total, normed
