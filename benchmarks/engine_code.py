"""What the engine's code does with a piece of work: kernels that it starts, by whom, and for how many rows.

`NOW` asks the code of this tree: launches are counted on shapes alone (`model.chroma.tools.launches`, which
needs triton), buckets are the runners' own. `BEFORE` is the code of 545a5a0, counted there in the same way; a
prediction of both by one model says what the difference is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final, Protocol

import torch

from benchmarks.engine_costs import CHUNK, Load, Parts
from model.chroma.network.config import ChromaConfig
from model.chroma.network.sampling import Sampling
from model.chroma.serving import chunk_encoder, graph, prefill, voices
from model.chroma.serving.admission import SHARE
from model.chroma.serving.engine_settings import EngineSettings, promises
from model.chroma.serving.slots import Positions
from model.chroma.tools import launches

AROUND: Final = 5
"""Launches around a graph of a prefill or of the encoder: what goes in is joined and copied, and what comes
out."""


class PassShape(Protocol):
    """What a graph of a prefill has room for."""

    @property
    def tokens(self) -> int: ...

    @property
    def seats(self) -> int: ...


@dataclass(frozen=True, slots=True)
class LaunchCounts:
    """Kernels. `step` by whether the thinker goes on, and whether words come in; `prefill` of a pass for one
    slot and `prefill_more` for each further slot; `hearing` of a pass of the audio encoder; `begin` before a
    reply's first frame; `feed` before a slot's prefill."""

    step: Mapping[tuple[bool, bool], int]
    prefill: int
    prefill_more: float
    hearing: int
    begin: int
    feed: int


@dataclass(frozen=True, slots=True)
class Code:
    """How the work is done. `rows` says what a step computes: (the slots of its replies, all slots) to rows.

    `passes` and `chunks`: shapes of a prefill and chunks of the encoder for which there are graphs; where
    there are none, the host starts each kernel. `together`: the encoder takes several utterances. `aside`:
    mel frames are made beside the thread for the weights. `compiles`: a kernel is compiled for each new width
    of a prefill. `frozen`: the collector passes over what was there when the engine was loaded, and is a
    piece of the schedule's work. `leaks`: what `auto` tries is still there at its next trial. `promised`:
    what a slot is sure to have, and is measured with; None: all of its context and of the backbone. `share`:
    of a frame's time that a step of everybody may take.
    """

    name: str
    counts: LaunchCounts
    rows: Callable[[Sequence[int], int], int]
    passes: Sequence[PassShape] = ()
    chunks: Sequence[int] = ()
    together: bool = False
    aside: bool = False
    compiles: bool = False
    frozen: bool = False
    leaks: bool = False
    promised: Positions | None = None
    share: float = SHARE

    def step(
        self, parts: Parts, slots: Sequence[int], held: int, *, thinking: int, words: bool, pairs: bool,
        begins: int, context: int, reply: int,
    ) -> Load:  # fmt: skip
        """A step of the replies in these slots of `held`, `begins` of which have their first frame."""
        computed = self.rows(slots, held)
        load = parts.frame(len(slots), thinking, pairs, context, reply, computed)
        return load + Load(nodes=self.counts.step[words, pairs], launches=begins * self.counts.begin)

    def both_steps(self, parts: Parts, count: int, context: int, reply: int) -> tuple[Load, Load]:
        """The steps that alternate while so many speak who began at different times: in each half of them
        take a word in, and in the first all are given one."""
        given, none = (
            self.step(
                parts, range(count), count, thinking=count * words, words=words, pairs=True, begins=0,
                context=context, reply=reply,
            )
            for words in (True, False)
        )  # fmt: skip
        return given, none

    def prefill(self, parts: Parts, positions: Sequence[int], context: int) -> Load:
        """A pass of so many new positions of each slot."""
        slots, total = len(positions), sum(positions)
        kernels = self.counts.prefill + round(self.counts.prefill_more * (slots - 1))
        fed = Load(launches=self.counts.feed * slots)
        if not self.passes:
            return parts.prefill(total, context, slots) + Load(launches=kernels) + fed
        shape = next(one for one in self.passes if one.tokens >= total and one.seats >= slots)
        load = parts.thinker(shape.tokens, slots, context, shape.seats)
        return load + Load(nodes=kernels, launches=AROUND) + fed

    def hearing(self, parts: Parts, chunks: int, samples: int) -> Load:
        """A pass of the audio encoder over so many chunks, the last of them of so many samples."""
        if not chunks:
            return Load()
        if not self.chunks:
            return parts.hearing(chunks, samples) + Load(launches=self.counts.hearing)
        padded = next(size for size in self.chunks if size >= chunks)
        return parts.hearing(padded, CHUNK) + Load(nodes=self.counts.hearing, launches=AROUND)


def _covering(slots: Sequence[int], held: int) -> int:
    """The graph that covers every slot up to the highest: the powers of two below `held`, and `held`."""
    size = 1 << max(slots).bit_length()
    return min(size, held)


BEFORE: Final = Code(
    "before (545a5a0)",
    LaunchCounts(
        {(True, True): 1_960, (True, False): 1_937, (False, True): 1_383, (False, False): 1_360},
        prefill=711,
        prefill_more=195,
        hearing=437,
        begin=49,
        feed=6,
    ),
    _covering,
    compiles=True,
    leaks=True,
    share=0.75,
)

ON_A_CPU: Final = replace(
    BEFORE, name="on a CPU", rows=lambda slots, _: len(slots), together=True, aside=True, compiles=False,
    leaks=False, frozen=True,
)  # fmt: skip
"""Without graphs; kernels are what the fitted costs make of them."""


@cache
def counted(config: ChromaConfig) -> LaunchCounts:
    """What this tree's code launches for a model of these sizes."""
    model = launches.on_paper(config)
    steps = launches.steps_on_paper(model, slots=8)
    step = {
        (words, pairs): launches.of_step(steps, 5, words=words, pairs=pairs).total
        for words in (True, False)
        for pairs in (True, False)
    }
    one, five = (launches.of_prefill(steps, [50] * slots).total for slots in (1, 5))
    with torch.inference_mode():
        ids = torch.empty(20, dtype=torch.long, device="meta")
        codes = torch.empty(100, config.codebooks, dtype=torch.long, device="meta")
        with launches.counted():
            voice = voices.prepare(model, ids, codes)
        with launches.counted() as begin:
            voices.lend(voice, steps.slots, 3)
            steps.slots.sample(3, Sampling())
            steps.slots.begin(3, 100, None)
        with launches.counted() as feed:
            steps.slots.thinker.cut(3, 0)
            torch.cat([model.thinker.embed(ids), torch.empty(3, config.thinker.hidden, device="meta")])
    hearing = launches.of_hearing(steps, 4).total
    return LaunchCounts(step, one, (five - one) / 4, hearing, begin.total, feed.total)


def _bucket(slots: Sequence[int], held: int) -> int:
    """The runner's own."""
    return next(size for size in graph.buckets(held) if size >= len(slots))


def now(config: ChromaConfig) -> Code:
    """The code of this tree, by its own settings."""
    settings = EngineSettings()
    promised = promises(settings.promised, settings.reply_s, config.frame_s)
    return Code(
        "now", counted(config), _bucket, passes=prefill.BUCKETS, chunks=chunk_encoder.BUCKETS,
        together=True, aside=True, frozen=True, promised=promised,
    )  # fmt: skip
