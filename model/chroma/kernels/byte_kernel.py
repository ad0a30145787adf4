"""A product with weights of one byte, in Triton: bytes are read once and made wide in registers.

One launch for a layer: where the inputs are shared among programs, whichever is the last at a tile adds up
all shares, in one order, and does what is left to do (scale, bias, the output's type).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, OUTPUTS, INPUTS = 64, 32, 128
"""The largest tile of one program, up to `ROWS` rows."""
MANY = 128, 64, 64
"""The tile beyond: arithmetic counts, and weights are read again for each tile of rows."""
WAVES = 2
"""Programs for each multiprocessor that are aimed at."""


@triton.jit(do_not_specialize=["rows", "share", "splits"])
def _product(
    x, weight, scale, bias, parts, turn, out, rows, share, splits, outputs, inputs,
    BIAS: tl.constexpr, SHARED: tl.constexpr, ROWS: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    """One tile over one share of the inputs, `share` blocks of `INPUTS`.

    `parts` `(splits, rows, outputs)` float32; `turn`: a nought for each tile.
    """
    tile = tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)
    row = tl.program_id(2) * ROWS + tl.arange(0, ROWS)
    output = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    split = tl.program_id(1)
    low = split * share * INPUTS  # so that a load is known to be aligned
    high = tl.minimum(low + share * INPUTS, inputs)
    sum_ = tl.zeros((ROWS, OUTPUTS), tl.float32)
    for at in range(low, high, INPUTS):
        place = at + tl.arange(0, INPUTS)
        state = tl.load(x + row[:, None] * inputs + place[None, :],
                        mask=(row[:, None] < rows) & (place[None, :] < high), other=0.0)  # fmt: skip
        byte = tl.load(weight + output[:, None] * inputs + place[None, :],
                       mask=(output[:, None] < outputs) & (place[None, :] < high), other=0.0)  # fmt: skip
        sum_ += tl.dot(state, tl.trans(byte.to(state.dtype)), input_precision="ieee")
    found = row[:, None] * outputs + output[None, :]
    real = (row[:, None] < rows) & (output[None, :] < outputs)
    last = True
    if SHARED:
        one = outputs.to(tl.int64) * rows
        tl.store(parts + split * one + found, sum_, mask=real)
        tl.debug_barrier()  # all of the share is written before it counts
        last = tl.atomic_add(turn + tile, 1, sem="acq_rel") == splits - 1
        if last:
            sum_ = tl.zeros((ROWS, OUTPUTS), tl.float32)
            for other in range(splits):
                sum_ += tl.load(parts + other * one + found, mask=real, other=0.0, cache_modifier=".cg")
            tl.store(turn + tile, 0)  # for the next launch
    if last:
        sum_ *= tl.load(scale + output, mask=output < outputs, other=0.0)[None, :]
        if BIAS:
            sum_ += tl.load(bias + output, mask=output < outputs, other=0.0).to(tl.float32)[None, :]
        tl.store(out + found, sum_, mask=real)


def byte_linear(
    x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None, turn: Tensor, *, splits: int | None = None
) -> Tensor:
    """`x` `(rows, in)` by `weight` `(out, in)` int8 or float8, times `scale` `(out,)`, with `bias` added.

    `(rows, out)`, rounded once to the type of `x`. Inputs are shared among programs until the device is full
    (`splits` None), as far as there are counters: `turn` int32, a nought for each tile, the layer's own.
    """
    rows, inputs = x.shape
    outputs = weight.shape[0]
    if rows > ROWS:
        tile, across, deep = MANY
    else:
        tile, across, deep = max(16, triton.next_power_of_2(rows)), OUTPUTS, INPUTS
    tiles = triton.cdiv(rows, tile), triton.cdiv(outputs, across)
    if splits is None:
        programs = (
            WAVES * torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 2
        )
        splits = programs // (tiles[0] * tiles[1]) if len(turn) >= tiles[0] * tiles[1] else 1
    splits = max(1, min(splits, triton.cdiv(inputs, deep)))
    share = triton.cdiv(triton.cdiv(inputs, splits), deep)
    splits = triton.cdiv(inputs, share * deep)
    out = torch.empty(rows, outputs, device=x.device, dtype=x.dtype)
    parts = out if splits == 1 else torch.empty(splits, rows, outputs, device=x.device, dtype=torch.float32)
    with torch.cuda.device_of(x):
        _product[(tiles[1], splits, tiles[0])](
            x.contiguous(), weight, scale, scale if bias is None else bias, parts, turn, out,
            rows, share, splits, outputs, inputs,
            BIAS=bias is not None, SHARED=splits > 1, ROWS=tile, OUTPUTS=across, INPUTS=deep,
            num_warps=8 if rows > ROWS else 4,
        )  # fmt: skip
    return out


@triton.jit
def _narrow(x, out, scale, inputs, LARGEST: tl.constexpr, WIDE: tl.constexpr):
    """One row; a row of noughts stays one."""
    at = tl.arange(0, WIDE)
    row = tl.program_id(0).to(tl.int64)
    wide = tl.load(x + row * inputs + at, mask=at < inputs, other=0.0).to(tl.float32)
    by = tl.maximum(tl.max(tl.abs(wide), 0), 1e-30) / LARGEST
    tl.store(out + row * inputs + at, (wide / by).to(out.dtype.element_ty), mask=at < inputs)
    tl.store(scale + row, by)


def narrow(x: Tensor, kind: torch.dtype = torch.float8_e4m3fn) -> tuple[Tensor, Tensor]:
    """`x` `(rows, in)` as float8, and `scale` `(rows, 1)`: a row's largest is the type's largest, 448."""
    rows, inputs = x.shape
    out = torch.empty(rows, inputs, device=x.device, dtype=kind)
    scale = torch.empty(rows, 1, device=x.device, dtype=torch.float32)
    with torch.cuda.device_of(x):
        _narrow[(rows,)](
            x.contiguous(),
            out,
            scale,
            inputs,
            LARGEST=448.0,
            WIDE=triton.next_power_of_2(inputs),
            num_warps=8,
        )
    return out, scale
