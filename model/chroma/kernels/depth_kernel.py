"""Attention within a frame's depth in one kernel, in Triton: turn, keep, attend.

The decoder has as many positions as a frame has codebooks. A program takes one row's key-value head with its
group of query heads: all keys that there are fit into registers, the new ones come from the projection and go
into the cache for the positions after them.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _half(x, cos, sin, first, second, SIGN: tl.constexpr):
    """One half of a turned vector, rounded as the cache would round it."""
    return (first * cos + SIGN * second * sin).to(x.dtype.element_ty).to(tl.float32)


@triton.jit(do_not_specialize=["start"])
def _depth(
    q, k, v, cos, sin, keys, values, out, scale, start, q_at, k_at, v_at, kv_row, kv_head,
    T: tl.constexpr, KV: tl.constexpr, GROUP: tl.constexpr, HALF: tl.constexpr, WIDE: tl.constexpr,
    QUERIES: tl.constexpr, PLACES: tl.constexpr,
):  # fmt: skip
    """One row's head: `T` new positions from `start` on, which see all before them."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    query, place, d = tl.arange(0, QUERIES), tl.arange(0, PLACES), tl.arange(0, WIDE)
    own, real = d < HALF, query < GROUP * T
    at = query % T
    asked = (
        q + (row * T + at)[:, None] * q_at + ((head * GROUP + query // T) * 2 * HALF)[:, None] + d[None, :]
    )
    there = real[:, None] & own[None, :]
    first = tl.load(asked, mask=there, other=0.0).to(tl.float32)
    second = tl.load(asked + HALF, mask=there, other=0.0).to(tl.float32)
    c = tl.load(cos + at[:, None] * HALF + d[None, :], mask=there, other=0.0).to(tl.float32)
    s = tl.load(sin + at[:, None] * HALF + d[None, :], mask=there, other=0.0).to(tl.float32)
    q1, q2 = _half(q, c, s, first, second, -1), _half(q, c, s, second, first, 1)

    kept = row * kv_row + head * kv_head + place[:, None] * 2 * HALF + d[None, :]
    before = (place[:, None] < start) & own[None, :]
    k1 = tl.load(keys + kept, mask=before, other=0.0).to(tl.float32)
    k2 = tl.load(keys + kept + HALF, mask=before, other=0.0).to(tl.float32)
    v1 = tl.load(values + kept, mask=before, other=0.0).to(tl.float32)
    v2 = tl.load(values + kept + HALF, mask=before, other=0.0).to(tl.float32)
    for t in tl.static_range(T):
        new_k = k + (row * T + t) * k_at + head * 2 * HALF + d
        new_v = v + (row * T + t) * v_at + head * 2 * HALF + d
        c1 = tl.load(cos + t * HALF + d, mask=own, other=0.0).to(tl.float32)
        s1 = tl.load(sin + t * HALF + d, mask=own, other=0.0).to(tl.float32)
        first1 = tl.load(new_k, mask=own, other=0.0).to(tl.float32)
        second1 = tl.load(new_k + HALF, mask=own, other=0.0).to(tl.float32)
        n1, n2 = _half(k, c1, s1, first1, second1, -1), _half(k, c1, s1, second1, first1, 1)
        m1 = tl.load(new_v, mask=own, other=0.0).to(tl.float32)
        m2 = tl.load(new_v + HALF, mask=own, other=0.0).to(tl.float32)
        target = row * kv_row + head * kv_head + (start + t) * 2 * HALF + d
        tl.store(keys + target, n1, mask=own)
        tl.store(keys + target + HALF, n2, mask=own)
        tl.store(values + target, m1, mask=own)
        tl.store(values + target + HALF, m2, mask=own)
        new = (place == start + t)[:, None]
        k1, k2 = tl.where(new, n1[None, :], k1), tl.where(new, n2[None, :], k2)
        v1, v2 = tl.where(new, m1[None, :], v1), tl.where(new, m2[None, :], v2)

    score = tl.sum(q1[:, None, :] * k1[None, :, :] + q2[:, None, :] * k2[None, :, :], 2) * scale
    score = tl.where(place[None, :] <= start + at[:, None], score, float("-inf"))
    weight = tl.exp(score - tl.max(score, 1)[:, None])
    weight = weight / tl.sum(weight, 1)[:, None]
    found = out + ((row * T + at) * KV * GROUP + head * GROUP + query // T)[:, None] * 2 * HALF + d[None, :]
    tl.store(found, tl.sum(weight[:, :, None] * v1[None, :, :], 1), mask=there)
    tl.store(found + HALF, tl.sum(weight[:, :, None] * v2[None, :, :], 1), mask=there)


def depth_attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    angles: tuple[Tensor, Tensor],
    keys: Tensor,
    values: Tensor,
    start: int,
) -> Tensor:
    """Projected `q` `(B, T, heads * D)`, `k`, `v` `(B, T, kv_heads * D)` of `T` positions from `start` on,
    the same for all rows, attended to what lies before them and to themselves: `(B, T, heads * D)`.

    Turned keys and the values go to `keys` and `values` `(at least B, kv_heads, places, D)`; `angles`
    `(1, 1, T, D / 2)`. `q`, `k` and `v` may be parts of one projection.
    """
    batch, width = q.shape[:2]
    _, kv_heads, places, dim = keys.shape
    group = q.shape[2] // dim // kv_heads
    cos, sin = angles
    assert all(x.is_contiguous() for x in angles)  # noqa: S101  # `Rope.known` made them
    assert all(x.stride() == (width * x.stride(1), x.stride(1), 1) for x in (q, k, v) if batch > 1)  # noqa: S101  # parts of what a linear layer made
    assert keys.stride() == values.stride()  # noqa: S101  # `KVCache` made both
    assert keys.stride()[2:] == (dim, 1)  # noqa: S101  # the same
    out = torch.empty(batch, width, q.shape[2], device=q.device, dtype=q.dtype)
    with torch.cuda.device_of(q):
        _depth[(batch, kv_heads)](
            q, k, v, cos, sin, keys, values, out, dim**-0.5, start,
            q.stride(1), k.stride(1), v.stride(1), *keys.stride()[:2],
            T=width, KV=kv_heads, GROUP=group, HALF=dim // 2, WIDE=triton.next_power_of_2(dim // 2),
            QUERIES=triton.next_power_of_2(group * width), PLACES=triton.next_power_of_2(places),
        )  # fmt: skip
    return out
