"""Weights in eight bits: every big linear layer keeps a byte for each weight and a scale for each output.

States, norms, embeddings, the audio encoder and Mimi stay as they are. A byte is made wide again where it is
multiplied: on a GPU by a kernel that reads bytes only, elsewhere before the product.

By a choice of their own (`keep_kv`), keys and values of thinker and backbone are kept in a byte each: plain
e4m3 without a scale, at most 448. What lasts a frame, Mimi's ring, and a voice that is held stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.chroma.network.joined import JoinedLinear, Pieces
from model.chroma.network.weights import Chroma

Weights = Literal["full", "int8", "fp8"]
"""How linear layers are kept: "full" as all else."""
KV = Literal["full", "fp8"]
"""How keys and values of conversations are kept: "full" as all else."""
KINDS: Final = {"int8": (torch.int8, 127.0), "fp8": (torch.float8_e4m3fn, 448.0)}
"""The type, and its largest number."""
NARROW_ON: Final[frozenset[str]] = frozenset()
"""Devices, by torch's name, on which fp8 by fp8 (`ByteLinear.by_narrow`) was measured to win. None was."""
NARROW_ROWS: Final = 32
"""Rows up to which a layer is bound by reading its weights: there `by_narrow` has nothing to win."""


class ByteLinear(Pieces):
    """A linear layer: `weight` `(out, in)` in bytes, `scale` `(out,)` float32, `bias` as it was."""

    def __init__(
        self, weight: Tensor, scale: Tensor, bias: Tensor | None, pieces: Mapping[str, int] | None = None
    ) -> None:
        super().__init__()
        self.pieces = pieces
        self.weight: Tensor
        self.scale: Tensor
        self.turn: Tensor
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        # counters for the kernel's tiles, of all rows of which several programs share a tile
        turn = torch.zeros(len(scale) // 16 + 2, device=scale.device, dtype=torch.int32)
        self.register_buffer("turn", turn, persistent=False)
        self.bias = bias
        self._narrow = (
            weight.dtype == torch.float8_e4m3fn
            and weight.device.type == "cuda"
            and torch.cuda.get_device_name(weight.device) in NARROW_ON
        )

    @classmethod
    def of(cls, linear: nn.Linear, kind: Literal["int8", "fp8"]) -> Self:
        """The layer rounded: each output's largest weight is the type's largest number."""
        dtype, largest = KINDS[kind]
        wide = linear.weight.detach().float()
        scale = wide.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / largest
        scaled = wide / scale[:, None]
        pieces = linear.pieces if isinstance(linear, JoinedLinear) else None
        return cls((scaled.round() if dtype == torch.int8 else scaled).to(dtype), scale, linear.bias, pieces)

    def forward(self, x: Tensor) -> Tensor:
        """`(…, in)` to `(…, out)`."""
        if x.is_cpu:
            y = (F.linear(x, self.weight.to(x.dtype)) * self.scale).to(x.dtype)
            return y if self.bias is None else y + self.bias
        rows = x.flatten(0, -2)
        if self._narrow and len(rows) > NARROW_ROWS and not (len(self.scale) % 16 or rows.shape[1] % 16):
            return self.by_narrow(rows).view(*x.shape[:-1], -1)
        from model.chroma.kernels.byte_kernel import byte_linear  # triton comes with torch for a GPU only

        y = byte_linear(rows, self.weight, self.scale, self.bias, self.turn)
        return y.view(*x.shape[:-1], -1)

    def by_narrow(self, x: Tensor) -> Tensor:
        """The same by torch's product of fp8 with fp8 (cuBLASLt's): `(rows, in)` to `(rows, out)`.

        States are rounded too, each row by its largest, which `forward` does not do elsewhere. Inputs and
        outputs are multiples of 16.
        """
        if x.is_cpu:
            by = x.float().abs().amax(1, keepdim=True).clamp(min=1e-30) / KINDS["fp8"][1]
            states = (x.float() / by).to(torch.float8_e4m3fn)
        else:
            from model.chroma.kernels.byte_kernel import narrow  # triton comes with torch for a GPU only

            states, by = narrow(x)
        product = torch._scaled_mm(
            states, self.weight.t(), by, self.scale[None], bias=self.bias, out_dtype=x.dtype
        )
        return product


def round_weights(model: Chroma, weights: Weights) -> Chroma:
    """The model with its big linear layers kept so, in place."""
    if weights == "full":
        return model
    for part in (model.thinker, model.backbone, model.decoder):
        for name, module in list(part.named_modules()):
            if isinstance(module, nn.Linear) and not name.startswith("audio_tower."):
                owner, _, attribute = name.rpartition(".")
                setattr(part.get_submodule(owner), attribute, ByteLinear.of(module, weights))
    return model


def keep_kv(model: Chroma, kv: KV) -> Chroma:
    """The model, of which `Slots` keep keys and values so from now on."""
    model.kept = None if kv == "full" else KINDS[kv][0]
    return model
