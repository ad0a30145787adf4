"""How many conversations an engine takes: measured at its start, watched while it runs.

A frame must be there in 80 ms. At the start steps of 1, 2, 4, … replies are timed with full contexts, and as
many conversations are taken as keep a step, with all of them speaking at once, within `SHARE` of that. Memory
may end it sooner. While it runs, one more is refused when the frames of late say that it would not keep time.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import torch

from model import own_process
from model.api import ALL_IT_TAKES
from model.chroma.network.quirks import Quirks
from model.chroma.network.sampling import Sampling
from model.chroma.network.weights import Chroma
from model.chroma.serving import voices
from model.chroma.serving.conductor import speak
from model.chroma.serving.fates import give_back
from model.chroma.serving.meters import Meters
from model.chroma.serving.reply import Reply
from model.chroma.serving.slots import Positions, Slots
from model.chroma.serving.steps import Steps
from model.errors import CheckpointError

SHARE: Final = 0.85
"""The part of a frame's 80 ms that a step with everybody speaking may take. Nobody is heard then except
callers who break in, and the rest is for them."""
MEMORY_SHARE: Final = 0.9
"""Of what is free after the weights; the rest is what steps need to work in."""
FIRST_SOUND_S: Final = 0.25
"""When even the slowest answers but 5 of 100 begin; behind that new speech waits for its turn."""
MOST: Final = 1024
REPLY: Final = 800
"""Positions of the backbone at which steps are timed: half a minute of speech, after its voice."""
PREFILL: Final = 256
WARM_UP: Final = 2
TIMED: Final = 8
"""Steps, by turns with a word for each reply and with none (`Steps`)."""

Bound = Literal["set", "memory", "time"]
Point = tuple[int, float]
"""(replies in a step, seconds)"""


@dataclass(frozen=True, slots=True)
class Capacity:
    """`bound`: what ended it; `points`: what was measured."""

    conversations: int
    bound: Bound = "set"
    points: tuple[Point, ...] = ()

    @property
    def per_call_s(self) -> float:
        """What one more reply adds to a step."""
        return fit(self.points)[1] if len(self.points) > 1 else 0.0

    @property
    def why(self) -> str:
        """What limits the number of conversations, as a refused caller is told it."""
        return {
            "set": ALL_IT_TAKES,
            "memory": "all that memory holds",
            "time": "all that keep a frame in its time",
        }[self.bound]

    def late(self, meters: Meters, now: float, frame_s: float) -> str | None:
        """Why one more would not keep time, if what was measured of late says so."""
        frame = meters.frame_p99_s(now)
        if frame is not None and frame + self.per_call_s > frame_s:
            return (
                f"time: 99 of 100 frames take up to {1000 * frame:.0f} ms now, and one more conversation "
                f"would push that past {1000 * frame_s:.0f} ms"
            )
        first = meters.first_sound_p95_s(now)
        if first is not None and first > FIRST_SOUND_S:
            return f"time: 5 of 100 answers begin to sound after {1000 * first:.0f} ms or more now"
        return None


def fit(points: Sequence[Point]) -> tuple[float, float]:
    """(seconds of a step, seconds that each reply adds) by least squares; neither below 0."""
    slope, base = statistics.linear_regression(*zip(*points, strict=True))
    return max(0.0, base), max(0.0, slope)


def capacity(points: Sequence[Point], limit_s: float) -> Capacity:
    """As many as keep a step below `limit_s`, between the sizes that were timed. `points` ascend and end with
    the first that is over the limit, or with as many as memory holds."""
    many, slow = points[-1]
    if slow <= limit_s:
        return Capacity(many, "memory", tuple(points))
    if len(points) == 1:
        return Capacity(1, "time", tuple(points))
    few, fast = points[-2]
    between = int((limit_s - fast) / (slow - fast) * (many - few))
    return Capacity(few + between, "time", tuple(points))


def find(
    model: Chroma, quirks: Quirks, context: int, voices_bytes: int, promised: Positions | None = None
) -> Capacity:
    """Measures on the model's device, contexts filled as far as each conversation is promised to have them.

    Raises `CheckpointError` when there is no room for one.
    """
    one, two = (
        Slots.make(model, count, quirks, context=context, promised=promised).nbytes for count in (1, 2)
    )
    slot_bytes = two - one  # what all share is not a slot's
    give_back(model.device)
    fits = memory_fits(slot_bytes, voices_bytes, free_bytes(model.device))
    if not fits:
        raise CheckpointError(
            f"a conversation takes {slot_bytes >> 20} MiB and voices {voices_bytes >> 20} MiB: more than is "
            f"left on {model.device}; lower VOICEGATE_CHROMA_CONTEXT"
        )
    limit_s = SHARE * model.config.frame_s
    full, reply = context, None
    if promised is not None:
        full, reply = min(context, promised.context), promised.reply
    return capacity(measure(model, quirks, full, fits, limit_s, reply), limit_s)


def measure(
    model: Chroma, quirks: Quirks, context: int, fits: int, limit_s: float, reply: int | None = None
) -> list[Point]:
    """Times steps of 1, 2, 4, … replies, up to `fits` or until one is over the limit.

    `reply`: the backbone's positions of each (None: all that the model knows).

    What one trial took is free before the next: each of them takes the memory of its slots anew.
    """
    points: list[Point] = []
    count = 1
    while True:
        seconds = _trial(model, quirks, context, count, reply)
        if seconds is None and not points:
            raise CheckpointError(
                f"a step of one reply needs more memory than {model.device} has beside the weights and one "
                "conversation; lower VOICEGATE_CHROMA_CONTEXT"
            )
        if seconds is None:
            return points  # steps need more to work in than was left for them
        points.append((count, seconds))
        own_process.prepares(
            "trials", len(points), (fits - 1).bit_length() + 1, replies=count, seconds=round(seconds, 4)
        )
        if count == fits or seconds > limit_s:
            return points
        count = min(2 * count, fits)


def _trial(model: Chroma, quirks: Quirks, context: int, count: int, reply: int | None) -> float | None:
    """Seconds of a step of `count` replies; None when memory does not hold it."""
    try:
        return of_a_step(time_steps(model, quirks, context, count, reply))
    except torch.OutOfMemoryError:
        return None
    finally:
        give_back(model.device)


def of_a_step(seconds: Sequence[float]) -> float:
    """The middle of what each two in turn take on average: one has words and the other none."""
    return statistics.median(statistics.fmean(two) for two in itertools.pairwise(seconds))


@torch.inference_mode()
def time_steps(
    model: Chroma, quirks: Quirks, context: int, count: int, reply: int | None = None
) -> list[float]:
    """Seconds of some steps of `count` replies whose contexts are full. Half of them take a word in at each
    step, as callers do who began at different times; all are given one at every second step."""
    slots = Slots.make(model, count, quirks, context=context, reply=reply)
    steps = Steps(model, slots, quirks)
    _fill(model, slots, steps)
    for slot in range(count):
        slots.sample(slot, Sampling())
    words = [0] * (WARM_UP + TIMED)  # so that no text ends
    replies = [Reply(slot, 1 << 20, words) for slot in range(count)]
    speak(steps, replies[::2])
    found = []
    for _ in words:
        began = time.perf_counter()
        speak(steps, replies)
        found.append(time.perf_counter() - began)
    return found[WARM_UP:]


def _fill(model: Chroma, slots: Slots, steps: Steps) -> None:
    """Every slot as in the middle of a long reply."""
    room = 2 * (WARM_UP + TIMED)
    thinker, backbone = slots.thinker.capacity - room, min(REPLY, slots.backbone.capacity - 2 * room)
    ids = torch.zeros(max(1, thinker), dtype=torch.long, device=model.device)
    for part in torch.split(model.thinker.embed(ids), PREFILL):
        steps.prefill({0: part})
    codes = torch.zeros(max(1, backbone - 3), model.config.codebooks, dtype=torch.long, device=model.device)
    voice = voices.prepare(model, ids[:1], codes)
    known = slots.thinker.take(0, slots.thinker.lengths[0])
    for slot in range(slots.count):
        if slot:
            slots.thinker.give(slot, *known)
            slots.hidden[slot] = slots.hidden[0]
        voices.lend(voice, slots, slot)


def memory_fits(slot_bytes: int, voices_bytes: int, free_bytes: int) -> int:
    """Conversations for which there is memory besides the voices'."""
    return max(0, min(MOST, int((MEMORY_SHARE * free_bytes - voices_bytes) / slot_bytes)))


def free_bytes(device: torch.device) -> int:
    """Memory that nobody has taken yet."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
