"""What `gpu_check` measures: frames of many calls, the gaps between kernels, admission."""

from __future__ import annotations

import statistics
import time
from contextlib import suppress
from functools import partial
from typing import Any, Final

import torch

from model.chroma.network.hearing import EAR_HZ, Ear, Mel
from model.chroma.network.quirks import SERVING
from model.chroma.network.weights import Chroma
from model.chroma.serving import admission
from model.chroma.serving.chunk_encoder import ChunkEncoder
from model.chroma.serving.fates import give_back
from model.chroma.serving.slots import Slots
from model.chroma.serving.steps import Steps
from model.chroma.tools import crowd
from model.chroma.tools import floor as floors
from model.chroma.tools.floor import PARTS, Floor
from model.chroma.tools.gpu_job import Job, Size

CALLS: Final[dict[Size, tuple[int, ...]]] = {"full": (1, 64, 400, 8, 256, 128), "small": (1, 4)}
"""The most telling first."""
CONTEXT: Final = {"full": 1000, "small": 64}
REPLY: Final = {"full": 800, "small": 40}
FRAMES: Final = {"full": 60, "small": 6}
PREFILLED: Final = 50
"""Positions of each slot in a timed prefill: two seconds of speech."""
TRIALS_CONTEXT: Final = {"full": 2048, "small": 128}


def crowds(job: Job) -> None:
    """Frames of many calls at once, as far as memory and time go."""
    model, size = job.model(), job.size
    floor = Floor(model, floors.bandwidth(job.device), floors.arithmetic(job.device, model.dtype))
    took: dict[int, float] = {}
    for calls in CALLS[size]:
        spent = max((seconds * max(1.0, calls / done) for done, seconds in took.items()), default=0.0)
        if spent > job.left_s:
            job.tell(f"{calls} calls", left_out=f"would take {spent:.0f} s of the {job.left_s:.0f} s left")
            continue
        began = time.monotonic()
        job.do(f"{calls} calls", partial(_crowd, model, calls, size, floor))
        give_back(job.device)
        took[calls] = time.monotonic() - began


def _crowd(model: Chroma, calls: int, size: Size, floor: Floor) -> dict[str, Any]:
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
    try:
        among = crowd.Crowd(model, calls, CONTEXT[size], REPLY[size], FRAMES[size])
        of = among.measure(floor, FRAMES[size])
    except torch.OutOfMemoryError:
        return {"why": "does not fit into memory"}
    return {
        "p50 ms": of.median, "p99 ms": of.p99, "join ms": of.first_sound, "floor ms": of.floor,
        "slot MB": of.slot_bytes / 1e6, "peak GB": of.peak / 1e9,
    }  # fmt: skip


def gaps(job: Job) -> None:
    """From kernel to kernel of a step's graph, and what prefill and the audio encoder take."""
    model = job.model()
    rate = floors.bandwidth(job.device)
    for calls in (1, 16) if job.size == "full" else (1, 2):
        job.do(f"steps of {calls}", partial(_steps, model, calls, job.size, rate))
    for slots in (1, 5):
        job.do(f"prefill of {slots}", partial(_prefill, model, slots))
    for chunks in (1, 2):
        job.do(f"encoder, {chunks} chunk(s)", partial(_encoder, model, chunks))


def _steps(model: Chroma, calls: int, size: Size, rate: float) -> dict[str, Any]:
    """Steps of replies in one phase: by turns words come in, and the thinker goes on."""
    among = crowd.Crowd(model, calls, CONTEXT[size], REPLY[size], FRAMES[size])
    times = [among.frame() for _ in range(4 + 2 * (FRAMES[size] // 2))][4:]
    found: dict[str, Any] = {}
    for name, words, of in (("pairs", False, times[::2]), ("words", True, times[1::2])):
        ms = statistics.median(of)
        moved = sum(
            Floor(model, rate).bytes(part, CONTEXT[size], REPLY[size], calls)
            for part in PARTS
            if words or part != "Reasoner"
        )
        found |= {f"{name} ms": ms, f"{name} MB": moved / 1e6}
        nodes = _nodes(model, calls, words=words)
        if nodes is not None:
            found |= {f"{name} nodes": nodes, f"{name} gap us": 1000 * (ms - 1000 * moved / rate) / nodes}
    return {**found, "rows": calls, "context": CONTEXT[size], "reply": REPLY[size]}


def _nodes(model: Chroma, calls: int, *, words: bool) -> int | None:
    """Kernels of a step, counted on shapes; None without triton, which counting takes."""
    with suppress(ImportError):
        import triton  # noqa: F401  # whether it is there

        from model.chroma.tools import launches

        steps = launches.steps_on_paper(launches.on_paper(model.config, model.dtype), calls)
        return launches.of_step(steps, calls, words=words, pairs=not words).total
    return None


@torch.inference_mode()
def _prefill(model: Chroma, slots: int) -> dict[str, Any]:
    """A pass at a width that nobody had before, and again: what the first adds is compiling."""
    steps = Steps(model, Slots.make(model, slots, SERVING, context=8 * PREFILLED), SERVING)
    ids = torch.zeros(PREFILLED + 3, dtype=torch.long, device=model.device)
    x = model.thinker.embed(ids)

    def once(width: int) -> float:
        for slot in range(slots):
            steps.slots.clear(slot)
        fresh = {slot: x[:width] for slot in range(slots)}
        return floors.ms(model.device, lambda: steps.prefill(fresh))

    once(PREFILLED)
    again = statistics.median(once(PREFILLED) for _ in range(7))
    return {"ms": again, "ms at a new width": once(PREFILLED + 3), "slots": slots, "positions": PREFILLED}


@torch.inference_mode()
def _encoder(model: Chroma, chunks: int) -> dict[str, Any]:
    mel = Mel(model.config.hearing.mels)
    sound = 0.1 * torch.randn(chunks * 2 * EAR_HZ + 400, generator=torch.Generator().manual_seed(1))

    encoder = ChunkEncoder(model.thinker.audio_tower)
    ear = Ear(model.thinker.audio_tower, mel)
    ear.push(sound)
    wanted = ear.wanted()
    mels = [] if wanted is None else wanted.mels

    def once() -> float:
        return floors.ms(model.device, lambda: encoder(mels))

    first = once()
    return {"ms": statistics.median(once() for _ in range(7)), "first ms": first, "chunks": len(mels)}


def admitted(job: Job) -> None:
    """What `auto` would take, and how much memory each of its trials leaves behind."""
    model, size = job.model(), job.size
    voices = 2 << 30 if size == "full" else 1 << 20
    before = admission.free_bytes(job.device)
    job.tell("before", **{"free GB": before / 1e9})
    job.do("auto", partial(_auto, model, TRIALS_CONTEXT[size], voices))
    give_back(job.device)
    left = before - admission.free_bytes(job.device)
    job.tell("after", **{"kept GB": left / 1e9}, **_kept(job.device, left))


def _kept(device: torch.device, left: int) -> dict[str, Any]:
    """Trials must give back what they took; a GPU's libraries keep something."""
    return {"passed": left < 2 << 30} if device.type == "cuda" else {}


def _auto(model: Chroma, context: int, voices_bytes: int) -> dict[str, Any]:
    began = time.monotonic()
    found = admission.find(model, SERVING, context, voices_bytes)
    return {
        "conversations": found.conversations, "bound": found.bound, "context": context,
        "seconds": time.monotonic() - began,
        "points": [(count, round(1000 * seconds, 3)) for count, seconds in found.points],
    }  # fmt: skip
