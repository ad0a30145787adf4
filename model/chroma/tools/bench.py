"""The report's table for one call: where the time to the first sound goes, ms per frame, prefill, memory.

Every part is timed with the device idle before and after it, and without a graph; the whole frame as it is
served. Beside each figure stands its floor in bytes.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

from model.chroma.network import checkpoint, config
from model.chroma.network.hearing import EAR_HZ, Ear, Mel
from model.chroma.network.quirks import SERVING
from model.chroma.network.sampling import Sampling
from model.chroma.network.weights import Chroma
from model.chroma.serving import voices
from model.chroma.serving.plan import Shape
from model.chroma.serving.reply import Reply, perform
from model.chroma.serving.slots import Seats, Slots
from model.chroma.serving.steps import Steps
from model.chroma.serving.voices import Voice
from model.chroma.tools.crowd import WARM_UP, go_on
from model.chroma.tools.floor import PARTS, PER_FRAME, Floor, bandwidth, idle, ms, nbytes, peak

SIZES: Final = {"4b": config.FULL_SIZE}
SYSTEM: Final = 24
"""Positions of a system prompt and of what stands around a sound."""
REFERENCE_S: Final = 6.0
PIECE: Final = 320


def random_model(size: str, device: torch.device, dtype: torch.dtype) -> Chroma:
    """A model of full size with drawn weights: its speed is that of the real one, its words are not."""
    model = checkpoint.blueprint(config.parse(json.loads(SIZES[size].read_text()), size))
    draw = torch.Generator(device).manual_seed(0)
    block = 0.02 * torch.randn(1 << 20, generator=draw, device=device)
    for name, like in model.state_dict().items():
        kind = torch.float32 if name.startswith("codec_model.") else dtype
        tensor = torch.empty(like.shape, device=device, dtype=kind)
        flat = tensor.view(-1)
        for at in range(0, len(flat), len(block)):
            flat[at : at + len(block)] = block[: len(flat) - at]
        if name.endswith(("norm.weight", "layernorm.weight", "layer_norm.weight", "cluster_usage")):
            tensor.fill_(1.0)
        checkpoint.place(model, name, tensor)
    return model.eval()


class Clock:
    """Times parts of a step by name, in ms; the device is idle at both ends."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.found: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        idle(self._device)
        began = time.perf_counter()
        yield
        idle(self._device)
        self.found[name].append((time.perf_counter() - began) * 1000)


class TimedSteps(Steps):
    """Steps that time their parts while there is a `clock`."""

    clock: Clock | None = None

    @property
    def observed(self) -> bool:
        return self.clock is not None or super().observed

    def _time(self, part: str) -> AbstractContextManager[None]:
        return nullcontext() if self.clock is None else self.clock.time(part)

    def think(self, shape: Shape, at: Seats, on: Tensor) -> None:
        with self._time("Reasoner"):
            super().think(shape, at, on)

    def backbone(self, shape: Shape, at: Seats, x: Tensor, starts: Tensor, counts: Tensor) -> Tensor:
        with self._time("Backbone"):
            return super().backbone(shape, at, x, starts, counts)

    def codes(self, shape: Shape, at: Seats, state: Tensor, on: Tensor) -> Tensor:
        with self._time("Decoder"):
            return super().codes(shape, at, state, on)

    def sound(self, shape: Shape, at: Seats, heard: Tensor) -> Tensor:
        with self._time("codec"):
            return super().sound(shape, at, heard)


@dataclass(slots=True)
class Figures:
    """What was measured; ms unless it says otherwise."""

    first: dict[str, float] = field(default_factory=dict)
    """a reply's beginning after speech that was prefilled while it was spoken, by part"""
    first_whole: float = 0.0
    """the Reasoner's share when nothing was prefilled"""
    frame: dict[str, float] = field(default_factory=dict)
    """mean per frame, by part; the Reasoner works in every second"""
    together: float = 0.0
    """a frame without stops between the parts"""
    prefill: list[tuple[float, float, float]] = field(default_factory=list)
    """(seconds of speech, all of it at the end, what is left at the end)"""
    context: int = 0
    reply: int = 0


class Bench:
    """One conversation on an otherwise idle model."""

    def __init__(self, model: Chroma, context: int = 4096) -> None:
        self.model = model
        self.slots = Slots.make(model, 1, SERVING, context=context)
        self.steps = TimedSteps(model, self.slots, SERVING)
        self._mel = Mel(model.config.hearing.mels)
        self._draw = torch.Generator().manual_seed(1)
        self._voice = self._make_voice()
        self._reply = Reply(0, 0)

    def _make_voice(self) -> Voice:
        model = self.model
        frames = round(REFERENCE_S / model.config.frame_s)
        pcm = 0.1 * torch.randn(frames * model.config.codec.frame, generator=self._draw)
        codes = voices.encode(model, pcm.to(model.device), SERVING, 25)
        return voices.prepare(model, torch.zeros(20, dtype=torch.long, device=model.device), codes)

    def _text(self, count: int) -> Tensor:
        ids = torch.randint(0, self.model.config.im_end, (count,), generator=self._draw)
        return self.model.thinker.embed(ids.to(self.model.device))

    def _speech(self, seconds: float) -> Tensor:
        """Loudest at its beginning, as speech that is encoded once is."""
        sound = 0.1 * torch.randn(round(seconds * EAR_HZ), generator=self._draw)
        sound[:1000] *= 5
        return sound

    @torch.inference_mode()
    def hear(self, seconds: float, streamed: bool) -> float:
        """ms from the end of speech until the thinker stands before the answer's first word."""
        slots, steps = self.slots, self.steps
        slots.clear(0)
        steps.prefill({0: self._text(SYSTEM)})
        ear, sound = Ear(self.model.thinker.audio_tower, self._mel), self._speech(seconds)

        if streamed:
            for piece in torch.split(sound, PIECE):
                ear.push(piece)
                steps.hear(0, ear, SYSTEM)

        def rest() -> None:
            if not streamed:
                ear.push(sound)
            ear.finish()
            steps.hear(0, ear, SYSTEM)
            steps.prefill({0: self._text(8)})

        return ms(self.model.device, rest)

    @torch.inference_mode()
    def begin(self, clock: Clock) -> None:
        """The first frame; its word is there."""
        voices.lend(self._voice, self.slots, 0)
        self.slots.sample(0, Sampling())
        self._reply = Reply(0, 1 << 20)
        self._next(clock)

    def _next(self, clock: Clock | None) -> None:
        """A frame further; the drawn words and codes may say that it is over, and are not asked."""
        self.steps.clock = clock
        perform(self.steps, [self._reply])
        self.steps.clock = None
        go_on(self.steps, [self._reply])

    def _untimed(self, frames: int) -> None:
        for _ in range(frames):
            self._next(None)

    def run(self, frames: int, speech_s: float, lengths: Sequence[float], repeats: int = 5) -> Figures:
        """Everything, one after the other."""
        figures = Figures()
        self.hear(speech_s, streamed=True)  # the first time pays for libraries' set-up
        self.begin(Clock(self.model.device))
        rests, wholes, firsts = [], [], defaultdict(list)
        for _ in range(repeats):
            wholes.append(self.hear(speech_s, streamed=False))
            rests.append(self.hear(speech_s, streamed=True))
            clock = Clock(self.model.device)
            self.begin(clock)
            for part in PARTS[1:]:
                firsts[part].append(clock.found[part][0])
        figures.first = {"Reasoner": statistics.median(rests)}
        figures.first.update({part: statistics.median(firsts[part]) for part in PARTS[1:]})
        figures.first_whole = statistics.median(wholes)
        self._untimed(WARM_UP)
        clock = Clock(self.model.device)
        for _ in range(frames):
            self._next(clock)
        figures.frame = {part: sum(clock.found[part]) / frames for part in PARTS}
        figures.context, figures.reply = self.slots.thinker.lengths[0], self.slots.backbone.lengths[0]
        self._untimed(2)  # graphs are captured when their shapes are met
        figures.together = ms(self.model.device, lambda: self._untimed(frames)) / frames
        for seconds in lengths:
            all_, left = (
                statistics.median(self.hear(seconds, streamed) for _ in range(3))
                for streamed in (False, True)
            )
            figures.prefill.append((seconds, all_, left))
        return figures


def room(model: Chroma) -> int:
    """How many frames a bench can take of one reply, both rounds."""
    prompt = 20 + 3 + round(REFERENCE_S / model.config.frame_s)
    return (model.config.backbone.positions - prompt - 4 * WARM_UP) // 4


def report(model: Chroma, figures: Figures, slots: Slots, title: str, speech_s: float) -> Iterator[str]:
    """The lines to print."""
    device, rate = model.device, bandwidth(model.device)
    floor = Floor(model, rate)
    at = {part: floor.ms(part, figures.context, figures.reply) for part in PARTS}
    gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if gpu else f"CPU, {torch.get_num_threads()} thread(s)"
    dtype = str(model.dtype).removeprefix("torch.")
    yield f"{title} on {name}, torch {torch.__version__}, {dtype}, Mimi float32"
    yield f"a copy reads and writes {rate / 1e9:.1f} GB/s; contexts {figures.context} / {figures.reply}"
    yield from _first(figures, at, speech_s)
    yield from _frames(figures, at, model.config.frame_s)
    yield ""
    yield f"{'seconds of speech':<20}{'prefilled at the end, ms':>28}{'left at the end, ms':>24}"
    for seconds, whole, left in figures.prefill:
        yield f"{seconds:<20g}{whole:>28.2f}{left:>24.2f}"
    yield ""
    weights, slot, most = (size / 2**20 for size in (nbytes(model), slots.nbytes, peak(device)))
    yield f"memory: weights {weights:,.0f} MiB, a slot {slot:,.1f} MiB, peak {most:,.0f} MiB"


def _first(figures: Figures, at: dict[str, float], speech_s: float) -> Iterator[str]:
    """The beginning of a reply."""
    yield ""
    yield f"{f'first sound after {speech_s:g} s of speech':<44}{'ms':>9}{'floor':>9}"
    labels = ("Reasoner (rest of the prefill, first word)", *PARTS[1:])
    for part, label in zip(PARTS, labels, strict=True):
        if part == "codec":
            codes = sum(figures.first[p] for p in PARTS[:3])
            yield f"{'= first codes (TTFT)':<44}{codes:>9.2f}{sum(at[p] for p in PARTS[:3]):>9.2f}"
        yield f"  {label:<42}{figures.first[part]:>9.2f}{at[part]:>9.2f}"
    total = sum(figures.first.values())
    yield f"{'= first sound':<44}{total:>9.2f}{sum(at.values()):>9.2f}"
    without = total - figures.first["Reasoner"] + figures.first_whole
    yield f"{'  first sound with nothing prefilled':<44}{without:>9.2f}"


def _frames(figures: Figures, at: dict[str, float], frame_s: float) -> Iterator[str]:
    """A frame in the middle of a reply."""
    yield ""
    yield f"{'per frame, text flowing':<44}{'ms':>9}{'floor':>9}{'x floor':>9}"
    floors = {part: at[part] * PER_FRAME[part] for part in PARTS}
    lines = [(f"  {part}", figures.frame[part], floors[part]) for part in PARTS]
    lines[0] = ("  Reasoner (every second frame)", *lines[0][1:])
    total = sum(floors.values())
    lines.append(("= sum", sum(figures.frame.values()), total))
    lines.append(("  without stops between the parts", figures.together, total))
    for label, took, least in lines:
        yield f"{label:<44}{took:>9.2f}{least:>9.2f}{took / least:>9.1f}"
    yield f"{'  real-time factor':<44}{figures.together / (frame_s * 1000):>9.4f}"
