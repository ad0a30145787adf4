"""The state of all conversations: tensors of shape (slots, …), made once. A conversation holds one number.

Nothing here is weights, and weights hold nothing of this: any number of `Slots` may use one `Chroma`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from model.chroma.cache import KVCache
from model.chroma.mimi import MimiStream
from model.chroma.quirks import Quirks
from model.chroma.sampling import Sampling
from model.chroma.weights import Chroma


@dataclass(slots=True)
class Slots:
    """`hidden` `(slots, H)` and `token` `(slots,)` are the thinker's last state and word; `codes`
    `(slots, codebooks)` the last frame; the sampler's settings and its count of draws `(slots,)`."""

    count: int
    thinker: KVCache
    backbone: KVCache
    frame: KVCache
    codec: MimiStream
    hidden: Tensor
    token: Tensor
    codes: Tensor
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    seed: Tensor
    draws: Tensor

    @classmethod
    def make(
        cls,
        model: Chroma,
        count: int,
        quirks: Quirks,
        *,
        context: int | None = None,
        reply: int | None = None,
        unwindowed_frames: int = 0,
    ) -> Self:
        """`context` and `reply`: positions of thinker and backbone (None: all that the model knows).
        `unwindowed_frames`: how many Mimi must remember where it does not forget."""
        config = model.config
        device, dtype = model.device, model.dtype
        context = min(context or config.thinker.positions, config.thinker.positions)
        reply = min(reply or config.backbone.positions, config.backbone.positions)
        codec = (
            model.codec_model.decoding(count, 1, config.codec.window)
            if quirks.codec_forgets
            else model.codec_model.decoding(count, max(1, unwindowed_frames), None)
        )

        def numbers(dtype: torch.dtype) -> Tensor:
            return torch.zeros(count, device=device, dtype=dtype)

        return cls(
            count=count,
            thinker=model.thinker.model.cache(count, context),
            backbone=model.backbone.model.cache(count, reply),
            frame=model.decoder.model.cache(count, config.codebooks),
            codec=codec,
            hidden=torch.zeros(count, config.thinker.hidden, device=device, dtype=dtype),
            token=numbers(torch.long),
            codes=torch.zeros(count, config.codebooks, device=device, dtype=torch.long),
            temperature=numbers(torch.float),
            top_k=numbers(torch.long),
            top_p=numbers(torch.float),
            seed=numbers(torch.long),
            draws=numbers(torch.long),
        )

    @property
    def nbytes(self) -> int:
        """Memory of all slots."""
        caches = self.thinker.nbytes + self.backbone.nbytes + self.frame.nbytes + self.codec.nbytes
        return caches + self.hidden.nbytes + self.codes.nbytes + 6 * self.token.nbytes

    def sample(self, slot: int, sampling: Sampling) -> None:
        """How the slot draws from now on, from its first draw."""
        self.temperature[slot] = sampling.temperature
        self.top_k[slot] = sampling.top_k
        self.top_p[slot] = sampling.top_p
        self.seed[slot] = sampling.seed
        self.draws[slot] = 0

    def clear(self, slot: int) -> None:
        """The slot as if nobody had ever used it."""
        for cache in (self.thinker, self.backbone, self.frame):
            cache.cut(slot, 0)
        self.codec.reset(slot)
        for tensor in (self.hidden, self.token, self.codes):
            tensor[slot].zero_()
        self.sample(slot, Sampling(temperature=0.0, top_k=0, top_p=1.0))
