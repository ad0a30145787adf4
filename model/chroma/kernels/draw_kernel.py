"""A draw of one code for every row in one kernel, in Triton: the law of `sampling.pick` without a sort.

A row of logits fits into one program's registers. Every id gets a key of its own, its logit before its
number, so that no two are equal and equal logits go by the lower id. What top-k and top-p keep are the keys
above a threshold, which is found by halving: how many keys, or how much probability, lies above the middle.
The noise is the hash that `sampling.gumbel` takes, of the same seed, draw and id.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

WARPS = 8


@triton.jit
def _mix(x):
    """SplitMix64's finisher."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


@triton.jit(do_not_specialize=["book", "top_ps_row"])
def _draw(
    logits, temperatures, top_ks, top_ps, seeds, draws, out, vocab, limit, book,
    logits_row, temperatures_row, top_ps_row, numbers_row,
    BOOKS: tl.constexpr, WIDE: tl.constexpr, BITS: tl.constexpr,
):  # fmt: skip
    """One row. `BITS`: of an id; a key is the logit's 32 bits, made to grow with it, and the id backwards."""
    row = tl.program_id(0).to(tl.int64)
    id_ = tl.arange(0, WIDE)
    real = id_ < vocab
    temperature = tl.load(temperatures + row * temperatures_row)
    cold = temperature <= 0
    logit = tl.load(logits + row * logits_row + id_, mask=real, other=float("-inf")).to(tl.float32)
    logit = tl.where(id_ < limit, logit, float("-inf"))
    scaled = tl.div_rn(logit, tl.where(cold, 1.0, temperature))
    scaled = tl.where(scaled == 0.0, 0.0, scaled)  # both zeros are one
    bits = scaled.to(tl.int32, bitcast=True)
    grows = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    key = ((grows.to(tl.int64) + 0x80000000) << BITS) | (WIDE - 1 - id_).to(tl.int64)
    key = tl.where(real, key, -1)
    most = tl.max(key, 0)

    # `least`: the smallest key that is kept
    least = tl.zeros((), tl.int64)
    top_k = tl.load(top_ks + row * numbers_row).to(tl.int32)
    if (top_k > 0) & (top_k < vocab) & (not cold):
        # invariant: more than top_k keys are at or above `low`, fewer than top_k at or above `high`
        low, high = least, most + 1
        while high - low > 1:
            middle = low + (high - low) // 2
            above = tl.sum((key >= middle).to(tl.int32), 0)
            low = tl.where(above >= top_k, middle, low)
            high = tl.where(above > top_k, high, tl.where(above == top_k, middle + 1, middle))
        least = low

    top_p = tl.load(top_ps + row * top_ps_row)
    if (top_p < 1) & (not cold):
        best = tl.max(scaled, 0)
        share = tl.where(key >= least, tl.exp(scaled - best), 0.0)
        share = share / tl.sum(share, 0)
        # invariant: at least top_p lies above `low`, less above `high`; `between` keys are in (low, high]
        low, high = least - 1, most
        between = tl.sum((key > low).to(tl.int32), 0)
        if top_p <= 0:
            low, between = most - 1, between * 0
        while between > 1:
            middle = low + (high - low) // 2
            behind = key > middle
            reached = tl.sum(tl.where(behind, share, 0.0), 0) >= top_p
            low = tl.where(reached, middle, low)
            high = tl.where(reached, high, middle)
            between = tl.sum(((key > low) & (key <= high)).to(tl.int32), 0)
        least = low + 1

    golden = tl.full((), 0x9E3779B97F4A7C15, tl.uint64)
    seed = tl.load(seeds + row * numbers_row).to(tl.uint64)
    number = (tl.load(draws + row * numbers_row) * BOOKS + book).to(tl.uint64)
    stream = _mix(_mix(seed * golden + 1) + number * golden)
    hash_ = _mix(stream + (id_ + 1).to(tl.uint64) * golden) >> 41
    uniform = (hash_.to(tl.int32).to(tl.float32) + 0.5) * (1.0 / (1 << 23))
    noise = -tl.log(-tl.log(uniform))
    score = tl.where(key >= least, scaled + tl.where(cold, 0.0, noise), float("-inf"))
    winner = tl.max(tl.where((score == tl.max(score, 0)) & (key >= least), key, -1), 0)
    found = tl.where(winner < 0, 0, WIDE - 1 - (winner & (WIDE - 1)))  # not a number anywhere: any id
    tl.store(out + row, found)


def draw(
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    seed: Tensor,
    draws: Tensor,
    *,
    book: int,
    books: int,
    limit: int,
) -> Tensor:
    """An id `(B,)` int64 for each row of `logits` `(B, V)`, never one from `limit` on.

    The settings are `(B,)`, as `pick` takes them; a row's noise is that of its draw `draws * books + book`.
    """
    rows, vocab = logits.shape
    wide = triton.next_power_of_2(vocab)
    assert logits.stride(1) == 1  # noqa: S101  # a head's product
    assert top_k.stride() == seed.stride() == draws.stride()  # noqa: S101  # columns of one tensor
    out = torch.empty(rows, device=logits.device, dtype=torch.long)
    with torch.cuda.device_of(logits):
        _draw[(rows,)](
            logits, temperature, top_k, top_p, seed, draws, out, vocab, limit, book,
            logits.stride(0), temperature.stride(0), top_p.stride(0), top_k.stride(0),
            BOOKS=books, WIDE=wide, BITS=wide.bit_length() - 1, num_warps=WARPS,
        )  # fmt: skip
    return out
