"""Work as CUDA graphs, and what may stand for them.

Graphs of one recorder run one after the other, so they share their memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal, Protocol, TypeVar

import torch

T = TypeVar("T")


@cache
def stream(use: Literal["warming", "beside"], device: torch.device) -> torch.cuda.Stream:
    """The stream of that use on that device: one for all steps of the process.

    Of torch's 32 streams the 33rd that is asked for is the first again, so a stream for each capture would
    come to be the one that the thinker runs on beside it; and each keeps cuBLAS's workspace.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's


class Graph(Protocol):
    """Recorded work: `replay` does it again, on the tensors that it was recorded with."""

    def replay(self) -> None:
        """Into the tensors that the work returned when it was recorded."""


class GraphRecorder(Protocol):
    """Records work as graphs."""

    pinned: bool
    """memory that the host shares with the device must be pinned"""

    def __call__(self, work: Callable[[], T]) -> tuple[Graph, T]:
        """`work` as a graph, and what it returned, which each replay fills again."""

    def wait(self) -> None:
        """Until everything replayed so far is done."""


class Capturer:
    """Records CUDA graphs on one GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.pinned = device.type == "cuda"
        self._pool: Any = None

    def __call__(self, work: Callable[[], T]) -> tuple[torch.cuda.CUDAGraph, T]:
        """The work is run before, so that libraries are set up."""
        with torch.cuda.device(self._device):
            warming = stream("warming", self._device)
            warming.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(warming):
                for _ in range(2):
                    work()
            torch.cuda.current_stream().wait_stream(warming)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                found = work()
        self._pool = graph.pool()
        return graph, found

    def wait(self) -> None:
        """Until the current stream has nothing to do."""
        torch.cuda.current_stream(self._device).synchronize()
