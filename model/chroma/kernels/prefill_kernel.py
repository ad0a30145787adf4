"""Attention of several slots' new positions at once, in Triton: one launch, whatever the number of slots.

New positions are tokens; each knows its slot and its place in it, and its keys and values lie in the slot's
pages already. A program takes a tile, some neighbouring tokens of one slot, with one key-value head and its
group of query heads laid together, and one share of the keys that they see. A second launch weighs the shares
by their log-sum-exp (`_combine` of `decode_kernel`). All counts are read on the device, so that a graph can
hold it: a tile of no tokens ends at once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.chroma.kernels.decode_kernel import _combine
from model.chroma.kernels.places import page_of
from model.chroma.kernels.shares import BLOCK, BYTE_BLOCK, LEAST, filling

WAVES = 2
"""Programs for each multiprocessor that are aimed at."""
MOST_SPLITS = 16


@triton.jit
def _tile_share(
    q, k, v, table, rows, positions, tiles, out, lse, scale,
    table_row, kv_page, kv_head, kv_at,
    KV: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, QUERIES: tl.constexpr, WIDE: tl.constexpr,
    BLOCK: tl.constexpr, PAGE: tl.constexpr, SPLITS: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """One tile and share: `out` `(tokens, KV, SPLITS, GROUP, D)`, `lse` without the last axis."""
    pair, split = tl.program_id(0), tl.program_id(1)
    tile, head = pair // KV, pair % KV
    first, count = tl.load(tiles + 2 * tile), tl.load(tiles + 2 * tile + 1)
    if count > 0:
        slot, start = tl.load(rows + first), tl.load(positions + first)
        end = start + count
        share = tl.cdiv(tl.cdiv(end, BLOCK), SPLITS) * BLOCK
        low = split * share
        high = tl.minimum(low + share, end)
        query, d = tl.arange(0, QUERIES), tl.arange(0, WIDE)
        token, member = query // GROUP, query % GROUP
        sees = start + token
        real = (token[:, None] < count) & (d[None, :] < D)
        places = ((first + token) * KV + head) * GROUP + member
        asked = tl.load(q + places[:, None] * D + d[None, :], mask=real, other=0.0).to(DOT)
        best = tl.full((QUERIES,), float("-inf"), tl.float32)
        total = tl.zeros((QUERIES,), tl.float32)
        sum_ = tl.zeros((QUERIES, WIDE), tl.float32)
        for at in range(low, high, BLOCK):
            place = at + tl.arange(0, BLOCK)
            there = (place[:, None] < high) & (d[None, :] < D)
            block = page_of(table, table_row, slot, at, PAGE) * kv_page + head * kv_head
            found = block + (at % PAGE + tl.arange(0, BLOCK))[:, None] * kv_at + d[None, :]
            keys = tl.load(k + found, mask=there, other=0.0)
            values = tl.load(v + found, mask=there, other=0.0)
            score = tl.dot(asked, tl.trans(keys.to(DOT)), input_precision="ieee") * scale
            seen = (place[None, :] <= sees[:, None]) & (place[None, :] < high)
            score = tl.where(seen, score, float("-inf"))
            better = tl.maximum(best, tl.max(score, 1))
            against = tl.where(better == float("-inf"), 0.0, better)  # nothing seen yet: not nan
            weight = tl.exp(score - against[:, None])
            fade = tl.exp(best - against)
            total = total * fade + tl.sum(weight, 1)
            sum_ = sum_ * fade[:, None] + tl.dot(weight.to(DOT), values.to(DOT), input_precision="ieee")
            best = better
        some = total > 0
        sum_ = sum_ / tl.where(some, total, 1.0)[:, None]
        share_of = (((first + token) * KV + head) * SPLITS + split) * GROUP + member
        tl.store(out + share_of[:, None] * D + d[None, :], sum_, mask=real)
        logs = tl.where(some, best + tl.log(tl.where(some, total, 1.0)), float("-inf"))
        tl.store(lse + share_of, logs, mask=token < count)


def tile_attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor,
    rows: Tensor,
    positions: Tensor,
    tiles: Tensor,
    tile: int,
    *,
    splits: int | None = None,
    dot: tl.dtype | None = None,
) -> Tensor:
    """`q` `(tokens, heads, 1, D)` over `k`, `v` `(pages, kv_heads, page, D)` by `table`, as in a `KVCache`.

    Token t stands at `positions` `(tokens,)` of the slot `rows` `(tokens,)` and sees itself and what is
    before it there. `tiles` `(n, 2)`: first token and number, at most `tile`, of neighbours in one slot. The
    outputs of tokens in no tile mean nothing. `splits`: a power of two (None: as the device is filled);
    `dot`: the products' type (None: that of the queries). Keys and values in float8 are made wide where they
    are read.
    """
    tokens, heads, _, dim = q.shape
    _, kv_heads, page, _ = k.shape
    group = heads // kv_heads
    splits = splits or filling(q.device, max(1, tokens // tile) * kv_heads, WAVES, MOST_SPLITS)
    if dot is None:
        dot = tl.float32 if q.dtype == torch.float32 else tl.bfloat16
    parts = torch.empty(tokens, kv_heads, splits, group, dim, device=q.device, dtype=torch.float32)
    lse = torch.empty(parts.shape[:-1], device=q.device, dtype=torch.float32)
    out = torch.empty(q.shape, device=q.device, dtype=q.dtype)
    assert page % BLOCK == 0  # noqa: S101  # `KVCache` is made so for all that is prefilled
    assert all(x.is_contiguous() for x in (q, rows, positions, tiles))  # noqa: S101  # `rotate_put` and `Packing` made them
    assert k.stride() == v.stride()  # noqa: S101  # `KVCache` made both
    wide = max(LEAST, triton.next_power_of_2(dim))
    queries = max(LEAST, triton.next_power_of_2(group * tile))
    with torch.cuda.device_of(q):
        _tile_share[(len(tiles) * kv_heads, splits)](
            q, k, v, table, rows, positions, tiles, parts, lse, dim**-0.5,
            table.stride(0), *k.stride()[:3],
            KV=kv_heads, GROUP=group, D=dim, QUERIES=queries, WIDE=wide,
            BLOCK=BYTE_BLOCK if k.itemsize == 1 else BLOCK, PAGE=page, SPLITS=splits, DOT=dot,
        )  # fmt: skip
        _combine[(tokens * kv_heads, group)](
            parts, lse, out, KV=kv_heads, GROUP=group, T=1, D=dim, WIDE=wide, SPLITS=splits
        )
    return out
