"""Kernels against plain torch, run as a program of its own by `test_kernels` under Triton's interpreter.

A kernel decides at its import whether it is interpreted; nothing here needs a GPU.
"""

from __future__ import annotations

import torch
import triton.language as tl
from torch import nn
from torch.nn.functional import silu

from model.chroma.kernels.byte_kernel import byte_linear
from model.chroma.kernels.decode_kernel import split_attend
from model.chroma.kernels.fused_kernel import gated
from model.chroma.network.attention import attend
from model.chroma.network.precision import ByteLinear
from model.chroma.network.quirks import SERVING
from model.chroma.serving.reply import perform
from model.chroma.serving.slots import Slots
from model.chroma.serving.steps import Steps
from tests.model.chroma import toy
from tests.model.chroma.serving.test_step import start


def attention(heads: int, kv_heads: int, dim: int, width: int, splits: int, dtype: torch.dtype) -> None:
    """Rows at a block's edges, at rest and at their very beginning, in a run inside a larger cache."""
    draw = torch.Generator().manual_seed(heads + dim + width)
    keys, values = (torch.randn(7, kv_heads, 201, dim, generator=draw).to(dtype)[1:6] for _ in range(2))
    q = torch.randn(5, width, heads, dim, generator=draw).to(dtype).transpose(1, 2)
    starts, counts = torch.tensor([0, 63, 64, 150, 17]), torch.tensor([width, width, 1, width, 0])
    seen = torch.arange(201) <= (starts[:, None] + torch.arange(width))[..., None]
    expected = attend(q.float(), keys.float(), values.float(), seen[:, None])
    # the interpreter multiplies no bfloat16 (Triton 3.9.0): on a GPU the products are of the keys' type
    found = split_attend(q, keys, values, starts, counts, splits=splits, dot=tl.float32)
    assert found.dtype == dtype
    near = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 1e-2, "rtol": 1e-2}
    for row, count in enumerate(counts.tolist()):
        torch.testing.assert_close(found[row, :, :count].float(), expected[row, :, :count], **near)
    assert torch.isfinite(found).all()


@torch.inference_mode()
def bytes_(kind: str, rows: int, inputs: int, outputs: int) -> None:
    layer = ByteLinear.of(nn.Linear(inputs, outputs, bias=False), kind)
    x = torch.randn(rows, inputs)
    torch.testing.assert_close(byte_linear(x, layer.weight, layer.scale), layer(x), atol=1e-5, rtol=1e-5)


def frames() -> None:
    """A packed prefill and whole steps by kernels say what the plain ones say."""
    model, found = toy.model(), []
    heard = torch.randn(12, model.config.thinker.hidden)
    for kernels in (False, True):
        steps = Steps(model, Slots.make(model, 3, SERVING, context=60, reply=60), SERVING)
        slots = steps.slots
        for cache in (slots.thinker, slots.backbone, slots.frame, slots.codec.cache):
            cache.kernels = kernels
        replies = [start(steps, slot, seed) for slot, seed in enumerate((1, 3, 4))]
        steps.prefill({2: heard[:5], 0: heard[5:]})
        told = [perform(steps, replies[:2])]
        told += [perform(steps, replies) for _ in range(3)]
        found.append([f for frames in told for f in frames if f.codes is not None and f.pcm is not None])
    assert len(found[0]) == len(found[1]) > 8
    for plain, ours in zip(*found, strict=True):
        assert (plain.word, plain.codes.tolist()) == (ours.word, ours.codes.tolist())
        torch.testing.assert_close(torch.from_numpy(ours.pcm), torch.from_numpy(plain.pcm), atol=1e-4, rtol=0)


def gate() -> None:
    a, b = torch.randn(3, 700), torch.randn(3, 700)
    torch.testing.assert_close(gated(a, b), silu(a) * b)


if __name__ == "__main__":
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        attention(16, 2, 128, 1, 4, dtype)
        attention(8, 2, 64, 3, 2, dtype)
        attention(4, 1, 12, 3, 1, dtype)
    for kind in ("int8", "fp8"):
        bytes_(kind, 3, 300, 70)
        bytes_(kind, 70, 130, 33)
    gate()
    frames()
