"""Attention over grouped heads; every part of the model attends with these lines."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from model.chroma.cache import KVCache, Span
from model.chroma.rope import rotate

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
        self.q_proj = nn.Linear(hidden, heads * head_dim, bias=qkv_bias)
        self.k_proj = nn.Linear(hidden, kv_heads * head_dim, bias=qkv_bias)
        self.v_proj = nn.Linear(hidden, kv_heads * head_dim, bias=qkv_bias)
        self.o_proj = nn.Linear(heads * head_dim, hidden, bias=out_bias)

    def forward(self, x: Tensor, angles: Angles, cache: KVCache, layer: int, span: Span) -> Tensor:
        """`(B, T, H)` to `(B, T, H)`."""
        q = rotate(self._heads(self.q_proj(x)), angles)
        k = rotate(self._heads(self.k_proj(x)), angles)
        keys, values = cache.put(layer, span, k, self._heads(self.v_proj(x)))
        if span.starts is not None:
            from model.chroma.decode_kernel import split_attend  # triton comes with torch for a GPU only

            assert span.counts is not None
            out = split_attend(q, keys, values, span.starts, span.counts)
        else:
            out = attend(q, keys, values, span.mask)
        return self.o_proj(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]  # nn.Module's call

    def _heads(self, x: Tensor) -> Tensor:
        """`(B, T, heads * D)` as `(B, heads, T, D)`."""
        return x.view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)
