"""The Llama-like stack that thinker text, backbone and decoder are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu

from model.chroma.network.attention import Angles, Attention
from model.chroma.network.cache import KVCache, Packed, Span
from model.chroma.network.config import StackConfig
from model.chroma.network.rope import Rope


class RMSNorm(nn.Module):
    """Scaled by the root mean square, which torch takes in float32 at least."""

    def __init__(self, hidden: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))
        self._eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight.shape, self.weight, self._eps)


class GatedMLP(nn.Module):
    def __init__(self, hidden: int, intermediate: int, bias: bool) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, intermediate, bias=bias)
        self.up_proj = nn.Linear(hidden, intermediate, bias=bias)
        self.down_proj = nn.Linear(intermediate, hidden, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_proj(x), self.up_proj(x)
        return self.down_proj(_gated(gate, up))  # type: ignore[no-any-return]  # nn.Module's call


def _gated(gate: Tensor, up: Tensor) -> Tensor:
    if gate.is_cuda:
        from model.chroma.kernels.fused_kernel import gated  # triton comes with torch for a GPU only

        return gated(gate, up)
    return silu(gate) * up


class Block(nn.Module):
    """Attention and MLP, each behind a norm and beside a residual."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.self_attn = Attention(
            config.hidden,
            config.heads,
            config.kv_heads,
            config.head_dim,
            qkv_bias=config.qkv_bias,
            out_bias=config.out_bias,
        )
        self.mlp = GatedMLP(config.hidden, config.intermediate, config.mlp_bias)
        self.input_layernorm = RMSNorm(config.hidden, config.eps)
        self.post_attention_layernorm = RMSNorm(config.hidden, config.eps)

    def forward(self, x: Tensor, angles: Angles, cache: KVCache, layer: int, span: Span | Packed) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), angles, cache, layer, span)
        return x + self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]  # nn.Module's call


class Stack(nn.Module):
    """Blocks and a final norm. `embed_tokens` only where the part has text."""

    def __init__(self, config: StackConfig, *, embed: bool = False) -> None:
        super().__init__()
        if embed:
            self.embed_tokens = nn.Embedding(config.vocab, config.hidden)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.hidden, config.eps)
        self.config = config
        self._rope = Rope(config.rope, config.head_dim)

    def forward(
        self, x: Tensor, cache: KVCache, span: Span | Packed, positions: Tensor | None = None
    ) -> Tensor:
        """`(B, T, H)` to `(B, T, H)` after the final norm; the cache is written and advanced.

        `positions` `(B, T)` for RoPE where they differ from the cache's own count.
        """
        angles = self._rope.angles(span.positions if positions is None else positions, x.dtype)
        for number, layer in enumerate(self.layers):
            x = layer(x, angles, cache, number, span)
        cache.advance(span)
        return self.norm(x)  # type: ignore[no-any-return]  # nn.Module's call

    def cache(self, slots: int, capacity: int, page: int | None = None) -> KVCache:
        """An empty cache of this stack's shape, device and dtype."""
        weight = self.norm.weight
        config = self.config
        return KVCache(
            config.layers, slots, config.kv_heads, config.head_dim, capacity,
            page=page, device=weight.device, dtype=weight.dtype,
        )  # fmt: skip
