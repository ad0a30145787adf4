"""The steps of a conversation, batched over slots: prefill, think, frame, sound.

Every step works on a run of slots with a mask of who takes part; alone is a run of one. Chroma's schedule
for a reply (official code; chroma report §2): the voice's prefix, then

    h1 t1 | a1 | a2 h2 t2 | a3 | a4 h3 t3 | …

where h, t are the thinker's state and word, and a is the frame before. Text never waits for sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import torch
from torch import Tensor

from model.chroma.quirks import Quirks
from model.chroma.sampling import gumbel, pick
from model.chroma.slots import Slots
from model.chroma.weights import Chroma


class Turn(IntEnum):
    """What a slot brings to a frame's step."""

    REST = 0
    FIRST = 1
    """h and t: the reply begins"""
    SOUND = 2
    """a"""
    PAIR = 3
    """a, h and t"""


POSITIONS = {Turn.REST: 0, Turn.FIRST: 2, Turn.SOUND: 1, Turn.PAIR: 3}
"""Backbone positions that each takes."""


@dataclass(slots=True)
class Trace:
    """What `verify` compares: logits and hidden states of every step, on the host. One slot only.

    With a `script` `(steps, codebooks)` its codes are taken for the own ones, so that a coarser precision can
    be compared step by step.
    """

    script: Tensor | None = None

    thinker_logits: list[Tensor] = field(default_factory=list)
    thinker_hidden: list[Tensor] = field(default_factory=list)
    backbone_logits: list[Tensor] = field(default_factory=list)
    backbone_hidden: list[Tensor] = field(default_factory=list)
    decoder_logits: list[Tensor] = field(default_factory=list)
    step_lengths: list[int] = field(default_factory=list)


class Steps:
    """The weights at work on slots. Not for two threads at once."""

    def __init__(self, model: Chroma, slots: Slots, quirks: Quirks) -> None:
        self.model = model
        self.slots = slots
        self.quirks = quirks
        self.trace: Trace | None = None

    @torch.inference_mode()
    def prefill(self, slot: int, x: Tensor) -> None:
        """Embeddings `(n, H)` into the slot's thinker; `hidden` and `token` are what follows them."""
        cache, rows = self.slots.thinker, slice(slot, slot + 1)
        width = x.shape[0]
        out = self.model.thinker.model(x[None], cache, cache.span(rows, [width], width))
        self.slots.hidden[slot] = out[0, -1]

    @torch.inference_mode()
    def conclude(self, rows: slice, active: Sequence[bool]) -> None:
        """The word that follows the thinker's state, always the likeliest."""
        hidden = self.slots.hidden[rows]
        logits = self.model.thinker.lm_head(hidden)
        on = self._mask(active)
        token = self.slots.token[rows]
        token.copy_(torch.where(on, logits.argmax(-1), token))
        if self.trace is not None:
            self.trace.thinker_logits.append(logits[0].float().cpu())
            self.trace.thinker_hidden.append(hidden[0].float().cpu().clone())

    @torch.inference_mode()
    def think(self, rows: slice, active: Sequence[bool]) -> None:
        """One word further: feeds `token`, leaves the next `hidden`; the slot's `token` is not yet new."""
        slots, model = self.slots, self.model.thinker
        x = model.embed(slots.token[rows])[:, None]
        span = slots.thinker.span(rows, [int(on) for on in active], 1)
        out = model.model(x, slots.thinker, span)[:, 0]
        hidden = slots.hidden[rows]
        hidden.copy_(torch.where(self._mask(active)[:, None], out, hidden))

    @torch.inference_mode()
    def frame(self, rows: slice, turns: Sequence[Turn]) -> Tensor:
        """The next frame of every row whose turn is not REST: codes `(B, codebooks)`, also in the slots."""
        slots, model = self.slots, self.model
        counts = [POSITIONS[turn] for turn in turns]
        width = max(counts)
        hidden, word = slots.hidden[rows], model.thinker.embed(slots.token[rows])
        before = model.embed_frames(slots.codes[rows])
        x = torch.stack((before, hidden, word), dim=1)
        if Turn.FIRST in turns:
            first = torch.tensor([turn is Turn.FIRST for turn in turns]).to(x.device)
            x = torch.where(first[:, None, None], x.roll(-1, 1), x)
        span = slots.backbone.span(rows, counts, width)
        out = model.backbone.model(x[:, :width], slots.backbone, span)
        last = torch.tensor([max(count - 1, 0) for count in counts]).to(x.device)
        state = out.gather(1, last[:, None, None].expand(-1, 1, out.shape[2]))[:, 0]
        active = [turn is not Turn.REST for turn in turns]
        codes = self._codes(rows, state)
        on = self._mask(active)[:, None]
        slots.codes[rows] = torch.where(on, codes, slots.codes[rows])
        slots.draws[rows] += on[:, 0]
        if self.trace is not None:
            self.trace.step_lengths.append(counts[0])
            self.trace.backbone_hidden.append(state[0].float().cpu())
        return codes

    def _codes(self, rows: slice, state: Tensor) -> Tensor:
        """Backbone states `(B, H)` to a frame's codes `(B, codebooks)`."""
        model, cache = self.model, self.slots.frame
        noise = self._noise(rows)
        logits = model.backbone.codebook0_head(state)
        if self.trace is not None:
            self.trace.backbone_logits.append(logits[0].float().cpu())
        code = self._pick(rows, logits, 0, noise)
        codes = [code]
        for slot in range(*rows.indices(self.slots.count)):
            cache.cut(slot, 0)
        decoder, batch = model.decoder, state.shape[0]
        # the backbone's state and the first code are both known: they go in at once
        x = torch.stack((state, model.embed_code(0, code)), dim=1)
        decoder_logits = []
        for book in range(1, model.config.codebooks):
            width = x.shape[1]
            span = cache.span(rows, [width] * batch, width)
            positions = (span.positions - 1).clamp(min=0) if self.quirks.decoder_starts_twice else None
            out = decoder.model(decoder.projection(x), cache, span, positions)[:, -1]
            logits = decoder.codebook_head(out, book)
            decoder_logits.append(logits[0])
            code = self._pick(rows, logits, book, noise)
            codes.append(code)
            x = model.embed_code(book, code)[:, None]
        if self.trace is not None:
            self.trace.decoder_logits.append(torch.stack(decoder_logits).float().cpu())
        return torch.stack(codes, dim=1)

    def _noise(self, rows: slice) -> Tensor:
        """`(B, codebooks, V)`."""
        slots, config = self.slots, self.model.config
        books = torch.arange(config.codebooks, device=self.model.device)
        draws = slots.draws[rows][:, None] * config.codebooks + books
        seeds = slots.seed[rows][:, None].expand_as(draws)
        noise = gumbel(seeds.flatten(), draws.flatten(), config.codebook_vocab)
        return noise.view(*draws.shape, -1)

    def _pick(self, rows: slice, logits: Tensor, book: int, noise: Tensor) -> Tensor:
        slots = self.slots
        if not self.quirks.draws_any_id:
            logits = logits.clone()
            logits[:, self.model.config.codebook_size :] = -torch.inf
        if self.trace is not None and self.trace.script is not None:
            return self.trace.script[len(self.trace.step_lengths), book].expand(logits.shape[0])
        top_p = slots.top_p[rows]
        if book == 0 and self.quirks.first_codebook_ignores_top_p:
            top_p = torch.ones_like(top_p)
        return pick(logits, slots.temperature[rows], slots.top_k[rows], top_p, noise[:, book])

    @torch.inference_mode()
    def sound(self, rows: slice, active: Sequence[bool]) -> Tensor:
        """The slots' last codes as sound `(B, frame)` float32 in [-1, 1]; rows not active stand still."""
        codes = self.slots.codes[rows, :, None]
        return self.model.codec_model.decode(codes, self.slots.codec, rows, active).float()

    def _mask(self, active: Sequence[bool]) -> Tensor:
        return torch.tensor(active).to(self.model.device)
