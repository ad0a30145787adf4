"""Graphs against the step itself: the same conversations twice, replayed and called eagerly.

Both run over the same padded rows, so words and codes must be equal, whatever the precision, and sound as
near as rounding. Serving runs graphs only, and `golden` follows a step by its trace, which a graph has not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from model.chroma.network.quirks import SERVING
from model.chroma.network.sampling import Sampling
from model.chroma.network.weights import Chroma
from model.chroma.serving import voices
from model.chroma.serving.graph_capture import GraphRecorder
from model.chroma.serving.reply import End, Frame, Reply, perform
from model.chroma.serving.slots import Slots
from model.chroma.serving.steps import Steps
from model.chroma.serving.voices import Voice
from model.chroma.tools import golden
from model.chroma.tools.golden import WAVE, Case, Form, Verdict
from model.chroma.tools.tape import CallRecorder, graphs

FRAMES: Final = 50
PROMPTS: Final = (5, 11, 17)
"""Thinker positions before an answer, by turns."""
CLIPS: Final = (3, 6)
"""Frames of the voices' clips, by turns."""
ANSWERS: Final = (9, 23, 14, 40)
"""Frames of the answers, by turns."""
SAMPLERS: Final = (Sampling(0.0), Sampling(0.7, 50), Sampling(1.0, 0, 0.9))
RESTS: Final = 0.2
"""Of the steps that a reply is left out of."""


@torch.inference_mode()
def verify(model: Chroma, cases: Sequence[Case], form: Form, *, official: bool) -> list[Verdict]:
    """Cases that run at once; `official`: the recorded words and codes must come, too."""
    replayed = golden.play(golden.stand(model, cases, graphs(model.device)), cases, form)
    called = golden.play(golden.stand(model, cases, CallRecorder(model.device)), cases, form)
    found = []
    for case, ours, eager in zip(cases, replayed, called, strict=True):
        verdict = Verdict(case.name, form)
        verdict.equal["words"] = ours.reply.words == eager.reply.words
        codes = [one.tolist() for one in ours.codes]
        verdict.equal["codes"] = codes == [one.tolist() for one in eager.codes]
        verdict.equal["end"] = ours.reply.end == eager.reply.end
        if official:
            verdict.equal["official"] = (
                ours.reply.words == case["text_tokens"].tolist() and codes == case["all_step_codes"].tolist()
            )
        verdict.errors["wave"] = error(ours.wave.numpy(), eager.wave.numpy())
        found.append(verdict)
    return found


@dataclass(frozen=True, slots=True)
class Company:
    """What calls in each other's company showed: `differs` says where replay and call first parted (None:
    nowhere), `sound` the largest difference of the sound before that, `frames` how many were compared."""

    calls: int
    frames: int
    sound: float
    differs: str | None

    @property
    def passed(self) -> bool:
        return self.differs is None and self.sound <= WAVE


def company(model: Chroma, calls: int, frames: int = FRAMES) -> Company:
    """So many calls that begin one after the other, rest, end and begin again, for so many frames."""
    both = zip(
        _talk(model, calls, frames, graphs(model.device)),
        _talk(model, calls, frames, CallRecorder(model.device)),
        strict=True,
    )
    sound, compared = 0.0, 0
    for replayed, called in both:
        if parted := replayed.parted(called):
            return Company(calls, compared, sound, f"frame {compared}, {parted}")
        sound = max(sound, error(replayed.pcm, called.pcm))
        compared += 1
    return Company(calls, compared, sound, None)


@dataclass(frozen=True, slots=True)
class _Moment:
    """One step: a row for each reply that took part."""

    slots: list[int]
    words: list[int | None]
    codes: list[list[int] | None]
    ends: list[End | None]
    pcm: NDArray[Any]

    def parted(self, other: _Moment) -> str | None:
        """What is not equal, in which slot."""
        for name in ("words", "codes", "ends"):
            rows = zip(self.slots, getattr(self, name), getattr(other, name), strict=True)
            for slot, ours, theirs in rows:
                if ours != theirs:
                    return f"slot {slot}, {name}: replayed {ours}, called {theirs}"
        return None


@torch.inference_mode()
def _talk(model: Chroma, calls: int, frames: int, recorder: GraphRecorder | None) -> Iterator[_Moment]:
    """The steps of drawn conversations; who takes part does not depend on what they say."""
    draw = np.random.default_rng(calls)
    slots = Slots.make(
        model, calls, SERVING,
        context=max(PROMPTS) + frames + 1, reply=max(CLIPS) + 24 + 2 * max(ANSWERS) + 4,
    )  # fmt: skip
    steps = Steps(model, slots, SERVING, recorder=recorder)
    clips = [_voice(model, draw, clip) for clip in CLIPS]
    replies: list[Reply] = []
    begun = 0
    for frame in range(frames):
        for slot in range(min(calls, 1 + frame * calls // (frames // 2))):
            if slot == len(replies) or replies[slot].end is not None:
                replies[slot : slot + 1] = [_begin(steps, slot, begun, draw, clips)]
                begun += 1
        part = [reply for reply in replies if draw.random() >= RESTS] or replies[:1]
        yield _moment(part, perform(steps, part))


def _voice(model: Chroma, draw: np.random.Generator, clip: int) -> Voice:
    config, device = model.config, model.device
    words = torch.from_numpy(draw.integers(0, config.im_end, 4)).to(device)
    codes = torch.from_numpy(draw.integers(1, config.codebook_size, (clip, config.codebooks))).to(device)
    return voices.prepare(model, words, codes)


def _begin(steps: Steps, slot: int, number: int, draw: np.random.Generator, clips: Sequence[Voice]) -> Reply:
    """The slot as new, and a reply of its own kind; every second one is told what to say."""
    model, slots = steps.model, steps.slots
    slots.clear(slot)
    ids = draw.integers(0, model.config.im_end, PROMPTS[number % len(PROMPTS)])
    steps.prefill({slot: model.thinker.embed(torch.from_numpy(ids).to(model.device))})
    voices.lend(clips[number % len(clips)], slots, slot)
    sampler = SAMPLERS[number % len(SAMPLERS)]
    slots.sample(slot, Sampling(sampler.temperature, sampler.top_k, sampler.top_p, seed=number))
    say = [*draw.integers(0, model.config.im_end, 5).tolist(), model.config.im_end] if number % 2 else None
    return Reply(slot, ANSWERS[number % len(ANSWERS)], say)


def _moment(replies: Sequence[Reply], brought: Sequence[Frame]) -> _Moment:
    pcm = [frame.pcm for frame in brought if frame.pcm is not None]
    return _Moment(
        [reply.slot for reply in replies],
        [frame.word for frame in brought],
        [None if frame.codes is None else frame.codes.tolist() for frame in brought],
        [reply.end for reply in replies],
        np.concatenate(pcm) if pcm else np.zeros(0),
    )


def error(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """The largest difference; infinite where the lengths differ or something is no number."""
    if ours.shape != theirs.shape:
        return float("inf")
    worst = float(np.abs(ours - theirs).max(initial=0.0))
    return worst if np.isfinite(worst) else float("inf")
