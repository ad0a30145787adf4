"""What the Chroma engine's work costs by count: bytes, products, kernels; and devices to divide by.

Nothing here was measured on a GPU. **The costs are frozen**: whoever changes one makes it dearer and names
the source, so that a prediction gets better by better code alone. How many kernels there are is counted from
the code (`engine_code`), not written down here. Reading, arithmetic and starts are added up as if nothing
overlapped. Each device is assumed three times over, low, middle and high, and a goal counts as met where the
dearest of them says so:

* bandwidth, of a peak of 3.35 (H100) and 4.8 TB/s (H200): 89, 84, 78 %. A copy reaches the first; the last
  is what a persistent kernel for a Llama of one billion weights reaches on an H100 (Hazy Research).
* products in bfloat16, of 989 Tflop/s: 47, 43, 39 %. The first is an engineer's estimate (2.4 ms for 128
  calls); no product here has more than a few hundred rows. Float32, of 67: 60, 54, 48 %, small convolutions.
* from one kernel of a graph to the next: 1.3 us (Hazy Research, H100), 2 us (an estimate of 3.9 ms for one
  call), 3 us.
* a kernel that the host launches: 5, 6.5, 8 us. On this project's CPUs an operation of torch took 7.1 to
  9.5 us, and some of them launch nothing.
* the host's part of a step: .3, .4, .5 ms; of each reply in it: 15, 20, 25 us. 10 us were measured on one
  core, and the event loop shares the interpreter.
* mel frames of half a second: .56 (measured, idle), .7, .9 ms.
* a collection of Python's: .78 us an object (.28 s for 357,000, measured), the same, 1 us.
* a Triton kernel when a process needs it first: 5, 10, 20 ms where it is found on disk; at an installation's
  first start .76, 1.5, 3 s (.76 to 4.5 s, measured on a busy machine).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, Self

import numpy as np
from scipy.optimize import nnls

from model.chroma.network import config
from model.chroma.network.config import ChromaConfig
from model.chroma.network.hearing import tokens
from model.chroma.serving.slots import Positions
from model.chroma.tools.inventory import Memory

LOOK: Final = 12_000
"""Samples at which speech is looked at (half a second)."""
CHUNK: Final = 48_000
"""Samples that the audio encoder takes at once (2 s)."""
Level = Literal["low", "middle", "high"]
LEVELS: Final[tuple[Level, ...]] = ("low", "middle", "high")


@dataclass(frozen=True, slots=True)
class Load:
    """Bytes moved, operations in the model's precision and in float32; kernels that a graph starts (`nodes`),
    and those that the host starts one by one (`launches`)."""

    bytes: float = 0.0
    flops: float = 0.0
    flops32: float = 0.0
    nodes: float = 0.0
    launches: float = 0.0

    def __add__(self, other: Load) -> Load:
        return Load(
            self.bytes + other.bytes,
            self.flops + other.flops,
            self.flops32 + other.flops32,
            self.nodes + other.nodes,
            self.launches + other.launches,
        )


@dataclass(frozen=True, slots=True)
class Device:
    """Rates per second. Seconds: `node_s` from one kernel of a graph to the next, `launch_s` of one that the
    host starts, `step_s` and `row_s` the host's part of a step and of each of its replies, `mel_s` of half a
    second's mel frames, `object_s` of a collection by object, `found_s` and `compile_s` of a kernel that is
    on disk and that is not. `memory`: bytes."""

    name: str
    bandwidth: float
    flops: float
    flops32: float
    node_s: float
    launch_s: float
    step_s: float
    row_s: float
    memory: float
    mel_s: float = 0.56e-3
    object_s: float = 0.78e-6
    found_s: float = 0.005
    compile_s: float = 0.76

    def slower(self, by: float) -> Device:
        """The same, but everything takes `by` times as long."""
        return replace(
            self,
            bandwidth=self.bandwidth / by, flops=self.flops / by, flops32=self.flops32 / by,
            node_s=self.node_s * by, launch_s=self.launch_s * by, step_s=self.step_s * by,
            row_s=self.row_s * by, mel_s=self.mel_s * by, object_s=self.object_s * by,
            found_s=self.found_s * by, compile_s=self.compile_s * by,
        )  # fmt: skip

    def seconds(self, load: Load, rows: int = 0) -> float:
        device = load.bytes / self.bandwidth + load.flops / self.flops + load.flops32 / self.flops32
        started = load.nodes * self.node_s + load.launches * self.launch_s
        return device + started + self.step_s + rows * self.row_s


def assumed(name: str, bandwidth: float, memory: float) -> dict[Level, Device]:
    """A device of that peak bandwidth three times over, as the module says."""
    return {
        "low": Device(
            name, 0.89 * bandwidth, 470e12, 40e12, 1.3e-6, 5.0e-6, 0.3e-3, 15e-6, memory,
            mel_s=0.56e-3, object_s=0.78e-6, found_s=0.005, compile_s=0.76,
        ),
        "middle": Device(
            name, 0.84 * bandwidth, 430e12, 36e12, 2.0e-6, 6.5e-6, 0.4e-3, 20e-6, memory,
            mel_s=0.7e-3, object_s=0.78e-6, found_s=0.01, compile_s=1.5,
        ),
        "high": Device(
            name, 0.78 * bandwidth, 390e12, 32e12, 3.0e-6, 8.0e-6, 0.5e-3, 25e-6, memory,
            mel_s=0.9e-3, object_s=1.0e-6, found_s=0.02, compile_s=3.0,
        ),
    }  # fmt: skip


DEVICES: Final = {"H100": assumed("H100", 3.35e12, 85.5e9), "H200": assumed("H200", 4.8e12, 150.7e9)}


def fitted(name: str, samples: Sequence[tuple[Load, int, float]], memory: float) -> Device:
    """The device whose costs come nearest, in relation, to what was timed: (load, replies, seconds)."""
    rows = np.array(
        [
            [load.bytes, load.flops, load.flops32, load.nodes + load.launches, 1.0, replies]
            for load, replies, _ in samples
        ]
    )
    seconds = np.array([seconds for _, _, seconds in samples])
    scale = rows.max(axis=0)
    costs, _ = nnls(rows / scale / seconds[:, None], np.ones(len(seconds)))
    per = costs / scale
    bandwidth, flops, flops32 = (1 / float(cost) if cost else float("inf") for cost in per[:3])
    kernel_s, step_s, row_s = (float(cost) for cost in per[3:])
    return Device(name, bandwidth, flops, flops32, kernel_s, kernel_s, step_s, row_s, memory)


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

    def slot(self, context: int, promised: Positions | None = None) -> int:
        """Bytes of a conversation's state that has so much for itself (None: all of its context and of the
        backbone)."""
        if promised is None:
            return Memory.of(self.config, self.itemsize, context, Positions(context, 1)).most
        return Memory.of(self.config, self.itemsize, context, promised).slot

    def frame(
        self, rows: int, thinking: int, pairs: bool, context: int, reply: int, computed: int | None = None
    ) -> Load:
        """A step of `rows` replies, `thinking` of which go a word further; with `pairs` all are three wide.

        `computed`: the rows that a graph computes for them (None: no more than they are), whose caches are
        not read.
        """
        wide = rows if computed is None else computed
        load = self.backbone(rows, 3 if pairs else 1, reply, wide) + self.decoder(wide) + self.mimi(wide)
        return load + self.thinker(wide, thinking, context, wide) if thinking else load

    def thinker(self, positions: int, rows: int, context: int, heads: int | None = None) -> Load:
        """So many positions, the contexts of so many rows, and the next word of `heads` (None: of each)."""
        stack = self.config.thinker
        layers, head = stack.products, stack.vocab * stack.hidden
        kv = rows * context * stack.kv_floats
        words = rows if heads is None else heads
        return Load((layers + head + kv) * self.itemsize, 2.0 * (layers * positions + head * words))

    def backbone(self, rows: int, width: int, reply: int, computed: int | None = None) -> Load:
        stack = self.config.backbone
        layers, head = stack.products, stack.hidden * self.config.codebook_vocab
        kv = rows * reply * stack.kv_floats
        wide = rows if computed is None else computed
        return Load((layers + head + kv) * self.itemsize, 2.0 * wide * (layers * width + head))

    def _decoder(self) -> int:
        return self.config.decoder.products + self.config.backbone.hidden * self.config.decoder.hidden

    def decoder(self, rows: int) -> Load:
        """A frame's other codes, one after the other."""
        c = self.config
        every, head, steps = self._decoder(), c.decoder.hidden * c.codebook_vocab, c.codebooks - 1
        return Load(steps * (every + head) * self.itemsize, 2.0 * rows * (every * c.codebooks + steps * head))

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
        )

    def prefill(self, positions: int, context: int, slots: int = 1) -> Load:
        """So many positions of all slots in one pass; each slot reads its own context."""
        return self.thinker(positions, slots, context)

    def hearing(self, chunks: int, samples: int = CHUNK) -> Load:
        """The audio encoder on so many chunks of so many samples of 24 kHz; none is no work for it."""
        ears = self.config.hearing
        layers = ears.layers * (4 * ears.hidden**2 + 2 * ears.hidden * ears.intermediate)
        frames = samples * 100 // 24_000
        if not frames * chunks:
            return Load()
        return Load(layers * self.itemsize, 2.0 * layers * 2 * tokens(frames) * chunks)
