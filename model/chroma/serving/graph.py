"""Running a step: a CUDA graph for each bucket of rows where there is a GPU, a plain call elsewhere.

A row is whatever slot it names, and each cache is read to each row's own end, so neither slots nor lengths
nor company make another graph. In go the slots' numbers, padded with the scratch slot's; out comes one
tensor; both have pinned memory of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor

from model.chroma.serving.plan import Shape

Step = Callable[[Shape, Tensor], Tensor]


@cache
def stream(use: Literal["warming", "beside"], device: torch.device) -> torch.cuda.Stream:
    """The stream of that use on that device: one for all steps of the process.

    Of torch's 32 streams the 33rd that is asked for is the first again, so a stream for each capture would
    come to be the one that the thinker runs on beside it; and each keeps cuBLAS's workspace.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's


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
    graph: torch.cuda.CUDAGraph
    rows: Tensor
    """slots `(rows,)` int64 on the device"""
    sent: Tensor
    """the same, pinned"""
    told: Tensor
    received: Tensor
    """`told`, pinned"""


class Runner:
    """Calls one step; see the module. A step of the scratch slot alone, `slots`, changes nothing."""

    def __init__(self, step: Step, slots: int, device: torch.device) -> None:
        self._step = step
        self._scratch = slots
        self._device = device
        self.buckets = buckets(slots)
        self._captured: dict[tuple[int, bool, int, bool], _Captured] = {}
        self._pool: Any = None

    def __call__(self, shape: Shape, slots: Sequence[int], *, graphed: bool = True) -> NDArray[Any]:
        """What the step tells of these slots, `(B, n)` float32, an array of its own."""
        if self._device.type != "cuda" or not graphed:
            told = self._step(shape, torch.tensor(slots).to(self._device))
            return told.cpu().numpy()
        captured = self._find(shape)
        captured.sent.fill_(self._scratch)
        captured.sent[: len(slots)] = torch.tensor(slots)
        captured.rows.copy_(captured.sent, non_blocking=True)
        captured.graph.replay()
        captured.received.copy_(captured.told, non_blocking=True)
        torch.cuda.current_stream(self._device).synchronize()
        return captured.received[: len(slots)].numpy().copy()

    def prepare(self, shape: Shape) -> None:
        """Captures the graph of a shape, so that no call waits for it."""
        if self._device.type == "cuda":
            self._find(shape)

    def _find(self, shape: Shape) -> _Captured:
        size = next(size for size in self.buckets if size >= shape.rows)
        key = size, shape.words, shape.width, shape.sound
        if key not in self._captured:
            self._captured[key] = self._capture(replace(shape, rows=size))
        return self._captured[key]

    def _capture(self, shape: Shape) -> _Captured:
        """The step of so many rows as a graph; it is run before, so that libraries are set up."""
        with torch.cuda.device(self._device):
            rows = torch.full((shape.rows,), self._scratch, device=self._device)
            warming = stream("warming", self._device)
            warming.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(warming):
                for _ in range(2):
                    self._step(shape, rows)
            torch.cuda.current_stream().wait_stream(warming)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                told = self._step(shape, rows)
        self._pool = graph.pool()  # graphs run one after the other: they share their memory
        sent = torch.zeros(rows.shape, dtype=rows.dtype, pin_memory=True)
        received = torch.empty(told.shape, dtype=told.dtype, pin_memory=True)
        return _Captured(graph, rows, sent, told, received)
