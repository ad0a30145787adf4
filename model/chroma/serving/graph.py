"""Running a step: a CUDA graph for each bucket of slots where there is a GPU, a plain call elsewhere.

A graph covers the first slots (the lowest are handed out first) and reads each cache to each row's own end,
so neither lengths nor company make another graph. In goes one mask of who takes part, out comes one tensor;
both have pinned memory of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

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


def buckets(slots: int) -> list[int]:
    """Numbers of rows that get a graph: the powers of two below `slots`, and `slots`."""
    return [*(1 << k for k in range((slots - 1).bit_length())), slots]


@dataclass(frozen=True, slots=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    plan: Tensor
    """`(rows,)` bool on the device"""
    sent: Tensor
    """the same, pinned"""
    told: Tensor
    received: Tensor
    """`told`, pinned"""


class Runner:
    """Calls one step; see the module. A step whose plan is all False changes nothing that is read."""

    def __init__(self, step: Step, slots: int, device: torch.device) -> None:
        self._step = step
        self._device = device
        self.buckets = buckets(slots)
        self._captured: dict[tuple[int, bool, int, bool], _Captured] = {}
        self._pool: Any = None

    def __call__(self, shape: Shape, plan: Sequence[bool], *, graphed: bool = True) -> NDArray[Any]:
        """What the step tells of the rows of `shape`, `(B, n)` float32, an array of its own."""
        if self._device.type != "cuda" or not graphed:
            told = self._step(shape, torch.tensor(plan).to(self._device))
            return told.cpu().numpy()
        captured = self._find(shape)
        captured.sent.zero_()
        captured.sent[shape.rows] = torch.tensor(plan)
        captured.plan.copy_(captured.sent, non_blocking=True)
        captured.graph.replay()
        captured.received.copy_(captured.told, non_blocking=True)
        torch.cuda.current_stream(self._device).synchronize()
        return captured.received[shape.rows].numpy().copy()

    def prepare(self, shape: Shape) -> None:
        """Captures the graph of a shape, so that no call waits for it."""
        if self._device.type == "cuda":
            self._find(shape)

    def _find(self, shape: Shape) -> _Captured:
        size = next(size for size in self.buckets if size >= shape.rows.stop)
        key = size, shape.words, shape.width, shape.sound
        if key not in self._captured:
            self._captured[key] = self._capture(replace(shape, rows=slice(0, size)))
        return self._captured[key]

    def _capture(self, shape: Shape) -> _Captured:
        """The step over the first rows as a graph; it is run before, so that libraries are set up."""
        with torch.cuda.device(self._device):
            plan = torch.zeros(shape.rows.stop, dtype=torch.bool, device=self._device)
            warming = stream("warming", self._device)
            warming.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(warming):
                for _ in range(2):
                    self._step(shape, plan)
            torch.cuda.current_stream().wait_stream(warming)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                told = self._step(shape, plan)
        self._pool = graph.pool()  # graphs run one after the other: they share their memory
        sent = torch.zeros(plan.shape, dtype=torch.bool, pin_memory=True)
        received = torch.empty(told.shape, dtype=told.dtype, pin_memory=True)
        return _Captured(graph, plan, sent, told, received)
