"""The Llama-like stack that thinker text, backbone and decoder are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu

from model.chroma.network.attention import Angles, Attention
from model.chroma.network.cache import KVCache, Packed, Span
from model.chroma.network.config import StackConfig
from model.chroma.network.joined import JoinedLinear
from model.chroma.network.rope import Rope


class RMSNorm(nn.Module):
    """Scaled by the root mean square, which torch takes in float32 at least."""

    def __init__(self, hidden: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))
        self._eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight.shape, self.weight, self._eps)

    def after(self, x: Tensor, more: Tensor | None, kernels: bool) -> tuple[Tensor, Tensor]:
        """A residual `x` with `more` added to it, and the sum normed; one kernel on a GPU."""
        if more is None:
            return x, self(x)
        if kernels:
            from model.chroma.kernels.fused_kernel import add_norm  # triton comes with torch for a GPU only

            return add_norm(x, more, self.weight, self._eps)
        x = x + more
        return x, self(x)


class GatedMLP(nn.Module):
    def __init__(self, hidden: int, intermediate: int, bias: bool) -> None:
        super().__init__()
        pieces = {"gate_proj": intermediate, "up_proj": intermediate}
        self.gate_up_proj = JoinedLinear(hidden, pieces, bias=bias)
        self.down_proj = nn.Linear(intermediate, hidden, bias=bias)

    def forward(self, x: Tensor, kernels: bool) -> Tensor:
        return self.down_proj(_gated(self.gate_up_proj(x), kernels))  # type: ignore[no-any-return]  # nn.Module's call


def _gated(both: Tensor, kernels: bool) -> Tensor:
    """`silu(gate) * up` of the two side by side, `(…, 2 I)` to `(…, I)`."""
    if kernels:
        from model.chroma.kernels.fused_kernel import gated  # triton comes with torch for a GPU only

        return gated(both)
    gate, up = both.chunk(2, dim=-1)
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

    def forward(
        self, x: Tensor, more: Tensor | None, angles: Angles, cache: KVCache, layer: int, span: Span | Packed
    ) -> tuple[Tensor, Tensor]:
        """A residual and what is still to be added to it (None: nothing); returns the same two."""
        x, normed = self.input_layernorm.after(x, more, cache.kernels)
        attended = self.self_attn(normed, angles, cache, layer, span)
        x, normed = self.post_attention_layernorm.after(x, attended, cache.kernels)
        return x, self.mlp(normed, cache.kernels)


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
        self, x: Tensor, cache: KVCache, span: Span | Packed, positions: tuple[int, ...] | None = None
    ) -> Tensor:
        """`(B, T, H)` to `(B, T, H)` after the final norm; the cache is written and advanced.

        `positions`, `T` of them and the same for all rows, for RoPE where the host knows them; else they are
        the cache's own count.
        """
        if positions is None:
            angles = self._rope.angles(span.positions, x.dtype)
        else:
            angles = self._rope.known(positions, x.device, x.dtype)
        more = None
        for number, layer in enumerate(self.layers):
            x, more = layer(x, more, angles, cache, number, span)
        cache.advance(span)
        return self.norm.after(x, more, cache.kernels)[1]

    def cache(
        self,
        slots: int,
        capacity: int,
        page: int | None = None,
        pages: int | None = None,
        promised: int = 0,
        dtype: torch.dtype | None = None,
    ) -> KVCache:
        """An empty cache of this stack's shape and device; see `KVCache`. `dtype` None: that of the stack."""
        weight = self.norm.weight
        config = self.config
        return KVCache(
            config.layers, slots, config.kv_heads, config.head_dim, capacity,
            page=page, pages=pages, promised=promised, device=weight.device,
            dtype=dtype or weight.dtype,
        )  # fmt: skip
