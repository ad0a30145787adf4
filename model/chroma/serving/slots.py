"""The state of all conversations: tensors of shape (slots, …), made once. A conversation holds one number.

Nothing here is weights, and weights hold nothing of this: any number of `Slots` may use one `Chroma`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from model.chroma.network.cache import KVCache
from model.chroma.network.mimi import MimiStream
from model.chroma.network.quirks import Quirks
from model.chroma.network.sampling import Sampling
from model.chroma.network.weights import Chroma
from model.chroma.serving.plan import Ending, Told


@dataclass(slots=True)
class Progress:
    """How far each slot's reply is; `(slots,)`. `pending`: `hidden` and `token` wait for their frame.

    `said` counts the words made, the pending one too; where a `script` `(slots, n)` has that many, its words
    are said for the thinker's own.
    """

    frames: Tensor
    most: Tensor
    said: Tensor
    script: Tensor
    scripted: Tensor
    pending: Tensor
    text_over: Tensor
    end: Tensor

    @classmethod
    def make(cls, slots: int, words: int, device: torch.device) -> Self:
        """`words`: the longest script."""

        def zeros(dtype: torch.dtype, *shape: int) -> Tensor:
            return torch.zeros(slots, *shape, device=device, dtype=dtype)

        return cls(
            frames=zeros(torch.long), most=zeros(torch.long), said=zeros(torch.long),
            script=zeros(torch.long, words), scripted=zeros(torch.long),
            pending=zeros(torch.bool), text_over=zeros(torch.bool), end=zeros(torch.long),
        )  # fmt: skip

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.frames, self.most, self.said, self.script, self.scripted, self.pending, self.text_over,
                self.end)  # fmt: skip

    def begin(self, slot: int, most: int, script: Tensor) -> None:
        """A reply of at most so many frames; the thinker stands before its first word."""
        for tensor in (self.frames, self.text_over, self.end):
            tensor[slot] = 0
        self.most[slot] = most
        self.said[slot] = 1
        self.pending[slot] = True
        self.scripted[slot] = len(script)
        self.script[slot, : len(script)] = script

    def clear(self, slot: int) -> None:
        for tensor in self.tensors:
            tensor[slot] = 0
        self.end[slot] = Ending.LENGTH  # nothing is under way


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
    progress: Progress

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
            # a word takes two frames, and these four positions
            progress=Progress.make(count, reply // 4 + 2, device),
        )

    @property
    def nbytes(self) -> int:
        """Memory of all slots."""
        caches = self.thinker.nbytes + self.backbone.nbytes + self.frame.nbytes + self.codec.nbytes
        settings = (self.token, self.temperature, self.top_k, self.top_p, self.seed, self.draws)
        small = (self.hidden, self.codes, *settings, *self.progress.tensors)
        return caches + sum(tensor.nbytes for tensor in small)

    def sample(self, slot: int, sampling: Sampling) -> None:
        """How the slot draws from now on, from its first draw."""
        self.temperature[slot] = sampling.temperature
        self.top_k[slot] = sampling.top_k
        self.top_p[slot] = sampling.top_p
        self.seed[slot] = sampling.seed
        self.draws[slot] = 0

    def begin(self, slot: int, most: int, say: Sequence[int] | None) -> None:
        """A reply begins: at most `most` frames; `say` are its words in place of the thinker's own.

        The thinker was prefilled, the backbone stands after its voice.
        """
        words = list(say or ())[: self.progress.script.shape[1]]
        script = torch.tensor(words, dtype=torch.long).to(self.token.device)
        if words:
            self.token[slot] = words[0]
        self.progress.begin(slot, most, script)

    def learn(self, slot: int, told: Told) -> None:
        """The host's count of a slot's positions after a step."""
        self.thinker.learn(slot, told.thinker)
        self.backbone.learn(slot, told.backbone)
        self.codec.cache.learn(slot, told.codec)

    def clear(self, slot: int) -> None:
        """The slot as if nobody had ever used it."""
        for cache in (self.thinker, self.backbone, self.frame):
            cache.cut(slot, 0)
        self.codec.reset(slot)
        for tensor in (self.hidden, self.token, self.codes):
            tensor[slot].zero_()
        self.progress.clear(slot)
        self.sample(slot, Sampling(temperature=0.0, top_k=0, top_p=1.0))
