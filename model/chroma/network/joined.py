"""Linear layers that read the same input, joined to one product; each keeps its own official name.

A model has one tensor for all of them, so that a step reads it in one launch. Whoever asks the module for its
state sees the pieces, as views, by the names under which a checkpoint has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Pieces(nn.Module):
    """A layer whose tensors are pieces laid one behind the other along their first axis.

    `pieces`: the outputs of each by its own name, which stands beside the layer's: a layer at
    `mlp.gate_up_proj` has its state as `mlp.gate_proj.weight` and `mlp.up_proj.weight`. None: one piece.
    """

    pieces: Mapping[str, int] | None = None

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        if self.pieces is None:
            super()._save_to_state_dict(destination, prefix, keep_vars)
            return
        above = prefix[: prefix.rstrip(".").rfind(".") + 1]
        at = 0
        for name, size in self.pieces.items():
            for attribute, whole in (*self._parameters.items(), *self._buffers.items()):
                if whole is not None and attribute not in self._non_persistent_buffers_set:
                    piece = whole[at : at + size]
                    destination[f"{above}{name}.{attribute}"] = piece if keep_vars else piece.detach()
            at += size


class JoinedLinear(Pieces, nn.Linear):
    """Linear layers as one: `weight` `(Σ outputs, inputs)`; `forward` returns their outputs side by side."""

    def __init__(self, inputs: int, pieces: Mapping[str, int], *, bias: bool) -> None:
        super().__init__(inputs, sum(pieces.values()), bias=bias)
        self.pieces = dict(pieces)

    @torch.no_grad()
    def put(self, piece: str, attribute: str, tensor: Tensor) -> None:
        """One piece's `weight` or `bias`; the first that has data decides the device and the type of all."""
        assert self.pieces is not None  # noqa: S101  # for mypy: `__init__` set them
        whole = getattr(self, attribute)
        if whole.is_meta:
            whole = nn.Parameter(tensor.new_empty(whole.shape), requires_grad=False)
            setattr(self, attribute, whole)
        names = list(self.pieces)
        at = sum(self.pieces[name] for name in names[: names.index(piece)])
        whole[at : at + self.pieces[piece]].copy_(tensor)


def joined_owner(model: nn.Module, name: str) -> tuple[JoinedLinear, str] | None:
    """The joined layer that holds the piece `name` (`…mlp.up_proj`), and the piece's own name in it."""
    above, _, piece = name.rpartition(".")
    for layer in model.get_submodule(above).children():
        if isinstance(layer, JoinedLinear) and layer.pieces is not None and piece in layer.pieces:
            return layer, piece
    return None
