"""A product with weights of one byte, in Triton: bytes are read once and made wide in registers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, OUTPUTS, INPUTS = 64, 32, 128
"""The largest tile of one program."""
WAVES = 2
"""Programs for each multiprocessor that are aimed at."""


@triton.jit
def _product(
    x, weight, scale, out, rows, outputs, inputs, share,
    ROWS: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    """One tile over one share of the inputs: `out` `(splits, rows, outputs)` float32."""
    row = tl.program_id(2) * ROWS + tl.arange(0, ROWS)
    output = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    split = tl.program_id(1)
    low = split * share
    high = tl.minimum(low + share, inputs)
    sum_ = tl.zeros((ROWS, OUTPUTS), tl.float32)
    for at in range(low, high, INPUTS):
        place = at + tl.arange(0, INPUTS)
        state = tl.load(x + row[:, None] * inputs + place[None, :],
                        mask=(row[:, None] < rows) & (place[None, :] < high), other=0.0)  # fmt: skip
        byte = tl.load(weight + output[:, None] * inputs + place[None, :],
                       mask=(output[:, None] < outputs) & (place[None, :] < high), other=0.0)  # fmt: skip
        sum_ += tl.dot(state, tl.trans(byte.to(state.dtype)), input_precision="ieee")
    sum_ *= tl.load(scale + output, mask=output < outputs, other=0.0)[None, :]
    found = (split * rows + row[:, None]) * outputs + output[None, :]
    tl.store(out + found, sum_, mask=(row[:, None] < rows) & (output[None, :] < outputs))


def byte_linear(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """`x` `(rows, in)` by `weight` `(out, in)` int8 or float8, times `scale` `(out,)`: `(rows, out)` as `x`.

    Inputs are shared among programs until the device is full; the shares are added in one order.
    """
    rows, inputs = x.shape
    outputs = weight.shape[0]
    tile = min(ROWS, max(16, triton.next_power_of_2(rows)))
    tiles = triton.cdiv(rows, tile), triton.cdiv(outputs, OUTPUTS)
    programs = 2 * tiles[0] * tiles[1]  # Triton's interpreter
    if x.is_cuda:
        programs = WAVES * torch.cuda.get_device_properties(x.device).multi_processor_count
    splits = max(1, min(programs // (tiles[0] * tiles[1]), triton.cdiv(inputs, INPUTS)))
    share = triton.cdiv(triton.cdiv(inputs, splits), INPUTS) * INPUTS
    out = torch.empty(splits, rows, outputs, device=x.device, dtype=torch.float32)
    with torch.cuda.device_of(x):
        _product[(tiles[1], splits, tiles[0])](
            x.contiguous(), weight, scale, out, rows, outputs, inputs, share,
            ROWS=tile, OUTPUTS=OUTPUTS, INPUTS=INPUTS,
        )  # fmt: skip
    return out.sum(0).to(x.dtype)
