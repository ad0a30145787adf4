"""Attention over grouped heads; every part of the model attends with these lines."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from model.chroma.network.cache import KVCache, Packed, Span
from model.chroma.network.joined import JoinedLinear
from model.chroma.network.rope import rotate

Angles = tuple[Tensor, Tensor]


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """`q` `(B, heads, T, D)` over `k`, `v` `(B, kv_heads, S, D)`; `mask` `(B, 1, T, S)` bool, True is seen.

    The heads of a group are laid side by side as more queries, so that keys and values are read once.
    """
    batch, heads, width, dim = q.shape
    group = heads // k.shape[1]
    if group == 1:
        return scaled_dot_product_attention(q, k, v, attn_mask=mask)
    folded = q.reshape(batch, k.shape[1], group * width, dim)
    if mask is not None:
        mask = mask.repeat(1, 1, group, 1)
    return scaled_dot_product_attention(folded, k, v, attn_mask=mask).reshape(q.shape)


class Attention(nn.Module):
    """Projections, rotary positions, a cache's layer."""

    def __init__(
        self, hidden: int, heads: int, kv_heads: int, head_dim: int, *, qkv_bias: bool, out_bias: bool
    ) -> None:
        super().__init__()
        self.head_dim = head_dim
        pieces = {"q_proj": heads * head_dim, "k_proj": kv_heads * head_dim, "v_proj": kv_heads * head_dim}
        self._widths = list(pieces.values())
        self.qkv_proj = JoinedLinear(hidden, pieces, bias=qkv_bias)
        self.o_proj = nn.Linear(heads * head_dim, hidden, bias=out_bias)

    def forward(self, x: Tensor, angles: Angles, cache: KVCache, layer: int, span: Span | Packed) -> Tensor:
        """`(B, T, H)` to `(B, T, H)`; of packed positions each slot's see their own."""
        q, k, v = self.qkv_proj(x).split(self._widths, dim=-1)
        if cache.kernels and isinstance(span, Span) and span.depth is not None:
            from model.chroma.kernels.depth_kernel import (
                depth_attend,
            )  # triton comes with torch for a GPU only

            keys, values = cache.keys[layer], cache.values[layer]
            return self.o_proj(depth_attend(q, k, v, angles, keys, values, span.depth))  # type: ignore[no-any-return]  # nn.Module's call
        if isinstance(span, Packed):
            widths = span.widths
            qs, ks, vs = (torch.split(one, widths, dim=1) for one in (q, k, v))
            cos, sin = (torch.split(one, widths, dim=2) for one in angles)
            each = zip(qs, ks, vs, zip(cos, sin, strict=True), span.pieces, strict=True)
            out = torch.cat([self._attend(*one, cache, layer) for one in each], dim=2)
        else:
            out = self._attend(q, k, v, angles, span, cache, layer)
        return self.o_proj(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]  # nn.Module's call

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, angles: Angles, span: Span, cache: KVCache, layer: int
    ) -> Tensor:
        """Projections to what was attended to, `(B, heads, T, D)`; keys and values go into the cache."""
        if cache.kernels:
            return self._by_kernels(q, k, v, angles, span, cache, layer)
        q, k = rotate(self._heads(q), angles), rotate(self._heads(k), angles)
        return attend(q, *cache.put(layer, span, k, self._heads(v)), span.mask)

    @staticmethod
    def _by_kernels(
        q: Tensor, k: Tensor, v: Tensor, angles: Angles, span: Span, cache: KVCache, layer: int
    ) -> Tensor:
        """The same on a GPU."""
        from model.chroma.kernels.decode_kernel import split_attend  # triton comes with torch for a GPU only
        from model.chroma.kernels.fused_kernel import rotate_put

        keys, values = cache.keys[layer], cache.values[layer]
        q = rotate_put(q, k, v, angles, span.rows, span.places, cache.table, keys, values)
        if span.run is not None:
            from model.chroma.kernels.prefill_kernel import tile_attend

            run = span.run
            return tile_attend(q, keys, values, cache.table, run.rows, run.positions, run.tiles, run.tile)
        if span.starts is None:
            return attend(q, *cache.read(layer, span, q.dtype), span.mask)
        assert span.counts is not None  # noqa: S101  # for mypy: a span has both or neither
        return split_attend(
            q, keys, values, cache.table, span.rows, span.starts, span.counts, window=cache.window
        )

    def _heads(self, x: Tensor) -> Tensor:
        """`(B, T, heads * D)` as `(B, heads, T, D)`."""
        return x.view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)
