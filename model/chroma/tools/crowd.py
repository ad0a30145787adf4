"""Many calls at once: a frame's time by their number, and the first sound of one that joins them.

All of them speak, half of them a frame behind the others, each with the same live context. Weights and
lengths decide the time, so prompts and voices are drawn.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from model.chroma.network.hearing import EAR_HZ, Ear, Mel
from model.chroma.network.quirks import SERVING
from model.chroma.network.sampling import Sampling
from model.chroma.network.weights import Chroma
from model.chroma.serving.plan import Ending
from model.chroma.serving.reply import Reply, perform
from model.chroma.serving.slots import Slots
from model.chroma.serving.steps import Steps
from model.chroma.tools import floor as floors
from model.chroma.tools.floor import Floor
from model.errors import EngineError

WARM_UP: Final = 6
JOINS: Final = 5
LEFT_S: Final = 1.0
"""Speech that is not prefilled when it ends: half of a 2 s chunk."""
CLOSING: Final = 8
"""Positions of what closes a turn and opens the answer."""


def go_on(steps: Steps, replies: Sequence[Reply]) -> None:
    """Drawn words and codes may say that a reply is over, and are not asked."""
    steps.slots.progress.end.fill_(Ending.GOING)
    steps.slots.progress.text_over.fill_(False)
    for reply in replies:
        reply.end, reply.text_over = None, False


@dataclass(frozen=True, slots=True)
class Measured:
    """One line of the table; ms unless it says otherwise. `peak` in bytes, of the whole process or GPU."""

    calls: int
    median: float
    p99: float
    first_sound: float
    floor: float
    slot_bytes: int
    peak: int


class Crowd:
    """`calls` conversations that speak, and a place for one more. `context`, `reply`: live positions."""

    def __init__(self, model: Chroma, calls: int, context: int, reply: int, frames: int) -> None:
        frames += WARM_UP + 3 * JOINS
        thinker, backbone = context + frames, reply + 4 + 2 * frames
        config = model.config
        if thinker > config.thinker.positions or backbone > config.backbone.positions:
            raise EngineError(
                f"contexts of {context} / {reply} and {frames} frames are more than this model's "
                f"{config.thinker.positions} / {config.backbone.positions} positions"
            )
        self.model, self.context, self.reply = model, context, reply
        self.slots = Slots.make(model, calls + 1, SERVING, context=thinker, reply=backbone)
        self.steps = Steps(model, self.slots, SERVING)
        self._draw = torch.Generator().manual_seed(1)
        self._mel = Mel(model.config.hearing.mels)
        self._replies = [self._seat(slot) for slot in range(calls)]

    def _drawn(self, *shape: int) -> Tensor:
        drawn = torch.randn(*shape, generator=self._draw)
        return drawn.to(self.model.device, self.model.dtype)

    @torch.inference_mode()
    def _seat(self, slot: int) -> Reply:
        """A conversation that stands before its reply."""
        slots = self.slots
        slots.clear(slot)
        for cache, length in ((slots.thinker, self.context - CLOSING), (slots.backbone, self.reply)):
            layers, _, heads, _, dim = cache.keys.shape
            past = self._drawn(layers, heads, length, dim)
            cache.give(slot, past, past)
        self.steps.prefill({slot: self._text()})
        slots.sample(slot, Sampling(seed=slot))
        return Reply(slot, 1 << 20)

    def _text(self) -> Tensor:
        ids = torch.randint(0, self.model.config.im_end, (CLOSING,), generator=self._draw)
        return self.model.thinker.embed(ids.to(self.model.device))

    def frame(self) -> float:
        """The next frame of every call, all in one phase until one is measured; ms."""
        return self._frame(self._replies)

    def _frame(self, replies: Sequence[Reply]) -> float:
        """The next of each; ms."""
        took = floors.ms(self.model.device, lambda: perform(self.steps, replies))
        go_on(self.steps, replies)
        return took

    @torch.inference_mode()
    def _join(self) -> float:
        """From the end of what a caller said to the first sound of the answer, beside all the others."""
        slot = len(self._replies)
        self._seat(slot)
        ear = Ear(self.model.thinker.audio_tower, self._mel)
        ear.push(0.1 * torch.randn(round(LEFT_S * EAR_HZ), generator=self._draw))
        joining = Reply(slot, 1 << 20)

        def first_sound() -> None:
            ear.finish()
            if (wanted := ear.wanted()) is not None:
                ear.learn(wanted, self.steps.encoder(wanted.mels))
            heard = ear.heard()
            self.slots.thinker.cut(slot, self.context - CLOSING - len(heard))
            self.steps.prefill({slot: torch.cat((heard, self._text()))})
            perform(self.steps, [*self._replies, joining])

        found = floors.ms(self.model.device, first_sound)
        go_on(self.steps, self._replies)
        return found

    def measure(self, floor: Floor, frames: int) -> Measured:
        """A frame's time over so many of them."""
        replies = self._replies
        self._frame(replies[: (len(replies) + 1) // 2])
        for _ in range(WARM_UP):
            self._frame(replies)
        # a graph is captured when its shape is first met: two joins find the two phases
        joins = [self._join() for _ in range(2 + JOINS)][2:]
        times = sorted(self._frame(replies) for _ in range(frames))
        return Measured(
            calls=len(replies),
            median=statistics.median(times),
            p99=times[min(len(times) - 1, int(0.99 * len(times)))],
            first_sound=statistics.median(joins),
            floor=floor.frame_ms(self.context, self.reply + frames, len(replies)),
            slot_bytes=self.slots.nbytes // self.slots.count,
            peak=floors.peak(self.model.device),
        )


def table(model: Chroma, numbers: Sequence[int], context: int, reply: int, frames: int) -> Iterator[Measured]:
    """One line for each number of calls, up to what fits."""
    floor = Floor(model, floors.bandwidth(model.device), floors.arithmetic(model.device, model.dtype))
    for calls in numbers:
        try:
            yield Crowd(model, calls, context, reply, frames).measure(floor, frames)
        except torch.OutOfMemoryError:
            return


HEAD: Final = (
    f"{'calls':>6}{'p50 ms':>10}{'p99 ms':>10}{'ms/call':>10}{'join ms':>10}{'floor ms':>10}{'x floor':>9}"
    f"{'headroom':>10}{'slots MiB':>11}{'peak MiB':>10}"
)
"""`join`: from the end of speech to the first sound of a call that joins; `headroom`: a frame by its p99."""


def line(of: Measured, frame_s: float) -> str:
    return (
        f"{of.calls:>6}{of.median:>10.2f}{of.p99:>10.2f}{of.median / of.calls:>10.3f}{of.first_sound:>10.2f}"
        f"{of.floor:>10.2f}{of.median / of.floor:>9.1f}{frame_s * 1000 / of.p99:>9.1f}x"
        f"{of.calls * of.slot_bytes / 2**20:>11,.1f}{of.peak / 2**20:>10,.0f}"
    )


def plot(found: Sequence[Measured], frame_s: float, path: Path) -> None:
    """The table as a picture. Raises `ModuleNotFoundError` without matplotlib (the extra `plot`)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    calls = [of.calls for of in found]
    for label, values in (
        ("frame, p50", [of.median for of in found]),
        ("frame, p99", [of.p99 for of in found]),
        ("first sound of one that joins", [of.first_sound for of in found]),
        ("floor", [of.floor for of in found]),
    ):
        axes.plot(calls, values, marker="o", label=label)
    axes.axhline(frame_s * 1000, color="grey", linestyle="--", label="real time")
    axes.set(xlabel="calls", ylabel="ms", xscale="log", yscale="log")
    axes.legend()
    figure.savefig(path)
