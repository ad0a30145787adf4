"""Linear layers in bytes: how far off, and which."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn

from model.chroma.network import precision
from model.chroma.network.cache import KVCache
from model.chroma.network.precision import ByteLinear, keep_kv, round_weights
from model.chroma.network.quirks import SERVING
from model.chroma.serving.slots import Slots
from tests.model.chroma import toy


def test_an_int8_weight_is_off_by_half_a_step_at_most() -> None:
    layer = nn.Linear(50, 20)
    ours = ByteLinear.of(layer, "int8")
    off = (ours.weight.float() * ours.scale[:, None] - layer.weight).abs()
    assert (off <= ours.scale[:, None] * 0.5001).all()
    assert (ours.weight.abs().amax(1) == 127).all(), "each output uses the whole byte"


def test_an_fp8_weight_is_off_by_a_sixteenth_at_most() -> None:
    layer = nn.Linear(50, 20)
    ours = ByteLinear.of(layer, "fp8")
    off = (ours.weight.float() * ours.scale[:, None] - layer.weight).abs()
    least = ours.scale[:, None] * 2**-9  # below it numbers have no exponent left
    assert (off <= layer.weight.abs() / 16 + least).all()


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_a_layer_is_its_rounded_weights(kind: Literal["int8", "fp8"]) -> None:
    layer, x = nn.Linear(50, 20), torch.randn(2, 3, 50)
    ours = ByteLinear.of(layer, kind)
    expected = nn.functional.linear(x, ours.weight.float() * ours.scale[:, None], layer.bias)
    torch.testing.assert_close(ours(x), expected)


def test_states_in_fp8_too_are_off_by_a_sixteenth_of_their_largest_at_most() -> None:
    layer, x = nn.Linear(64, 32), torch.randn(3, 64)
    ours = ByteLinear.of(layer, "fp8")
    off = (ours.by_narrow(x) - ours(x)).abs()
    reach = x.abs() @ (ours.weight.float() * ours.scale[:, None]).abs().t()
    assert (off <= reach / 16).all()
    assert (ours.by_narrow(torch.zeros(1, 64)) == layer.bias).all()


def test_nothing_is_multiplied_so_unless_a_device_was_named() -> None:
    assert not precision.NARROW_ON


def test_an_output_without_weights_stays_nothing() -> None:
    layer = nn.Linear(5, 2, bias=False)
    nn.init.zeros_(layer.weight)
    assert (ByteLinear.of(layer, "int8")(torch.ones(1, 5)) == 0).all()


def test_big_layers_are_bytes_and_all_else_is_as_it_was() -> None:
    model = toy.model()
    before = model.state_dict()
    rounded = round_weights(toy.model(), "int8").state_dict()
    bytes_ = {name for name, tensor in rounded.items() if tensor.dtype == torch.int8}
    for name, tensor in before.items():
        if name not in bytes_:
            assert torch.equal(rounded[name], tensor), name
    parts = {name.split(".")[0] for name in bytes_}
    assert parts == {"thinker", "backbone", "decoder"}
    assert {"thinker.lm_head.weight", "backbone.codebook0_head.weight", "decoder.projection.weight"} < bytes_
    assert not any("audio_tower" in name or "embed" in name for name in bytes_)
    stacks = ("thinker.model.layers.", "backbone.model.layers.", "decoder.model.layers.")
    assert len(bytes_) == 3 + sum(name.startswith(stacks) and "proj.weight" in name for name in before)


def off_by_a_step_at_most(found: torch.Tensor, given: torch.Tensor) -> bool:
    """Rounded to e4m3: three bits behind the first, a least step of 2**-9, at most 448."""
    most = given.clamp(-448.0, 448.0)
    return bool(((found.float() - most).abs() <= (most.abs() / 16).clamp(min=2**-10)).all())


def test_a_cache_in_fp8_gives_back_what_was_put_within_half_a_step() -> None:
    """By a step, in pages, and by a prefix that was kept in another type; also beyond the largest number."""
    cpu = torch.device("cpu")
    kv = KVCache(2, 3, 2, 4, 40, page=8, device=cpu, dtype=torch.float8_e4m3fn)
    k, v = (torch.randn(1, 2, 11, 4) * 10.0 ** torch.randint(-3, 4, (1, 2, 11, 4)) for _ in range(2))
    span = kv.span([1], [11], 11)
    keys, values = kv.put(1, span, k, v)
    assert keys.dtype == values.dtype == torch.float32
    assert off_by_a_step_at_most(keys, k)
    assert off_by_a_step_at_most(values, v)
    assert keys.abs().max() == 448
    prefix = torch.randn(2, 2, 17, 4), torch.randn(2, 2, 17, 4) * 300
    kv.give(2, *prefix)
    for taken, given in zip(kv.take(2, 17), prefix, strict=True):
        assert taken.dtype == torch.float8_e4m3fn
        assert off_by_a_step_at_most(taken, given)
    kv.give(0, *kv.take(2, 17))
    for one, other in zip(kv.take(0, 17), kv.take(2, 17), strict=True):
        assert torch.equal(one.float(), other.float()), "what is in bytes already is not rounded again"


def test_only_what_conversations_keep_of_thinker_and_backbone_is_in_bytes() -> None:
    slots = Slots.make(keep_kv(toy.model(), "fp8"), 2, SERVING, context=60, reply=60)
    full = Slots.make(keep_kv(toy.model(), "full"), 2, SERVING, context=60, reply=60)
    assert slots.thinker.keys.dtype == slots.backbone.values.dtype == torch.float8_e4m3fn
    assert slots.frame.keys.dtype == slots.codec.cache.keys.dtype == slots.hidden.dtype == torch.float32
    for name in ("thinker", "backbone"):
        assert 4 * getattr(slots, name).position_bytes == getattr(full, name).position_bytes


def test_the_audio_table_is_held_once() -> None:
    model = toy.model()
    alike = [name for name, p in model.named_parameters() if p.shape == model.audio_table.shape]
    assert alike == ["audio_table"]
