"""Running a step: a CUDA graph for each bucket of rows where there is a GPU, a plain call elsewhere.

A row is whatever slot it names, and each cache is read to each row's own end, so neither slots nor lengths
nor company make another graph. In go the slots' numbers, padded with the scratch slot's; out comes one
tensor; both have pinned memory of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import torch
from numpy.typing import NDArray
from torch import Tensor

from model.chroma.serving.graph_capture import Capturer, Graph, GraphRecorder
from model.chroma.serving.plan import Shape

Step = Callable[[Shape, Tensor], Tensor]


FINE: Final = 32
"""Rows from which a step's time grows with them. Below it weights are read for whoever is there."""


def buckets(most: int) -> list[int]:
    """Numbers of rows that get a graph, up to `most`: powers of two up to `FINE`, then four to each doubling.

    So a step computes at most a quarter more rows than it has replies where rows cost time, all of them but
    a few multiples of 8, as tensor cores have them; and 400 slots take 21 buckets, four graphs each.
    """
    found, size = [], 1
    while size < most:
        found.append(size)
        size += size if size < FINE else (1 << size.bit_length() - 1) // 4
    return [*found, most]


@dataclass(frozen=True, slots=True)
class _Captured:
    graph: Graph
    rows: Tensor
    """slots `(rows,)` int64 on the device"""
    sent: Tensor
    """the same, pinned"""
    told: Tensor
    received: Tensor
    """`told`, pinned"""


class Runner:
    """Calls one step; see the module. A step of the scratch slot alone, `slots`, changes nothing.

    `recorder` None: CUDA graphs where there is a GPU, plain calls elsewhere.
    """

    def __init__(
        self, step: Step, slots: int, device: torch.device, recorder: GraphRecorder | None = None
    ) -> None:
        self._step = step
        self._scratch = slots
        self._device = device
        self._recorder = recorder
        if recorder is None and device.type == "cuda":
            self._recorder = Capturer(device)
        self.buckets = buckets(slots)
        self._captured: dict[tuple[int, bool, int, bool], _Captured] = {}

    @property
    def graphs(self) -> bool:
        """Steps run as graphs, which are for every length."""
        return self._recorder is not None

    def __call__(self, shape: Shape, slots: Sequence[int], *, graphed: bool = True) -> NDArray[Any]:
        """What the step tells of these slots, `(B, n)` float32, an array of its own."""
        if self._recorder is None or not graphed:
            told = self._step(shape, torch.tensor(slots).to(self._device))
            return told.cpu().numpy()
        captured = self._find(shape, self._recorder)
        captured.sent.fill_(self._scratch)
        captured.sent[: len(slots)] = torch.tensor(slots)
        captured.rows.copy_(captured.sent, non_blocking=True)
        captured.graph.replay()
        captured.received.copy_(captured.told, non_blocking=True)
        self._recorder.wait()
        return captured.received[: len(slots)].numpy().copy()

    def prepare(self, shape: Shape) -> None:
        """Captures the graph of a shape, so that no call waits for it."""
        if self._recorder is not None:
            self._find(shape, self._recorder)

    def _find(self, shape: Shape, recorder: GraphRecorder) -> _Captured:
        size = next(size for size in self.buckets if size >= shape.rows)
        key = size, shape.words, shape.width, shape.sound
        if key not in self._captured:
            self._captured[key] = self._capture(replace(shape, rows=size), recorder)
        return self._captured[key]

    def _capture(self, shape: Shape, recorder: GraphRecorder) -> _Captured:
        """The step of so many rows as a graph."""
        rows = torch.full((shape.rows,), self._scratch, device=self._device)
        graph, told = recorder(partial(self._step, shape, rows))
        sent = torch.zeros(rows.shape, dtype=rows.dtype, pin_memory=recorder.pinned)
        received = torch.empty(told.shape, dtype=told.dtype, pin_memory=recorder.pinned)
        return _Captured(graph, rows, sent, told, received)
