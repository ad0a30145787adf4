"""The state of all conversations: tensors of shape (slots, …), made once. A conversation holds one number.

Nothing here is weights, and weights hold nothing of this: any number of `Slots` may use one `Chroma`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Final, Self

import torch
from torch import Tensor

from model.chroma.network.cache import PAGE, KVCache
from model.chroma.network.mimi import MimiStream
from model.chroma.network.quirks import Quirks
from model.chroma.network.sampling import Sampling
from model.chroma.network.stack import Stack
from model.chroma.network.upload import uploaded
from model.chroma.network.weights import Chroma
from model.chroma.serving.plan import Ending, Told


@dataclass(slots=True)
class Progress:
    """How far each row's reply is: whole numbers `(rows,)`, all columns of one tensor, so that one gather
    takes a step's rows and one write brings them back.

    `token` is the thinker's last word; `pending` (0 or 1): it waits, with the hidden state, for its frame.
    `said` counts the words made, the pending one too; the first `scripted` are said from a script. `draws`
    counts the sampler's, `seed` and `top_k` are its settings; `codes` `(rows, codebooks)` the last frame.
    """

    table: Tensor
    """`(rows, n)` int64"""
    token: Tensor = field(init=False)
    frames: Tensor = field(init=False)
    most: Tensor = field(init=False)
    said: Tensor = field(init=False)
    scripted: Tensor = field(init=False)
    pending: Tensor = field(init=False)
    text_over: Tensor = field(init=False)
    end: Tensor = field(init=False)
    draws: Tensor = field(init=False)
    seed: Tensor = field(init=False)
    top_k: Tensor = field(init=False)
    codes: Tensor = field(init=False)

    def __post_init__(self) -> None:
        (
            self.token, self.frames, self.most, self.said, self.scripted, self.pending, self.text_over,
            self.end, self.draws, self.seed, self.top_k,
        ) = self.table[:, :_NUMBERS].unbind(1)  # fmt: skip
        self.codes = self.table[:, _NUMBERS:]

    @classmethod
    def make(cls, rows: int, codebooks: int, device: torch.device) -> Self:
        return cls(torch.zeros(rows, _NUMBERS + codebooks, device=device, dtype=torch.long))

    def begin(self, slot: int, most: int, scripted: int) -> None:
        """A reply of at most so many frames; the thinker stands before its first word."""
        for column in (self.frames, self.text_over, self.end):
            column[slot] = 0
        self.most[slot] = most
        self.said[slot] = 1
        self.pending[slot] = 1
        self.scripted[slot] = scripted

    def clear(self, slot: int) -> None:
        self.table[slot] = 0
        self.end[slot] = Ending.LENGTH  # nothing is under way


_NUMBERS: Final = len(fields(Progress)) - 2
"""Columns of `Progress` before the codes."""


@dataclass(slots=True)
class Seats:
    """What a step has of its rows' small state: gathered at its beginning, put back at its end.

    `rows` `(B,)` are slots; `temperature` and `top_p` `(B,)`, `hidden` `(B, H)` the thinker's last state.
    """

    rows: Tensor
    progress: Progress
    temperature: Tensor
    top_p: Tensor
    hidden: Tensor


@dataclass(frozen=True, slots=True)
class Positions:
    """Of the thinker's context, and of the backbone's voice and reply."""

    context: int
    reply: int


def _paged(stack: Stack, slots: int, capacity: int, promised: int | None, dtype: torch.dtype) -> KVCache:
    """A cache that has what is promised to each slot, and what one of them can use besides."""
    if promised is None or promised >= capacity:
        return stack.cache(slots, capacity, PAGE, dtype=dtype)
    each, sure = -(-capacity // PAGE), -(-promised // PAGE)
    return stack.cache(slots, capacity, PAGE, slots * sure + each - sure, promised, dtype)


@dataclass(slots=True)
class Slots:
    """The state of `count` conversations, and of the scratch slot behind them, which padding rows name.

    Every tensor has `count + 1` rows. `hidden` `(…, H)` is the thinker's last state, `settings` `(…, 2)` the
    sampler's temperature and top-p; a reply whose progress has words to say takes them from `script`. `frame`
    is a frame's own cache, which begins anew with each: it belongs to a step's row numbers, not to slots.
    """

    count: int
    thinker: KVCache
    backbone: KVCache
    frame: KVCache
    codec: MimiStream
    hidden: Tensor
    settings: Tensor
    script: Tensor
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
        promised: Positions | None = None,
        unwindowed_frames: int = 0,
    ) -> Self:
        """`context` and `reply`: positions of thinker and backbone (None: all that the model knows).
        `promised`: for how many of them there is memory for each slot; more is shared (None: for all).
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

        def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(count + 1, *shape, device=device, dtype=dtype)

        return cls(
            count=count,
            thinker=_paged(
                model.thinker.model, count, context, promised.context if promised else None, model.kv_dtype
            ),
            backbone=_paged(
                model.backbone.model, count, reply, promised.reply if promised else None, model.kv_dtype
            ),
            frame=model.decoder.model.cache(count, config.codebooks),
            codec=codec,
            hidden=zeros(config.thinker.hidden, dtype=dtype),
            settings=zeros(2, dtype=torch.float),
            # a word takes two frames, and these four positions
            script=zeros(reply // 4 + 2, dtype=torch.long),
            progress=Progress.make(count + 1, config.codebooks, device),
        )

    @property
    def token(self) -> Tensor:
        """The thinker's last word in each slot."""
        return self.progress.token

    @property
    def codes(self) -> Tensor:
        """The last frame of each slot, `(…, codebooks)`."""
        return self.progress.codes

    @property
    def nbytes(self) -> int:
        """Memory of all slots."""
        caches = self.thinker.nbytes + self.backbone.nbytes + self.frame.nbytes + self.codec.nbytes
        small = (self.hidden, self.settings, self.script, self.progress.table)
        return caches + sum(tensor.nbytes for tensor in small)

    def gather(self, rows: Tensor) -> Seats:
        """The small state of these slots."""
        progress = Progress(self.progress.table.index_select(0, rows))
        temperature, top_p = self.settings.index_select(0, rows).unbind(1)
        return Seats(rows, progress, temperature, top_p, self.hidden.index_select(0, rows))

    def put(self, seats: Seats, *, hidden: bool) -> None:
        """What a step made of it; `hidden`: that too."""
        self.progress.table.index_copy_(0, seats.rows, seats.progress.table)
        if hidden:
            self.hidden.index_copy_(0, seats.rows, seats.hidden)

    def sample(self, slot: int, sampling: Sampling) -> None:
        """How the slot draws from now on, from its first draw."""
        self.settings[slot, 0] = sampling.temperature
        self.settings[slot, 1] = sampling.top_p
        self.progress.top_k[slot] = sampling.top_k
        self.progress.seed[slot] = sampling.seed
        self.progress.draws[slot] = 0

    def begin(self, slot: int, most: int, say: Sequence[int] | None) -> None:
        """A reply begins: at most `most` frames; `say` are its words in place of the thinker's own.

        The thinker was prefilled, the backbone stands after its voice.
        """
        words = list(say or ())[: self.script.shape[1]]
        if words:
            self.script[slot, : len(words)] = uploaded(words, self.script.device)
            self.progress.token[slot] = words[0]
        self.progress.begin(slot, most, len(words))

    def learn(self, slot: int, told: Told) -> None:
        """The host's count of a slot's positions after a step."""
        self.thinker.learn(slot, told.thinker)
        self.backbone.learn(slot, told.backbone)
        self.codec.cache.learn(slot, told.codec)

    def clear(self, slot: int) -> None:
        """The slot as if nobody had ever used it."""
        for cache in (self.thinker, self.backbone):
            cache.leave(slot)
        self.codec.reset(slot)
        self.hidden[slot].zero_()
        self.progress.clear(slot)
        self.sample(slot, Sampling(temperature=0.0, top_k=0, top_p=1.0))
