"""Layers that are joined to one product: their names, their memory, their numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model.chroma.network import checkpoint, config
from model.chroma.network.joined import JoinedLinear
from model.chroma.network.precision import ByteLinear
from tests.model.chroma import toy


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = JoinedLinear(6, {"gate_proj": 4, "up_proj": 3}, bias=True)


def test_the_pieces_have_their_own_names_and_are_views_of_the_one() -> None:
    holder = Holder()
    state = holder.state_dict()
    assert list(state) == ["gate_proj.weight", "gate_proj.bias", "up_proj.weight", "up_proj.bias"]
    whole = holder.gate_up_proj.weight
    pieces = state["gate_proj.weight"], state["up_proj.weight"]
    assert torch.equal(torch.cat(pieces), whole)
    for piece in pieces:
        assert piece.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr(), "no second copy"


def test_one_product_is_what_the_layers_are_apart() -> None:
    holder, x = Holder(), torch.randn(2, 6)
    state = holder.state_dict()
    names = ("gate_proj", "up_proj")
    apart = [nn.functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"]) for name in names]
    torch.testing.assert_close(holder.gate_up_proj(x), torch.cat(apart, dim=1))


def test_pieces_are_put_one_by_one_where_a_blueprint_has_no_data() -> None:
    with torch.device("meta"):
        holder = Holder()
    pieces = {"up_proj": torch.randn(3, 6).bfloat16(), "gate_proj": torch.randn(4, 6).bfloat16()}
    for name, piece in pieces.items():
        checkpoint.place(holder, f"{name}.weight", piece)
    weight = holder.gate_up_proj.weight
    assert weight.dtype == torch.bfloat16
    assert not weight.requires_grad
    assert torch.equal(weight, torch.cat((pieces["gate_proj"], pieces["up_proj"])))


def test_a_piece_of_another_shape_is_refused() -> None:
    with pytest.raises(RuntimeError, match="size"):
        checkpoint.place(Holder(), "up_proj.weight", torch.zeros(2, 6))


def test_in_bytes_the_pieces_keep_their_names_too() -> None:
    holder = Holder()
    full = holder.state_dict()
    holder.gate_up_proj = ByteLinear.of(holder.gate_up_proj, "int8")  # type: ignore[assignment]  # as `round_weights`
    state = holder.state_dict()
    assert {name: state[name].shape for name in full} == {name: tensor.shape for name, tensor in full.items()}
    assert state["up_proj.weight"].dtype == torch.int8
    assert state["up_proj.scale"].shape == (3,)


def test_a_whole_model_names_and_holds_each_weight_once() -> None:
    model = checkpoint.blueprint(config.parse(toy.TABLE))
    held = sum(parameter.nbytes for parameter in model.parameters())
    assert sum(tensor.nbytes for tensor in model.state_dict().values()) == held
    assert not any("qkv" in name or "gate_up" in name for name in model.state_dict())
