"""Work as CUDA graphs. Graphs of one `Capturer` run one after the other, so they share their memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from model.chroma.serving.graph import stream

T = TypeVar("T")


class Capturer:
    """Captures for one GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def __call__(self, work: Callable[[], T]) -> tuple[torch.cuda.CUDAGraph, T]:
        """`work` as a graph, and what it answers; it is run before, so that libraries are set up."""
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
