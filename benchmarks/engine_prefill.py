"""Pieces for several slots in one pass beside one after the other: `python -m benchmarks.engine_prefill`.

Layers of a thinker's size, their weights drawn; a pass is nothing but its layers. One thread on a CPU.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
import torch

from model.chroma.network import config
from model.chroma.network.config import StackConfig
from model.chroma.network.stack import Stack
from model.chroma.tools import floor

PAST: Final = 200
"""Positions that each slot knows."""
WIDTHS: Final = (4, 12, 50)
"""Positions that are new to each: little, the end of an utterance, a chunk of speech."""
SLOTS: Final = (1, 4, 8)
REPEATS: Final = 7


def drawn(of: StackConfig, device: torch.device) -> Stack:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with device:
        stack = Stack(of).to(dtype).requires_grad_(False)
    for parameter in stack.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.dim() == 1 else 0.0, 0.02)
    return stack


@torch.inference_mode()
def measure(stack: Stack, slots: int, width: int) -> tuple[float, float]:
    """Median ms of so many positions for each slot: one after the other, and in one pass; by turns."""
    like = stack.norm.weight
    cache = stack.cache(slots, PAST + width)
    layers, _, heads, _, dim = cache.keys.shape
    for slot in range(slots):
        past = torch.randn(layers, heads, PAST, dim)
        cache.give(slot, past, past)
    fresh = [torch.randn(1, width, stack.config.hidden).to(like.device, like.dtype) for _ in range(slots)]

    def apart() -> None:
        for slot, x in enumerate(fresh):
            stack(x, cache, cache.packed({slot: width}))

    def packed() -> None:
        stack(torch.cat(fresh, dim=1), cache, cache.packed(dict.fromkeys(range(slots), width)))

    def timed(way: Callable[[], None]) -> float:
        took = floor.ms(like.device, way)
        for slot in range(slots):
            cache.cut(slot, PAST)
        return took

    found = [(timed(apart), timed(packed)) for _ in range(1 + REPEATS)][1:]
    return statistics.median(a for a, _ in found), statistics.median(p for _, p in found)


@click.command()
@click.option(
    "--config", "path", type=click.Path(path_type=Path), default=config.FULL_SIZE, help="a config.json"
)
@click.option("--layers", default=2, help="at most so many")
@click.option("--device", default="cpu")
def main(path: Path, layers: int, device: str) -> None:
    """Time packed prefills."""
    torch.set_num_threads(1)
    of = config.read(path).thinker
    stack = drawn(dataclasses.replace(of, layers=min(layers, of.layers)), torch.device(device))
    nbytes = sum(parameter.nbytes for parameter in stack.parameters())
    click.echo(f"{stack.config.layers} layers of {nbytes / 1e6:.1f} MB together, {device}")
    click.echo("slots x positions   one after the other, ms   in one pass   ratio")
    for width in WIDTHS:
        for slots in SLOTS:
            apart, packed = measure(stack, slots, width)
            click.echo(f"{slots:>5} x {width:<11}{apart:>24.1f}{packed:>14.1f}{packed / apart:>8.2f}")


if __name__ == "__main__":
    main()
