"""What callers said and are told goes into their thinkers: several slots' new positions in one pass.

On a GPU a pass is a CUDA graph for each bucket of tokens, padded with tokens of the scratch slot; who is in
it is said by whole numbers on the device (`Packing`), so neither widths nor slots nor their number make
another graph or another launch. On a CPU each slot's positions attend by themselves, by plain torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from model.chroma.network.token_run import Packing, TokenRun
from model.chroma.network.trace import Trace
from model.chroma.network.upload import uploaded
from model.chroma.network.weights import Thinker
from model.chroma.serving.graph_capture import Capturer, Graph, GraphRecorder
from model.chroma.serving.slots import Slots

BUCKETS: Final = (Packing(16, 16), Packing(64, 32), Packing(128, 32), Packing(256, 32))
"""Passes that get a graph. All seats go through the thinker's head, whose weights cost more than 32 rows."""


@dataclass(frozen=True, slots=True)
class _PrefillGraph:
    """`numbers` as its packing has them and `x` `(tokens, H)` go in; slots are what comes out."""

    graph: Graph
    numbers: Tensor
    x: Tensor


class Prefill:
    """See the module. Not for two threads at once. `recorder` as `Runner` has it."""

    def __init__(self, thinker: Thinker, slots: Slots, recorder: GraphRecorder | None = None) -> None:
        self._thinker = thinker
        self._slots = slots
        self._device = slots.hidden.device
        self.graphed = recorder is not None or self._device.type == "cuda"
        self._record = recorder or Capturer(self._device)
        self._passes: dict[Packing, _PrefillGraph] = {}

    @torch.inference_mode()
    def __call__(self, fresh: Mapping[int, Tensor], trace: Trace | None = None) -> None:
        """Embeddings `(n, H)` into each slot's thinker; `hidden` and `token` are what follows them."""
        if not self._slots.thinker.kernels:
            self._plain(fresh, trace)
            return
        for some in passes(fresh):
            self._packed(some, trace)

    @torch.inference_mode()
    def prepare(self) -> None:
        """Captures every graph; nothing to do where there is no GPU."""
        if self.graphed and self._slots.thinker.kernels:
            for packing in BUCKETS:
                self._find(packing)

    def _plain(self, fresh: Mapping[int, Tensor], trace: Trace | None) -> None:
        slots, thinker = self._slots, self._thinker
        span = slots.thinker.packed({slot: len(x) for slot, x in fresh.items()})
        out = thinker.model(torch.cat([*fresh.values()])[None], slots.thinker, span)[0]
        lasts = uploaded([end - 1 for end in accumulate(span.widths)], self._device)
        self._put(out.index_select(0, lasts), uploaded([*fresh], self._device), fresh, trace)

    def _packed(self, fresh: Mapping[int, Tensor], trace: Trace | None) -> None:
        """The same by kernels, at most as much as the largest bucket."""
        slots = self._slots
        widths = {slot: len(x) for slot, x in fresh.items()}
        total = sum(widths.values())
        packing = next(one for one in BUCKETS if one.tokens >= total and one.seats >= len(widths))
        starts = slots.thinker.extend(widths)
        numbers = uploaded(packing.numbers(starts, widths, slots.count), self._device)
        x = torch.cat([*fresh.values()])
        if self.graphed and trace is None:
            one = self._find(packing)
            one.numbers.copy_(numbers)
            one.x[:total] = x  # behind it what an earlier pass left: nobody reads what becomes of it
            one.graph.replay()
        else:
            self._pass(F.pad(x, (0, 0, 0, packing.tokens - total)), packing.run(numbers), fresh, trace)

    def _pass(
        self, x: Tensor, run: TokenRun, fresh: Mapping[int, Tensor] | None = None, trace: Trace | None = None
    ) -> None:
        """Tokens `(tokens, H)` of the slots of a run."""
        cache = self._slots.thinker
        out = self._thinker.model(x[:, None], cache, cache.run_span(run))[:, 0]
        self._put(out.index_select(0, run.lasts), run.slots, fresh, trace)

    def _put(
        self, out: Tensor, seats: Tensor, fresh: Mapping[int, Tensor] | None, trace: Trace | None
    ) -> None:
        """The states after the last position, `(seats, H)`, and the words that follow, into these slots."""
        logits = self._thinker.lm_head(out)
        self._slots.hidden.index_copy_(0, seats, out)
        self._slots.token.index_copy_(0, seats, logits.argmax(-1))
        if trace is not None:
            for row, slot in enumerate(fresh or ()):
                trace.prefilled(slot, logits[row], out[row])

    def _find(self, packing: Packing) -> _PrefillGraph:
        if packing not in self._passes:
            # a run of nobody: the scratch slot alone
            scratch = packing.numbers({}, {}, self._slots.count)
            numbers = uploaded(scratch, self._device)
            x = self._slots.hidden.new_zeros(packing.tokens, self._slots.hidden.shape[1])
            graph, _ = self._record(lambda: self._pass(x, packing.run(numbers)))
            self._passes[packing] = _PrefillGraph(graph, numbers, x)
        return self._passes[packing]


def passes(fresh: Mapping[int, Tensor]) -> Iterator[dict[int, Tensor]]:
    """As much as a pass takes at a time, each slot's positions in their order."""
    most = BUCKETS[-1]
    some: dict[int, Tensor] = {}
    room = most.tokens
    for slot, whole in fresh.items():
        x = whole
        while len(x):
            some[slot] = x[:room]
            x, room = x[room:], room - len(some[slot])
            if not room or len(some) == most.seats:
                yield some
                some, room = {}, most.tokens
    if some:
        yield some
