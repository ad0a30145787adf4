"""What the Chroma engine's work costs by count: bytes moved, arithmetic, kernels; and devices to divide by.

Nothing here was measured on a GPU. Bandwidths are a copy's, arithmetic is what makes 2.4 ms of 128 calls, and
the time from one kernel of a graph to the next what makes an estimate of 3.9 ms for one call; what the host
does for a reply was measured (10 us on one core, here half as much again for what a step brings back).
Reading and arithmetic are added up as if nothing overlapped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.optimize import nnls

from model.chroma.network import config
from model.chroma.network.config import ChromaConfig
from model.chroma.network.hearing import tokens
from model.chroma.tools.inventory import Memory

KERNELS_A_LAYER = 10
"""Norm, qkv, rope and write, attention in two, out, norm, gate and up, their product, down."""
KERNELS_APART = 3
"""Of them for each further slot of a pass: rope and write, mask, attention."""
KERNELS_A_DRAW = 12
KERNELS_OF_CONVOLUTIONS = 30
LOOK = 12_000
"""Samples at which speech is looked at (half a second)."""
CHUNK = 48_000
"""Samples that the audio encoder takes at once (2 s)."""


@dataclass(frozen=True, slots=True)
class Load:
    """Bytes moved, operations in the model's precision and in float32, kernels."""

    bytes: float = 0.0
    flops: float = 0.0
    flops32: float = 0.0
    kernels: float = 0.0

    def __add__(self, other: Load) -> Load:
        return Load(
            self.bytes + other.bytes,
            self.flops + other.flops,
            self.flops32 + other.flops32,
            self.kernels + other.kernels,
        )


@dataclass(frozen=True, slots=True)
class Device:
    """Per second; `kernel_s`: from one kernel to the next; `step_s` and `row_s`: the host's part of a step
    and of each of its replies; `memory`: bytes."""

    name: str
    bandwidth: float
    flops: float
    flops32: float
    kernel_s: float
    step_s: float
    row_s: float
    memory: float

    def slower(self, by: float) -> Device:
        """The same, but everything takes `by` times as long."""
        rates = (self.bandwidth / by, self.flops / by, self.flops32 / by)
        times = (self.kernel_s * by, self.step_s * by, self.row_s * by)
        return Device(self.name, *rates, *times, self.memory)

    def seconds(self, load: Load, rows: int = 0) -> float:
        device = load.bytes / self.bandwidth + load.flops / self.flops + load.flops32 / self.flops32
        return device + load.kernels * self.kernel_s + self.step_s + rows * self.row_s


H100 = Device("H100", 3.0e12, 470e12, 40e12, 2.0e-6, 0.3e-3, 15e-6, 85.5e9)
H200 = Device("H200", 4.3e12, 470e12, 40e12, 2.0e-6, 0.3e-3, 15e-6, 150.7e9)
DEVICES = {device.name: device for device in (H100, H200)}


def fitted(name: str, samples: Sequence[tuple[Load, int, float]], memory: float) -> Device:
    """The device whose costs come nearest, in relation, to what was timed: (load, replies, seconds)."""
    rows = np.array(
        [[load.bytes, load.flops, load.flops32, load.kernels, 1.0, replies] for load, replies, _ in samples]
    )
    seconds = np.array([seconds for _, _, seconds in samples])
    scale = rows.max(axis=0)
    costs, _ = nnls(rows / scale / seconds[:, None], np.ones(len(seconds)))
    per = costs / scale
    bandwidth, flops, flops32 = (1 / float(cost) if cost else float("inf") for cost in per[:3])
    kernel_s, step_s, row_s = (float(cost) for cost in per[3:])
    return Device(name, bandwidth, flops, flops32, kernel_s, step_s, row_s, memory)


@dataclass(frozen=True, slots=True)
class Parts:
    """A model by its sizes; `itemsize` of its precision."""

    config: ChromaConfig
    itemsize: int

    @classmethod
    def full(cls) -> Self:
        """Full size in bfloat16."""
        return cls(config.parse(json.loads(config.FULL_SIZE.read_text()), "4b"), 2)

    @property
    def weights(self) -> float:
        """Bytes of everything that is loaded; Mimi in float32."""
        c = self.config
        ears = c.hearing.layers * (4 * c.hearing.hidden**2 + 2 * c.hearing.hidden * c.hearing.intermediate)
        words = c.thinker.products + 2 * c.thinker.vocab * c.thinker.hidden
        sound = c.backbone.products + self._decoder() + c.codebooks * c.codebook_vocab * c.backbone.hidden
        mimi = 2 * self.mimi_weights()
        heads = (c.codebooks - 1) * c.decoder.hidden * c.codebook_vocab
        return (ears + words + sound + heads) * self.itemsize + 4 * mimi

    def slot(self, context: int) -> int:
        """Bytes of a conversation's state."""
        return Memory.of(self.config, self.itemsize, 1, context).slot

    def frame(self, rows: int, thinking: int, pairs: bool, context: int, reply: int) -> Load:
        """A step of `rows` replies, `thinking` of which want a word; with `pairs` all are three wide."""
        load = self.backbone(rows, 3 if pairs else 1, reply) + self.decoder(rows) + self.mimi(rows)
        return load + self.thinker(thinking, thinking, context) if thinking else load

    def thinker(self, positions: int, rows: int, context: int) -> Load:
        """So many positions of so many rows, and the next word of each row."""
        stack = self.config.thinker
        layers, head = stack.products, stack.vocab * stack.hidden
        kv = rows * context * stack.kv_floats
        return Load(
            (layers + head + kv) * self.itemsize,
            2.0 * (layers * positions + head * rows),
            kernels=KERNELS_A_LAYER * stack.layers + 2,
        )

    def backbone(self, rows: int, width: int, reply: int) -> Load:
        stack = self.config.backbone
        layers, head = stack.products, stack.hidden * self.config.codebook_vocab
        kv = rows * reply * stack.kv_floats
        return Load(
            (layers + head + kv) * self.itemsize,
            2.0 * rows * (layers * width + head),
            kernels=KERNELS_A_LAYER * stack.layers + KERNELS_A_DRAW,
        )

    def _decoder(self) -> int:
        return self.config.decoder.products + self.config.backbone.hidden * self.config.decoder.hidden

    def decoder(self, rows: int) -> Load:
        """A frame's other codes, one after the other."""
        c = self.config
        every, head, steps = self._decoder(), c.decoder.hidden * c.codebook_vocab, c.codebooks - 1
        kernels = steps * (KERNELS_A_LAYER * c.decoder.layers + KERNELS_A_DRAW)
        return Load(
            steps * (every + head) * self.itemsize,
            2.0 * rows * (every * c.codebooks + steps * head),
            kernels=kernels,
        )

    def _convolutions(self) -> list[tuple[int, int, int]]:
        """Mimi's decoder: (weights, positions at which they are used in a frame, floats in and out)."""
        codec, found = self.config.codec, []
        channels, positions = codec.filters * 2 ** len(codec.ratios), codec.resample
        found.append(
            (codec.hidden * channels * codec.kernel, positions, positions * (codec.hidden + channels))
        )
        for ratio in codec.ratios:
            half = channels // 2
            found.append((channels * half * 2 * ratio, positions, positions * (channels + half * ratio)))
            channels, positions = half, positions * ratio
            inner = channels // codec.compress
            block = channels * inner * (codec.residual_kernel + 1)
            found += [(block, positions, positions * 2 * (channels + inner))] * codec.residual_layers
        found.append((channels * codec.last_kernel, positions, positions * (channels + 1)))
        return found

    def _mimi_layers(self) -> int:
        codec = self.config.codec
        attention = codec.hidden * codec.head_dim * 2 * (codec.heads + codec.kv_heads)
        return codec.layers * (attention + 2 * codec.hidden * codec.intermediate)

    def mimi_weights(self) -> int:
        """Of one direction."""
        return self._mimi_layers() + sum(weights for weights, _, _ in self._convolutions())

    def mimi(self, rows: int) -> Load:
        """Codes to sound, in float32; each float between convolutions goes in and out once more for ELU."""
        codec = self.config.codec
        ring = (codec.window + codec.resample) * 2 * codec.layers * codec.kv_heads * codec.head_dim
        between = sum(2 * floats for _, _, floats in self._convolutions())
        work = sum(weights * positions for weights, positions, _ in self._convolutions())
        return Load(
            4.0 * (self.mimi_weights() + rows * (ring + between)),
            flops32=2.0 * rows * (self._mimi_layers() * codec.resample + work),
            kernels=KERNELS_A_LAYER * codec.layers + KERNELS_OF_CONVOLUTIONS,
        )

    def prefill(self, positions: int, context: int, slots: int = 1) -> Load:
        """So many positions of all slots in one pass; each slot attends by itself."""
        apart = (slots - 1) * KERNELS_APART * self.config.thinker.layers
        return self.thinker(positions, slots, context) + Load(kernels=apart)

    def hearing(self, samples: int) -> Load:
        """The audio encoder on the chunks that end in so many samples of 24 kHz; none is no work for it."""
        ears = self.config.hearing
        layers = ears.layers * (4 * ears.hidden**2 + 2 * ears.hidden * ears.intermediate)
        frames = samples * 100 // 24_000
        if not frames:
            return Load()
        positions = 2 * tokens(frames)
        return Load(layers * self.itemsize, 2.0 * layers * positions, kernels=KERNELS_A_LAYER * ears.layers)
