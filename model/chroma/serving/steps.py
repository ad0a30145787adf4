"""What the weights do to slots: prefill, and a reply's next frame, batched.

A frame's step works on whatever slots it is told and is made of tensors on the device alone: what a slot's
turn is, whether its text or its sound is over, how far its caches are. The host says who takes part and is
told the outcome in one tensor; nothing in between waits for it, so that a CUDA graph can hold the whole.
Small state is gathered at the step's beginning and put back at its end; caches are read where they lie.
Chroma's schedule for a reply (official code; chroma report §2): the voice's prefix, then

    h1 t1 | a1 | a2 h2 t2 | a3 | a4 h3 t3 | …

where h, t are the thinker's state and word, and a is the frame before. Text never waits for sound: the
thinker runs a word ahead, beside the frame before the one that needs it. Since that word waits as long as it
must, replies in any phase share the thinker's every second step.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import product
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from model import own_process
from model.chroma.network.cache import KVCache
from model.chroma.network.hearing import Ear
from model.chroma.network.quirks import Quirks
from model.chroma.network.sampling import gumbel, pick
from model.chroma.network.trace import Trace
from model.chroma.network.weights import Chroma
from model.chroma.serving.chunk_encoder import ChunkEncoder
from model.chroma.serving.graph import Runner
from model.chroma.serving.graph_capture import GraphRecorder, stream
from model.chroma.serving.plan import NO_WORD, Ending, Shape, pack
from model.chroma.serving.prefill import Prefill
from model.chroma.serving.slots import Progress, Seats, Slots

FIRST, SOUND, PAIR = 2, 1, 3
"""Backbone positions of a frame: h and t; a; a, h and t."""


class Steps:
    """The weights at work on slots. Not for two threads at once. `recorder` as `Runner` has it."""

    def __init__(
        self, model: Chroma, slots: Slots, quirks: Quirks, *, recorder: GraphRecorder | None = None
    ) -> None:
        self.model = model
        self.slots = slots
        self.quirks = quirks
        self.trace: Trace | None = None
        self._beside: torch.cuda.Stream | None = None
        if model.device.type == "cuda":
            self._beside = stream("beside", model.device)
        # weak: a runner that held its steps would keep them and their slots until a collection
        step = partial(type(self).step, weakref.proxy(self))
        self._runner = Runner(step, slots.count, model.device, recorder)
        self.encoder = ChunkEncoder(model.thinker.audio_tower, recorder)
        self._prefill = Prefill(model.thinker, slots, recorder)

    @torch.inference_mode()
    def prefill(self, fresh: Mapping[int, Tensor]) -> None:
        """Embeddings `(n, H)` into each slot's thinker; `hidden` and `token` are what follows them.

        One pass over the weights for all: it is they that a piece of speech costs.
        """
        self._prefill(fresh, self.trace)

    def hear(self, slot: int, ear: Ear, start: int) -> None:
        """What is new or changed of an utterance that begins at the slot's position `start`."""
        wanted = ear.wanted()
        if wanted is None:
            return
        changed = ear.learn(wanted, self.encoder(wanted.mels))
        if len(fresh := ear.heard(changed)):
            self.slots.thinker.cut(slot, start + ear.before(changed))
            self.prefill({slot: fresh})

    def shape(self, rows: Sequence[int], *, words: bool, pairs: bool, sound: bool = True) -> Shape:
        """The step for these slots: caches are read as far as the furthest of them can be after it."""
        slots = self.slots

        def reach(cache: KVCache, further: int) -> int:
            if self._runner.graphs:  # a graph is for every length
                return cache.capacity
            return min(cache.capacity, max(cache.lengths[slot] for slot in rows) + further)

        return Shape(
            len(rows),
            words,
            PAIR if pairs else SOUND,
            reach(slots.thinker, 1),
            reach(slots.backbone, PAIR),
            reach(slots.codec.cache, self.model.config.codec.resample),
            sound,
        )

    @torch.inference_mode()
    def run(self, shape: Shape, rows: Sequence[int]) -> NDArray[Any]:
        """`step` for these slots, on the host; a graph where there is a GPU and no trace."""
        for cache, further in ((self.slots.thinker, 1), (self.slots.backbone, PAIR)):
            # beyond its limit the step itself ends the text, or the reply
            cache.reserve({slot: min(cache.lengths[slot] + further, cache.limit(slot)) for slot in rows})
        return self._runner(shape, rows, graphed=not self.observed)

    @torch.inference_mode()
    def prepare(self) -> None:
        """Captures every graph that serving needs; nothing to do where there is no GPU."""
        if self.model.device.type != "cuda":
            return
        wanted = [*product(self._runner.buckets, (True, False), (True, False))]
        for done, prepare in enumerate((self.encoder.prepare, self._prefill.prepare), start=1):
            prepare()
            own_process.prepares("graphs", done, len(wanted) + 2)
        for done, (size, words, pairs) in enumerate(wanted, start=3):
            self._runner.prepare(self.shape([0] * size, words=words, pairs=pairs))
            own_process.prepares("graphs", done, len(wanted) + 2)

    @property
    def observed(self) -> bool:
        """Somebody looks on from the host: no graph."""
        return self.trace is not None

    def step(self, shape: Shape, rows: Tensor) -> Tensor:
        """The next frame of every slot of `rows` `(B,)` whose reply is not over: `pack`ed `(B, n)`.

        The first frame of a reply, and every second one after it, takes in the pending word. Rows that pad
        are the scratch slot's, of which nothing changes.
        """
        slots = self.slots
        at = slots.gather(rows)
        progress = at.progress
        frames, end, pending = progress.frames, progress.end, progress.pending
        first = frames == 0
        told = pending.bool() & (frames % 2 == 0)
        counts = torch.where(first, FIRST, torch.where(told, PAIR, SOUND))
        on = (rows != slots.count) & (end == Ending.GOING)
        starts, limits = slots.backbone.bounds(rows)
        fits = starts + counts <= limits
        end.masked_fill_(on & ~fits, Ending.POSITIONS)
        on = on & fits
        told = told & on
        word = torch.where(told, progress.token, NO_WORD)
        x = self._inputs(shape, at, first)
        pending.logical_and_(~told)
        progress.text_over.logical_or_(word == self.model.config.im_end)
        if shape.words:
            with self._aside():
                self.think(shape, at, on)
        state = self.backbone(shape, at, x, starts, counts * on)
        codes = self.codes(shape, at, state, on)
        zero = codes == self.model.config.codebook_eos
        frames += on
        end.masked_fill_(on & (frames >= progress.most), Ending.LENGTH)
        # the official test leaves the last codebook out; such a frame may still sound
        end.masked_fill_(on & zero[:, :-1].all(1), Ending.SOUND)
        heard = on & ~zero.all(1)
        pcm = self.sound(shape, at, heard) if shape.sound else None
        if shape.words and self._beside is not None:
            torch.cuda.current_stream(self.model.device).wait_stream(self._beside)
        slots.put(at, hidden=shape.words)
        lengths = [cache.starts(rows) for cache in (slots.thinker, slots.backbone, slots.codec.cache)]
        return pack([word, end, heard, progress.text_over, pending, *lengths], codes, pcm)

    def _aside(self) -> AbstractContextManager[object]:
        """Beside what the current stream does from here on."""
        if self._beside is None:
            return nullcontext()
        self._beside.wait_stream(torch.cuda.current_stream(self.model.device))
        return torch.cuda.stream(self._beside)

    def _inputs(self, shape: Shape, at: Seats, first: Tensor) -> Tensor:
        """What the backbone takes in, `(B, width, H)`: a, h, t; for a first frame h, t."""
        model = self.model
        before = model.embed_frames(at.progress.codes)
        if shape.width == SOUND:
            return before[:, None]
        x = torch.stack((before, at.hidden, model.thinker.embed(at.progress.token)), dim=1)
        return torch.where(first[:, None, None], x.roll(-1, 1), x)

    def think(self, shape: Shape, at: Seats, on: Tensor) -> None:
        """A word further for those of `on` `(B,)` that have none pending; without room their text is over."""
        progress, thinker = at.progress, self.model.thinker
        cache, script = self.slots.thinker, self.slots.script
        hidden, token, said = at.hidden, progress.token, progress.said
        on = on & ~progress.pending.bool() & ~progress.text_over.bool()
        starts, limits = cache.bounds(at.rows)
        room = starts < limits
        progress.text_over.logical_or_(on & ~room)
        on = on & room
        span = cache.device_span(at.rows, starts, on.long(), 1, shape.thinker)
        out = thinker.model(thinker.embed(token)[:, None], cache, span)[:, 0]
        logits = thinker.lm_head(out)
        own = logits.argmax(-1)
        given = script[at.rows, said.clamp(max=script.shape[1] - 1)]
        word = torch.where(said < progress.scripted, given, own)
        hidden.copy_(torch.where(on[:, None], out, hidden))
        token.copy_(torch.where(on, word, token))
        said += on
        progress.pending.logical_or_(on)
        if self.trace is not None:
            self.trace.thought(at.rows, on, logits, out)

    def backbone(self, shape: Shape, at: Seats, x: Tensor, starts: Tensor, counts: Tensor) -> Tensor:
        """`counts` `(B,)` of the positions `x` `(B, width, H)` taken in behind `starts`; the states of the
        last, `(B, H)`."""
        cache = self.slots.backbone
        span = cache.device_span(at.rows, starts, counts, shape.width, shape.backbone)
        out: Tensor = self.model.backbone.model(x, cache, span)
        if shape.width == SOUND:
            return out[:, 0]
        last = (counts - 1).clamp(min=0)[:, None, None].expand(-1, 1, out.shape[2])
        return out.gather(1, last)[:, 0]

    def codes(self, shape: Shape, at: Seats, state: Tensor, on: Tensor) -> Tensor:
        """Backbone states `(B, H)` to a frame's codes `(B, codebooks)`; they stay with the rows of `on`."""
        model, progress = self.model, at.progress
        decoder, cache = model.decoder, self.slots.frame
        noise = None if cache.kernels else self._noise(progress)
        logits = [model.backbone.codebook0_head(state)]
        codes = [self._pick(at, logits[0], 0, noise)]
        # the backbone's state and the first code are both known: they go in at once
        x = torch.stack((state, model.embed_code(0, codes[0])), dim=1)
        depth = 0
        for book in range(1, model.config.codebooks):
            span = cache.fresh_span(len(at.rows), depth, x.shape[1])
            first = 1 if self.quirks.decoder_starts_twice else 0
            positions = tuple(max(0, place - first) for place in range(depth, span.live))
            out = decoder.model(decoder.projection(x), cache, span, positions)[:, -1]
            depth = span.live
            logits.append(decoder.codebook_head(out, book))
            codes.append(self._pick(at, logits[-1], book, noise))
            x = model.embed_code(book, codes[-1])[:, None]
        found = torch.stack(codes, dim=1)
        progress.codes.copy_(torch.where(on[:, None], found, progress.codes))
        progress.draws += on
        if self.trace is not None:
            self.trace.sounded(at.rows, on, logits, state)
        return found

    def _noise(self, progress: Progress) -> Tensor:
        """`(B, codebooks, V)`."""
        config = self.model.config
        books = torch.arange(config.codebooks, device=self.model.device)
        draws = progress.draws[:, None] * config.codebooks + books
        seeds = progress.seed[:, None].expand_as(draws)
        noise = gumbel(seeds.flatten(), draws.flatten(), config.codebook_vocab)
        return noise.view(*draws.shape, -1)

    def _pick(self, at: Seats, logits: Tensor, book: int, noise: Tensor | None) -> Tensor:
        """`noise` as `_noise` has it, None where a kernel draws and makes its own."""
        config, progress = self.model.config, at.progress
        if self.trace is not None and self.trace.script is not None:
            return self.trace.led(at.rows, book, progress.frames)
        limit = config.codebook_vocab if self.quirks.draws_any_id else config.codebook_size
        top_p = at.top_p
        if book == 0 and self.quirks.first_codebook_ignores_top_p:
            top_p = torch.ones_like(top_p)
        settings = at.temperature, progress.top_k, top_p
        if noise is None:
            from model.chroma.kernels.draw_kernel import draw  # triton comes with torch for a GPU only

            numbers = progress.seed, progress.draws
            return draw(logits, *settings, *numbers, book=book, books=config.codebooks, limit=limit)
        if limit < logits.shape[1]:
            logits = logits.clone()
            logits[:, limit:].fill_(-torch.inf)
        return pick(logits, *settings, noise[:, book])

    def sound(self, shape: Shape, at: Seats, heard: Tensor) -> Tensor:
        """The rows' last codes as sound `(B, frame)` float32 in [-1, 1]; rows not `heard` stand still."""
        codes = at.progress.codes[:, :, None]
        codec = self.model.codec_model
        return codec.decode(codes, self.slots.codec, at.rows, heard, shape.codec).float()
