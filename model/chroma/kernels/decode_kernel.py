"""Attention of a frame's few new positions over a long cache, in Triton: every row to its own end.

A row is whatever slot it names, and its keys lie in pages (`places`).

Split over the keys (flash decoding, Dao et al. 2023): each program takes one row, one key-value head with its
group of query heads, and one share of the row's blocks; a second pass weighs the shares by their log-sum-exp.
Lengths are read on the device, so the grid depends on shapes alone and a graph can hold it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.chroma.kernels.places import page_of
from model.chroma.kernels.shares import BLOCK, BYTE_BLOCK, LEAST, filling

STAGES, RING_STAGES = 5, 3
"""Iterations under way: two blocks of keys are on their way, and a page's number comes two before them."""
WAVES = 4
"""Programs for each multiprocessor that are aimed at."""
MOST_SPLITS = 32


@triton.jit
def _share(
    q, k, v, table, rows, out, lse, starts, counts, scale,
    q_row, q_head, q_at, kv_page, kv_head, kv_at, table_row,
    KV: tl.constexpr, GROUP: tl.constexpr, T: tl.constexpr, D: tl.constexpr, QUERIES: tl.constexpr,
    WIDE: tl.constexpr, BLOCK: tl.constexpr, PAGE: tl.constexpr, WINDOW: tl.constexpr, SPLITS: tl.constexpr,
    DOT: tl.constexpr,
):  # fmt: skip
    """One split's attention: `out` `(rows, KV, SPLITS, GROUP * T, D)` and `lse` without the last axis."""
    pair, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row, head = pair // KV, pair % KV
    slot = tl.load(rows + row)
    start, count = tl.load(starts + row), tl.load(counts + row)
    end = tl.where(count > 0, start + count, 0)  # a row that rests reads nothing
    last = end - 1
    page = page_of(table, table_row, slot, 0, PAGE)
    if WINDOW:  # a ring is one page
        end = tl.minimum(end, PAGE)
    share = tl.cdiv(tl.cdiv(end, BLOCK), SPLITS) * BLOCK
    low = split * share
    high = tl.minimum(low + share, end)
    query, d = tl.arange(0, QUERIES), tl.arange(0, WIDE)
    sees = start + query % T
    real = (query[:, None] < GROUP * T) & (d[None, :] < D)
    q_head_of = head * GROUP + query // T
    q_places = q + row * q_row + q_head_of[:, None] * q_head + (query % T)[:, None] * q_at + d[None, :]
    asked = tl.load(q_places, mask=real, other=0.0).to(DOT)
    best = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    sum_ = tl.zeros((QUERIES, WIDE), tl.float32)
    for at in range(low, high, BLOCK):
        place = at + tl.arange(0, BLOCK)
        there = (place[:, None] < high) & (d[None, :] < D)
        if not WINDOW:
            page = page_of(table, table_row, slot, at, PAGE)
        block_places = (
            page * kv_page + head * kv_head + (at % PAGE + tl.arange(0, BLOCK))[:, None] * kv_at + d[None, :]
        )
        keys = tl.load(k + block_places, mask=there, other=0.0)
        values = tl.load(v + block_places, mask=there, other=0.0)
        score = tl.dot(asked, tl.trans(keys.to(DOT)), input_precision="ieee") * scale
        held = place
        if WINDOW:
            held = last - (last - place) % PAGE  # the position that each place holds
        seen = (held[None, :] <= sees[:, None]) & (place[None, :] < high)
        if WINDOW:
            seen = seen & (held[None, :] > sees[:, None] - WINDOW)
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
    found = ((row * KV + head) * SPLITS + split) * GROUP * T + query
    whole = found
    if SPLITS == 1:  # nobody comes after: each position's heads side by side
        whole = (row * T + query % T) * KV * GROUP + q_head_of
    tl.store(out + whole[:, None] * D + d[None, :], sum_, mask=real)
    tl.store(
        lse + found,
        tl.where(some, best + tl.log(tl.where(some, total, 1.0)), float("-inf")),
        mask=query < GROUP * T,
    )


@triton.jit
def _combine(
    parts, lse, out, KV: tl.constexpr, GROUP: tl.constexpr, T: tl.constexpr, D: tl.constexpr,
    WIDE: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """The splits of one query of one head weighed together, into `out` `(rows, T, heads, D)`."""
    pair, query = tl.program_id(0).to(tl.int64), tl.program_id(1)
    split, d = tl.arange(0, SPLITS), tl.arange(0, WIDE)
    found = (pair * SPLITS + split) * GROUP * T + query
    sums = tl.load(lse + found)
    best = tl.max(sums, 0)
    weight = tl.exp(sums - tl.where(best == float("-inf"), 0.0, best))
    total = tl.sum(weight, 0)
    part = tl.load(parts + found[:, None] * D + d[None, :], mask=d[None, :] < D, other=0.0)
    whole = tl.sum(part * weight[:, None], 0) / tl.where(total > 0, total, 1.0)
    head_at = (pair // KV * T + query % T) * KV * GROUP + pair % KV * GROUP + query // T
    tl.store(out + head_at * D + d, whole, mask=d < D)


def split_attend(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    table: Tensor,
    rows: Tensor,
    starts: Tensor,
    counts: Tensor,
    *,
    window: int | None = None,
    splits: int | None = None,
    dot: tl.dtype | None = None,
) -> Tensor:
    """`q` `(B, heads, T, D)`, `T` new positions from `starts` `(B,)` on, each over its slot's keys.

    `rows` `(B,)` are the slots; `keys`, `values` `(pages, kv_heads, page, D)` and `table` as a `KVCache` has
    them. Each position sees itself and what is before it, with a `window` (in a ring, which is one page) no
    more than that; `counts` `(B,)` of them are real, the others' outputs mean nothing, and a row of none is
    not read. `splits`: a power of two (None: as the device is filled); `dot`: the products' type (None: that
    of the queries), to which keys and values in float8 are made wide. A ring is short: one program reads it.
    The output `(B, heads, T, D)` lies with each position's heads side by side, as the next product wants it.
    """
    batch, heads, width, dim = q.shape
    _, kv_heads, page, _ = keys.shape
    group = heads // kv_heads
    splits = splits or (1 if window else filling(q.device, batch * kv_heads, WAVES, MOST_SPLITS))
    if dot is None:
        dot = tl.float32 if q.dtype == torch.float32 else tl.bfloat16
    wide = max(LEAST, triton.next_power_of_2(dim))
    queries = max(LEAST, triton.next_power_of_2(group * width))
    out = torch.empty(batch, width, heads, dim, device=q.device, dtype=q.dtype)
    parts = out  # one share is the whole
    if splits > 1:
        parts = torch.empty(batch, kv_heads, splits, group * width, dim, device=q.device, dtype=torch.float32)
    lse = torch.empty(batch, kv_heads, splits, group * width, device=q.device, dtype=torch.float32)
    assert keys.stride() == values.stride()  # noqa: S101  # `KVCache` made both
    assert q.stride(3) == keys.stride(3) == rows.stride(0) == starts.stride(0) == counts.stride(0) == 1  # noqa: S101  # `Attention` and `KVCache` made them
    assert window is None or table.shape[1] == 2, "a ring of several pages"  # noqa: S101  # rings are made with one
    with torch.cuda.device_of(q):
        _share[(batch * kv_heads, splits)](
            q, keys, values, table, rows, parts, lse, starts, counts, dim**-0.5,
            *q.stride()[:3], *keys.stride()[:3], table.stride(0),
            KV=kv_heads, GROUP=group, T=width, D=dim, QUERIES=queries, WIDE=wide,
            BLOCK=BYTE_BLOCK if keys.itemsize == 1 else BLOCK, PAGE=page,
            WINDOW=window or 0, SPLITS=splits, DOT=dot,
            num_stages=RING_STAGES if window else STAGES,
        )  # fmt: skip
        if splits > 1:
            _combine[(batch * kv_heads, group * width)](
                parts, lse, out, KV=kv_heads, GROUP=group, T=width, D=dim, WIDE=wide, SPLITS=splits
            )
    return out.transpose(1, 2)
