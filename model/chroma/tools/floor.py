"""What a frame costs at least: bytes that must be read and products that must be made, by part.

A floor is the larger of bytes by the rate of a copy and products by the rate of a matrix product, both
measured on the same device.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from model.chroma.network import checkpoint
from model.chroma.network.config import ChromaConfig, StackConfig
from model.chroma.network.weights import Chroma

PARTS: Final = ("Reasoner", "Backbone", "Decoder", "codec")
PER_FRAME: Final = {"Reasoner": 0.5, "Backbone": 1.0, "Decoder": 1.0, "codec": 1.0}
"""How often each works while text flows."""
POSITIONS: Final = 2
"""Backbone positions of a frame, on the mean: one and three in turn."""


def idle(device: torch.device) -> None:
    """Waits until the device has nothing to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ms(device: torch.device, work: Callable[[], object]) -> float:
    """How long the work takes, the device idle at both ends."""
    idle(device)
    began = time.perf_counter()
    work()
    idle(device)
    return (time.perf_counter() - began) * 1000


def peak(device: torch.device) -> int:
    """The most bytes so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def bandwidth(device: torch.device) -> float:
    """Bytes per second that a copy reads and writes: the best of a few."""
    size = (1 << 30) if device.type == "cuda" else (1 << 27)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / min(ms(device, lambda: target.copy_(source)) for _ in range(8)) * 1000


def arithmetic(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second (a product and a sum are two) of a large matrix product: the best of a few."""
    size = 8192 if device.type == "cuda" else 512
    a = torch.ones(size, size, device=device, dtype=dtype)
    return 2 * size**3 / min(ms(device, lambda: a @ a) for _ in range(8)) * 1000


def nbytes(*parts: nn.Module | Tensor) -> int:
    """Of all tensors in them."""
    total = 0
    for part in parts:
        tensors = [part] if isinstance(part, Tensor) else part.state_dict().values()
        total += sum(tensor.nbytes for tensor in tensors)
    return total


def _attention(stack: StackConfig, context: int) -> int:
    """Products of one position with everything before it."""
    return 2 * stack.layers * stack.heads * stack.head_dim * context


def codec_operations(config: ChromaConfig) -> int:
    """Operations to decode one frame, as torch counts them."""
    codec = checkpoint.blueprint(config).codec_model
    with torch.inference_mode():
        codes = torch.zeros(1, config.codebooks, 1, dtype=torch.long, device="meta")
        stream = codec.decoding(1, 1, config.codec.window)
        stream.cache.kernels = False  # what is counted is torch's
        with FlopCounterMode(display=False) as counted:
            codec.decode(codes, stream, torch.zeros(1, dtype=torch.long, device="meta"))
    return int(counted.get_total_flops())


@dataclass(slots=True)
class Floor:
    """The least for one frame of `calls`; `context` and `reply` are live positions of each."""

    model: Chroma
    rate: float
    """bytes per second"""
    speed: float = float("inf")
    """operations per second"""

    def ms(self, part: str, context: int, reply: int, calls: int = 1) -> float:
        """Of one working of the part."""
        by_bytes = self.bytes(part, context, reply, calls) / self.rate
        return 1000 * max(by_bytes, self.operations(part, context, reply, calls) / self.speed)

    def frame_ms(self, context: int, reply: int, calls: int = 1) -> float:
        """Of a frame while text flows."""
        return sum(PER_FRAME[part] * self.ms(part, context, reply, calls) for part in PARTS)

    def bytes(self, part: str, context: int, reply: int, calls: int = 1) -> int:
        """Weights once, each call's live keys and values once."""
        model = self.model
        config, size = model.config, model.kv_dtype.itemsize
        if part == "Reasoner":
            weights = nbytes(model.thinker.model.layers, model.thinker.lm_head)
            return weights + calls * context * config.thinker.kv_floats * size
        if part == "Backbone":
            return nbytes(model.backbone) + calls * reply * config.backbone.kv_floats * size
        if part == "Decoder":
            every = nbytes(model.decoder.model, model.decoder.projection)
            return every * (config.codebooks - 1) + nbytes(model.decoder.codebook_head)
        codec = model.codec_model
        weights = nbytes(codec.upsample, codec.decoder_transformer, codec.decoder)
        kv = 2 * config.codec.layers * config.codec.kv_heads * config.codec.head_dim * config.codec.window
        return weights + calls * kv * codec.downsample.conv.weight.itemsize

    def operations(self, part: str, context: int, reply: int, calls: int = 1) -> int:
        """A product and a sum are two."""
        config = self.model.config
        if part == "Reasoner":
            stack = config.thinker
            one = stack.products + stack.hidden * stack.vocab + _attention(stack, context)
        elif part == "Backbone":
            stack = config.backbone
            one = POSITIONS * (stack.products + _attention(stack, reply))
            one += stack.hidden * config.codebook_vocab
        elif part == "Decoder":
            stack = config.decoder
            projection = config.backbone.hidden * stack.hidden
            one = config.codebooks * (stack.products + projection + _attention(stack, config.codebooks))
            one += (config.codebooks - 1) * stack.hidden * config.codebook_vocab
        else:
            return calls * codec_operations(config)
        return 2 * calls * one

    def roofline(self, context: int, reply: int, calls: int) -> Iterator[str]:
        """The lines to print: where a frame's time must go."""
        yield (
            f"{f'a frame of {calls} call(s) needs':<36}{'MB':>12}{'GFLOP':>12}{'ms, bytes':>12}"
            f"{'ms, products':>14}"
        )
        sums = [0.0] * 4
        for part in PARTS:
            often = PER_FRAME[part]
            read = often * self.bytes(part, context, reply, calls)
            made = often * self.operations(part, context, reply, calls)
            line = [read / 1e6, made / 1e9, read / self.rate * 1000, made / self.speed * 1000]
            sums = [a + b for a, b in zip(sums, line, strict=True)]
            title = part if often == 1 else f"{part} (every second frame)"
            yield self._line(f"  {title}", line)
        yield self._line("= sum", sums)

    @staticmethod
    def _line(title: str, of: list[float]) -> str:
        return f"{title:<36}{of[0]:>12,.1f}{of[1]:>12,.2f}{of[2]:>12.3f}{of[3]:>14.3f}"
