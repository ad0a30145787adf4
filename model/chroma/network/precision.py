"""Weights in eight bits: every big linear layer keeps a byte for each weight and a scale for each output.

Only weights are rounded; states, keys and values, norms, embeddings, the audio encoder and Mimi stay as they
are. A byte is made wide again where it is multiplied: on a GPU by a kernel that reads bytes only, elsewhere
before the product.
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
KINDS: Final = {"int8": (torch.int8, 127.0), "fp8": (torch.float8_e4m3fn, 448.0)}
"""The type, and its largest number."""
BY_KERNEL: Final = 512
"""Rows up to which the layer is bound by reading its weights."""


class ByteLinear(Pieces):
    """A linear layer: `weight` `(out, in)` in bytes, `scale` `(out,)` float32, `bias` as it was."""

    def __init__(
        self, weight: Tensor, scale: Tensor, bias: Tensor | None, pieces: Mapping[str, int] | None = None
    ) -> None:
        super().__init__()
        self.pieces = pieces
        self.weight: Tensor
        self.scale: Tensor
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.bias = bias

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
        if x.is_cuda and x.shape[:-1].numel() <= BY_KERNEL:
            from model.chroma.kernels.byte_kernel import byte_linear  # triton comes with torch for a GPU only

            y = byte_linear(x.flatten(0, -2), self.weight, self.scale).view(*x.shape[:-1], -1)
        else:
            y = (F.linear(x, self.weight.to(x.dtype)) * self.scale).to(x.dtype)
        return y if self.bias is None else y + self.bias


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
