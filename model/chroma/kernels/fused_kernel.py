"""A layer's small work in one kernel each, in Triton: a step has thousands, and each costs its start.

`rotate_put` turns queries and keys and puts keys and values into their cache; `gated` is an MLP's gate.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
"""Numbers of one program of `gated`."""


@triton.jit
def _rotate_put(
    q, k, v, cos, sin, places, keys, values, out,
    angles_row, places_row, keys_row, keys_head,
    T: tl.constexpr, HEADS: tl.constexpr, KV: tl.constexpr, HALF: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One head of one position: queries, then keys, then values."""
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row, at = token // T, token % T
    d = tl.arange(0, WIDE)
    real = d < HALF
    place = tl.load(places + row * places_row + at)
    if head < HEADS + KV:
        if head < HEADS:
            source = q + (token * HEADS + head) * 2 * HALF
            target = out + ((row * HEADS + head) * T + at) * 2 * HALF
        else:
            source = k + (token * KV + head - HEADS) * 2 * HALF
            target = keys + row * keys_row + (head - HEADS) * keys_head + place * 2 * HALF
        first = tl.load(source + d, mask=real).to(tl.float32)
        second = tl.load(source + HALF + d, mask=real).to(tl.float32)
        c = tl.load(cos + row * angles_row + at * HALF + d, mask=real).to(tl.float32)
        s = tl.load(sin + row * angles_row + at * HALF + d, mask=real).to(tl.float32)
        tl.store(target + d, first * c - second * s, mask=real)
        tl.store(target + HALF + d, second * c + first * s, mask=real)
    else:
        source = v + (token * KV + head - HEADS - KV) * 2 * HALF
        target = values + row * keys_row + (head - HEADS - KV) * keys_head + place * 2 * HALF
        tl.store(target + d, tl.load(source + d, mask=real), mask=real)
        tl.store(target + HALF + d, tl.load(source + HALF + d, mask=real), mask=real)


def rotate_put(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    angles: tuple[Tensor, Tensor],
    places: Tensor,
    keys: Tensor,
    values: Tensor,
) -> Tensor:
    """Projected `q` `(B, T, heads * D)`, `k`, `v` `(B, T, kv_heads * D)`: `q` turned, `(B, heads, T, D)`.

    Turned keys and the values go to `places` `(B or 1, 1, T, 1)` of `keys` and `values`
    `(B, kv_heads, places, D)`. `angles` as `Rope` has them, of as many rows as `places`, or one.
    """
    batch, width = q.shape[:2]
    kv_heads, dim = keys.shape[1], keys.shape[3]
    heads = q.shape[2] // dim
    cos, sin = angles
    assert all(x.is_contiguous() for x in (q, k, v, cos, sin, places))  # noqa: S101  # `Attention` passes what it made
    assert keys.stride() == values.stride()  # noqa: S101  # `KVCache` made both
    assert keys.stride()[2:] == (dim, 1)  # noqa: S101  # the same
    out = torch.empty(batch, heads, width, dim, device=q.device, dtype=q.dtype)
    with torch.cuda.device_of(q):
        _rotate_put[(batch * width, heads + 2 * kv_heads)](
            q, k, v, cos, sin, places, keys, values, out,
            cos.stride(0) if len(cos) > 1 else 0, width if len(places) > 1 else 0, *keys.stride()[:2],
            T=width, HEADS=heads, KV=kv_heads, HALF=dim // 2, WIDE=triton.next_power_of_2(dim // 2),
        )  # fmt: skip
    return out


@triton.jit
def _gated(gate, up, out, count, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    real = at < count
    x = tl.load(gate + at, mask=real, other=0.0).to(tl.float32)
    y = tl.load(up + at, mask=real, other=0.0).to(tl.float32)
    tl.store(out + at, x / (1 + tl.exp(-x)) * y, mask=real)


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """`silu(gate) * up`, of one shape."""
    assert all(x.is_contiguous() for x in (gate, up))  # noqa: S101  # two linear layers made them
    out = torch.empty_like(gate)
    with torch.cuda.device_of(gate):
        _gated[(triton.cdiv(gate.numel(), BLOCK),)](gate, up, out, gate.numel(), BLOCK=BLOCK)
    return out
