"""The Llama-like stack and its cache: like transformers' own, in any chunks, in any company, in float64."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from model.chroma.network import config
from model.chroma.network.attention import attend
from model.chroma.network.cache import KVCache
from model.chroma.network.config import StackConfig
from model.chroma.network.rope import inverse_frequencies
from model.chroma.network.stack import Stack
from tests.model.chroma import toy

CONFIG = config.parse(toy.TABLE)
ALONE = [0]


def stack(of: StackConfig = CONFIG.thinker, seed: int = 1, dtype: torch.dtype = torch.float32) -> Stack:
    torch.manual_seed(seed)
    made = Stack(of)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.dim() == 1 else 0.0, 0.2)
    return made.to(dtype).requires_grad_(False).eval()


def sound(width: int, seed: int = 2, hidden: int = 48) -> Tensor:
    return torch.randn(width, hidden, generator=torch.Generator().manual_seed(seed))


def run(model: Stack, x: Tensor, pieces: list[int]) -> Tensor:
    """`x` `(T, H)` in pieces through one slot."""
    cache = model.cache(1, len(x))
    out = [model(part[None], cache, cache.span(ALONE, [len(part)], len(part)))[0] for part in x.split(pieces)]
    return torch.cat(out)


@pytest.mark.parametrize("pieces", [[40], [1] * 40, [7, 1, 30, 2], [39, 1]])
def test_any_chunks_give_what_the_whole_gives(pieces: list[int]) -> None:
    model, x = stack(), sound(40)
    torch.testing.assert_close(run(model, x, pieces), run(model, x, [40]), atol=2e-5, rtol=1e-4)


def test_float32_is_near_float64() -> None:
    x = sound(40)
    narrow, wide = stack(), stack(dtype=torch.float64)
    torch.testing.assert_close(
        run(narrow, x, [40]).double(), run(wide, x.double(), [40]), atol=1e-4, rtol=1e-4
    )


def llama(of: StackConfig, rope: dict[str, Any]) -> Any:
    from transformers import LlamaConfig, LlamaModel

    theirs = LlamaModel(
        LlamaConfig(
            vocab_size=8,
            hidden_size=of.hidden,
            intermediate_size=of.intermediate,
            num_hidden_layers=of.layers,
            num_attention_heads=of.heads,
            num_key_value_heads=of.kv_heads,
            head_dim=of.head_dim,
            rms_norm_eps=of.eps,
            max_position_embeddings=of.positions,
            rope_parameters=rope,
        )
    )
    return theirs.eval()


@pytest.mark.parametrize("rope", [toy.ROPE, toy.LLAMA3], ids=["default", "llama3"])
@torch.inference_mode()
def test_it_computes_what_transformers_llama_computes(rope: dict[str, Any]) -> None:
    table = {**toy.TABLE, "backbone_config": {**toy.TABLE["backbone_config"], "rope_parameters": rope}}
    of = config.parse(table).backbone
    ours, theirs, x = stack(of), llama(of, rope), sound(50)
    missing = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert missing.missing_keys == ["embed_tokens.weight"]
    expected = theirs(inputs_embeds=x[None]).last_hidden_state[0]
    torch.testing.assert_close(run(ours, x, [20, 1, 29]), expected, atol=2e-5, rtol=1e-4)


@torch.inference_mode()
def test_it_computes_what_transformers_qwen_thinker_computes() -> None:
    from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniTextConfig
    from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniThinkerTextModel

    theirs = Qwen2_5OmniThinkerTextModel(Qwen2_5OmniTextConfig(**toy.TABLE["thinker_config"]["text_config"]))
    ours, x = stack(), sound(50)
    missing = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert missing.missing_keys == ["embed_tokens.weight"]
    expected = theirs.eval()(inputs_embeds=x[None]).last_hidden_state[0]
    torch.testing.assert_close(run(ours, x, [50]), expected, atol=2e-5, rtol=1e-4)


def test_llama3_leaves_short_waves_and_stretches_long_ones() -> None:
    table = {**toy.TABLE, "backbone_config": {**toy.TABLE["backbone_config"], "rope_parameters": toy.LLAMA3}}
    rope = config.parse(table).backbone.rope
    plain = inverse_frequencies(config.RopeConfig(rope.theta), 64)
    stretched = inverse_frequencies(rope, 64)
    assert stretched[0] == plain[0]
    assert stretched[-1] == plain[-1] / 8
    assert torch.all((stretched <= plain) & (stretched >= plain / 8))


def test_neighbours_of_any_length_do_not_change_a_row() -> None:
    """Rows that rest, prefill and step in one batch, at positions of their own."""
    model, draw = stack(), random.Random(3)
    inputs = [sound(60, seed) for seed in range(4)]
    cache, done, out = model.cache(4, 60), [0] * 4, [[] for _ in range(4)]  # type: ignore[var-annotated]
    while min(done) < 60:
        counts = [min(draw.choice([0, 0, 1, 1, 3, 5]), 60 - at) for at in done]
        width = max(1, *counts)
        x = torch.zeros(4, width, 48)
        for row, count in enumerate(counts):
            x[row, :count] = inputs[row][done[row] : done[row] + count]
            x[row, count:] = draw.random() * 100  # padding that must not be seen
        y = model(x, cache, cache.span(range(4), counts, width))
        for row, count in enumerate(counts):
            out[row].append(y[row, :count])
            done[row] += count
    for row in range(4):
        torch.testing.assert_close(torch.cat(out[row]), run(model, inputs[row], [60]), atol=3e-5, rtol=1e-4)


def test_a_cut_cache_goes_on_as_if_the_rest_had_never_been() -> None:
    model, x = stack(), sound(30)
    cache = model.cache(2, 40)
    second = [1]
    model(x[None, :20], cache, cache.span(second, [20], 20))
    model(sound(9, 8)[None], cache, cache.span(second, [9], 9))
    cache.cut(1, 20)
    tail = model(x[None, 20:], cache, cache.span(second, [10], 10))[0]
    torch.testing.assert_close(tail, run(model, x, [30])[20:], atol=2e-5, rtol=1e-4)
    assert cache.lengths == [0, 30]


def test_what_a_slot_gave_starts_another() -> None:
    model, x = stack(), sound(30)
    cache = model.cache(3, 40)
    model(x[None, :12], cache, cache.span(ALONE, [12], 12))
    cache.give(2, *cache.take(0, 12))
    tail = model(x[None, 12:], cache, cache.span([2], [18], 18))[0]
    torch.testing.assert_close(tail, run(model, x, [30])[12:], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("pieces", [[64], [1] * 64, [5, 3, 1, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5]])
def test_a_ring_sees_its_window_and_nothing_older(pieces: list[int]) -> None:
    """Against plain masked attention over everything, across many turns of the ring."""
    window, total = 10, 64
    draw = torch.Generator().manual_seed(4)
    q, k, v = (torch.randn(1, 2, total, 8, generator=draw) for _ in range(3))
    at = torch.arange(total)
    seen = (at <= at[:, None]) & (at > at[:, None] - window)
    expected = attend(q, k, v, seen[None, None])
    ring = KVCache(
        1, 2, 2, 8, window + max(pieces) - 1, window=window, device=torch.device("cpu"), dtype=torch.float32
    )
    start, out = 0, []
    for piece in pieces:
        span = ring.span([1], [piece], piece)
        keys, values = ring.put(0, span, k[:, :, start : start + piece], v[:, :, start : start + piece])
        out.append(attend(q[:, :, start : start + piece], keys, values, span.mask))
        ring.advance(span)
        start += piece
    torch.testing.assert_close(torch.cat(out, dim=2), expected, atol=1e-5, rtol=1e-4)
    assert ring.lengths == [0, total]


def test_grouped_heads_attend_as_if_each_had_its_own_keys() -> None:
    draw = torch.Generator().manual_seed(5)
    q = torch.randn(2, 6, 4, 8, generator=draw)
    k, v = (torch.randn(2, 3, 9, 8, generator=draw) for _ in range(2))
    mask = torch.rand(2, 1, 4, 9, generator=draw) > 0.3
    mask[..., 0] = True
    repeated = attend(q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1), mask)
    torch.testing.assert_close(attend(q, k, v, mask), repeated)
