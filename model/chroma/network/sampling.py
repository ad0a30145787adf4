"""Drawing codes: temperature, top-k, top-p, by a random number that is a function of seed, draw and id.

No generator has a state to carry: noise is a hash, so that a slot's draws do not depend on who else is in
the batch, on the device, or on how often others were asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

_M1: Final = 0xBF58476D1CE4E5B9 - (1 << 64)
_M2: Final = 0x94D049BB133111EB - (1 << 64)
_GOLDEN: Final = 0x9E3779B97F4A7C15 - (1 << 64)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one call's codes are drawn. `temperature` 0 takes the likeliest; text always does."""

    temperature: float = 0.7
    top_k: int = 50
    """0: all"""
    top_p: float = 1.0
    seed: int = 0


GREEDY: Final = Sampling(temperature=0.0)


def _shift(x: Tensor, bits: int) -> Tensor:
    """A logical shift to the right of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finisher (Steele et al. 2014): every bit of the answer depends on every bit of `x`."""
    x = (x ^ _shift(x, 30)) * _M1
    x = (x ^ _shift(x, 27)) * _M2
    return x ^ _shift(x, 31)


def gumbel(seed: Tensor, draw: Tensor, vocab: int) -> Tensor:
    """Noise `(B, vocab)` float32 for int64 `seed` and `draw` `(B,)`."""
    ids = torch.arange(1, vocab + 1, device=seed.device)
    stream = _mix(_mix(seed * _GOLDEN + 1) + draw * _GOLDEN)
    bits = _shift(_mix(stream[:, None] + ids * _GOLDEN), 41)
    uniform = (bits.float() + 0.5) / (1 << 23)  # 23 bits: a float32 holds them and the half
    return -(-uniform.log()).log()


def pick(
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    noise: Tensor,
) -> Tensor:
    """An id for each row of `logits` `(B, V)`; the settings are `(B,)`, `noise` `(B, V)`.

    The likeliest ids are kept up to `top_k` (0: all) and up to a probability of `top_p` (1: all); at least
    one is. Of two that are equally likely, the lower id goes first; of two that come out equal, the likelier.
    A GPU does the same in one kernel (`kernels.draw_kernel`).
    """
    logits = logits.float()
    cold = temperature <= 0
    scaled = logits / torch.where(cold, 1.0, temperature)[:, None]
    ordered, order = scaled.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(logits.shape[-1], device=logits.device)
    dropped = (rank >= top_k[:, None]) & (top_k[:, None] > 0)
    ordered = ordered.masked_fill(dropped, -torch.inf)
    shares = ordered.softmax(-1)
    before = shares.cumsum(-1) - shares
    dropped = (before >= top_p[:, None]) & (rank > 0) & (top_p[:, None] < 1)
    ordered = ordered.masked_fill(dropped, -torch.inf)
    drawn = order.gather(-1, (ordered + noise.gather(-1, order)).argmax(-1, keepdim=True))[:, 0]
    return torch.where(cold, logits.argmax(-1), drawn)
