"""The audio encoder at work: chunks of several utterances in one pass.

On a GPU a pass is a CUDA graph for each bucket of chunks. Each chunk of a graph has the encoder's whole
length; a shorter one, the last of an utterance, is padded and masked, so that its tokens are its own. On a
CPU the pass is a plain call, padded to the longest chunk in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from model.chroma.network.hearing import AudioTower, tokens
from model.chroma.network.upload import uploaded
from model.chroma.serving.graph_capture import Capturer, Graph, GraphRecorder

BUCKETS: Final = (1, 2, 4, 8, 16)
"""Chunks that get a graph. A chunk is some 120 GFLOP at full size: more of them gain nothing in one pass."""


@dataclass(frozen=True, slots=True)
class _ChunkGraph:
    """`mel` `(B, mels, chunk)` float32 and `frames` `(B,)` go in, `heard` `(B, tokens, out)` comes out."""

    graph: Graph
    mel: Tensor
    frames: Tensor
    heard: Tensor


class ChunkEncoder:
    """See the module. Not for two threads at once. `recorder` as `Runner` has it."""

    def __init__(self, tower: AudioTower, recorder: GraphRecorder | None = None) -> None:
        self._tower = tower
        self._device = tower.proj.weight.device
        self.graphed = recorder is not None or self._device.type == "cuda"
        self._record = recorder or Capturer(self._device)
        self._passes: dict[int, _ChunkGraph] = {}

    @torch.inference_mode()
    def __call__(self, mels: Sequence[Tensor]) -> list[Tensor]:
        """Chunks `(mels, L)` on the host, of any lengths, each to its tokens `(tokens(L), out)`."""
        heard: list[Tensor] = []
        for at in range(0, len(mels), BUCKETS[-1]):
            some = mels[at : at + BUCKETS[-1]]
            heard += self._by_graph(some) if self.graphed else self._tower.encode(some)
        return heard

    @torch.inference_mode()
    def prepare(self) -> None:
        """Captures every graph, so that no caller waits for it; nothing to do where there is no GPU."""
        if self.graphed:
            for size in BUCKETS:
                self._find(size)

    def _by_graph(self, mels: Sequence[Tensor]) -> list[Tensor]:
        one = self._find(len(mels))
        lengths = [mel.shape[1] for mel in mels]
        sent = torch.zeros(one.mel.shape, pin_memory=self._record.pinned)
        for row, mel in zip(sent, mels, strict=False):
            row[:, : mel.shape[1]] = mel
        one.mel.copy_(sent, non_blocking=True)
        chunk = self._tower.config.chunk
        one.frames.copy_(uploaded([*lengths, *[chunk] * (len(one.mel) - len(mels))], self._device))
        one.graph.replay()
        heard = one.heard[: len(mels)].clone()  # the next pass writes there
        return [of[: tokens(length)] for of, length in zip(heard, lengths, strict=True)]

    def _find(self, chunks: int) -> _ChunkGraph:
        size = next(size for size in BUCKETS if size >= chunks)
        if size not in self._passes:
            config = self._tower.config
            mel = torch.zeros(size, config.mels, config.chunk, device=self._device)
            frames = torch.full((size,), config.chunk, device=self._device)
            graph, heard = self._record(lambda: self._tower(mel, frames))
            self._passes[size] = _ChunkGraph(graph, mel, frames, heard)
        return self._passes[size]
