"""Goldens: what the official code answered on a checkpoint, and whether this engine answers the same.

Each case runs twice: one-shot (everything that can be done whole is done whole) and streamed (sound in
pieces of 20 ms, encoded and prefilled as it comes; the reference frame by frame; sound frame by frame).
Batched is all cases at once, streamed, each beginning some frames after the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.chroma.network.hearing import Ear, Mel
from model.chroma.network.precision import KV, Weights
from model.chroma.network.quirks import OFFICIAL
from model.chroma.network.sampling import GREEDY
from model.chroma.network.trace import Seen, Trace
from model.chroma.network.weights import Chroma
from model.chroma.serving import voices
from model.chroma.serving.graph_capture import GraphRecorder
from model.chroma.serving.reply import Frame, Reply, perform
from model.chroma.serving.slots import Slots
from model.chroma.serving.steps import Steps
from model.errors import CheckpointError

Form = Literal["one-shot", "streamed", "batched"]
Array = NDArray[Any]

LOGITS: Final = 1e-3
WAVE: Final = 1e-4
AGREES: Final[dict[Weights, tuple[float, float]]] = {
    "full": (0.2, 0.02),
    "int8": (0.2, 0.06),
    "fp8": (0.4, 0.5),
}
"""What bfloat16 and rounded weights may differ by, led along the official answer: a share of steps (the
goldens' flat distributions have near ties), and nats. For rounded weights it is what was measured here and
some room: it says when that changes, not whether it is good enough to be heard."""
KV_AGREES: Final[dict[KV, tuple[float, float]]] = {"full": (0.0, 0.0), "fp8": (0.3, 0.2)}
"""What keys and values kept so may differ by besides."""
PIECE: Final = 320
"""Samples of 20 ms at 16 kHz."""
APART: Final = 5
"""Frames between the beginnings of two batched cases: an odd number, so that their phases differ."""
EVERY: Final = 16
"""Hidden states of the larger goldens are stored by every 16th column."""


@dataclass(frozen=True, slots=True)
class Case:
    """One `case-*.npz`."""

    name: str
    arrays: dict[str, Array]

    def __getitem__(self, key: str) -> Array:
        try:
            return self.arrays[key]
        except KeyError:
            raise CheckpointError(f"case {self.name}: {key} is missing") from None

    @property
    def sounds(self) -> list[Array]:
        """The user's sounds, 16 kHz."""
        count = sum(key.startswith("in_user_wave16k_") for key in self.arrays)
        return [self[f"in_user_wave16k_{k}"] for k in range(count)]


def read(directory: Path) -> Iterator[Case]:
    """The directory's cases by name. Raises `CheckpointError`."""
    paths = sorted(directory.glob("case-*.npz"))
    if not paths:
        raise CheckpointError(f"{directory} has no case-*.npz")
    for path in paths:
        try:
            with np.load(path) as stored:
                yield Case(path.stem.removeprefix("case-"), {key: stored[key] for key in stored})
        except (OSError, ValueError, EOFError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from None


@dataclass(slots=True)
class Verdict:
    """`equal`: what must be the same; `errors`: the largest difference of what must be near; `agrees`: the
    limits where only distributions can be compared; `told`: what nothing is asked of."""

    case: str
    form: Form
    equal: dict[str, bool] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    agrees: tuple[float, float] = AGREES["full"]
    told: dict[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        near = all(error <= self.limit(name) for name, error in self.errors.items())
        return near and all(self.equal.values())

    def limit(self, name: str) -> float:
        """The largest difference that is rounding."""
        if name.endswith("!="):
            return self.agrees[0]
        if name.endswith("kl"):
            return self.agrees[1]
        return WAVE if name == "wave" else LOGITS


@dataclass(slots=True)
class Answer:
    """What this engine made of a case."""

    words: list[int]
    steps: list[Tensor]
    frames: list[Tensor]
    wave: Tensor
    reference: Tensor
    mels: list[Tensor]
    heard: Tensor
    prompt: Tensor
    seen: Seen
    lengths: list[int]
    """backbone positions of each step after the prompt's"""


class Play:
    """One case in one slot: greedy, with the official quirks. `led`: every word and code that is taken is
    the official one."""

    def __init__(self, steps: Steps, slot: int, case: Case, form: Form, *, led: bool) -> None:
        self.case, self.form = case, form
        self._steps, self._slot = steps, slot
        model, device = steps.model, steps.model.device
        cut = int(case["in_input_values_cutoffs"][0])
        reference = torch.from_numpy(case["in_input_values"][0, 0, :cut]).to(device)
        self._codes = voices.encode(model, reference, OFFICIAL, None if form == "one-shot" else 1)
        self._voice = voices.prepare(model, torch.from_numpy(case["in_input_ids"][0]).to(device), self._codes)
        self._ears = _hear(steps, slot, case, form)
        voices.lend(self._voice, steps.slots, slot)
        steps.slots.sample(slot, GREEDY)
        say = case["text_tokens"].tolist() if led else None
        self.reply = Reply(slot, len(case["all_step_codes"]), say)
        self._position = steps.slots.backbone.lengths[slot]
        self._lengths: list[int] = []
        self._taken: list[Tensor] = []
        self._frames: list[Tensor] = []
        self._wave: list[Tensor] = []

    def keep(self, frame: Frame) -> None:
        """What a step brought."""
        slots = self._steps.slots
        self._taken.append(slots.codes[self._slot].clone())
        self._lengths.append(slots.backbone.lengths[self._slot] - self._position)
        self._position += self._lengths[-1]
        if frame.codes is not None:
            self._frames.append(torch.from_numpy(frame.codes))
        if frame.pcm is not None:
            self._wave.append(torch.from_numpy(frame.pcm))

    @property
    def codes(self) -> list[Tensor]:
        """Every step's, `(codebooks,)` on the device."""
        return self._taken

    @property
    def wave(self) -> Tensor:
        """The sound of the frames so far, `(samples,)`; of none where steps made none."""
        return torch.cat(self._wave) if self._wave else torch.zeros(0)

    def answer(self) -> Answer:
        """Once the reply is over."""
        model, prompt, reply = self._steps.model, self._voice.prompt, self.reply
        device = model.device
        assert self._steps.trace is not None  # noqa: S101  # for mypy: `run` sets it
        seen = self._steps.trace.of(self._slot)
        # the thinker may have been a word ahead when the sound was over
        del seen.thinker_logits[len(reply.words) :], seen.thinker_hidden[len(reply.words) :]
        wave = self.wave
        if self.form == "one-shot" and self._frames:
            whole = torch.stack(self._frames).T[None].to(device)
            stream = model.codec_model.decoding(1, len(self._frames), None)
            wave = model.codec_model.decode(whole, stream, stream.cache.rows([0]))[0]
        first = torch.stack((seen.thinker_hidden[0].to(device), _word(model, reply.words[0])))
        ears, out = self._ears, model.config.hearing.out
        return Answer(
            words=reply.words,
            steps=self._taken,
            frames=self._frames,
            wave=wave,
            reference=self._codes,
            mels=[ear.features() for ear in ears],
            heard=torch.cat([ear.heard() for ear in ears]) if ears else torch.zeros(0, out),
            prompt=torch.cat((prompt, first.to(prompt.dtype))),
            seen=seen,
            lengths=self._lengths[1:],
        )


def run(model: Chroma, cases: Sequence[Case], form: Form, *, led: bool = False) -> list[Answer]:
    """All cases at once, a slot each, every one `APART` frames after the one before."""
    steps = stand(model, cases)
    trace = steps.trace = Trace()
    if led:
        longest = max(len(case["all_step_codes"]) for case in cases)
        script = np.zeros((len(cases), longest, model.config.codebooks), np.int64)
        for slot, case in enumerate(cases):
            script[slot, : len(case["all_step_codes"])] = case["all_step_codes"]
        trace.script = torch.from_numpy(script).to(model.device)
    with torch.inference_mode():
        return [one.answer() for one in play(steps, cases, form, led=led)]


def stand(model: Chroma, cases: Sequence[Case], recorder: GraphRecorder | None = None) -> Steps:
    """A slot for each of the cases. `recorder` as `Runner` has it."""
    longest = max(len(case["all_step_codes"]) for case in cases)
    slots = Slots.make(
        model, len(cases), OFFICIAL,
        context=max(case["in_thinker_input_ids"].shape[1] for case in cases) + longest,
        unwindowed_frames=longest,
    )  # fmt: skip
    return Steps(model, slots, OFFICIAL, recorder=recorder)


@torch.inference_mode()
def play(steps: Steps, cases: Sequence[Case], form: Form, *, led: bool = False) -> list[Play]:
    """The cases to their ends, in the first slots, every one `APART` frames after the one before.

    A step that tells nonsense may end no reply: then its `end` stays None.
    """
    plays: list[Play] = []
    waiting, frame = list(enumerate(cases)), 0
    most = APART * len(cases) + max(len(case["all_step_codes"]) for case in cases)
    while frame < most and (waiting or any(play.reply.end is None for play in plays)):
        if waiting and frame % APART == 0:
            plays.append(Play(steps, *waiting.pop(0), form, led=led))
        going = [play for play in plays if play.reply.end is None]
        found = perform(steps, [play.reply for play in going], sound=form != "one-shot") if going else []
        for one, brought in zip(going, found, strict=True):
            one.keep(brought)
        frame += 1
    return plays


def _word(model: Chroma, word: int) -> Tensor:
    return model.thinker.embed(torch.tensor(word, device=model.device)).float()


def _hear(steps: Steps, slot: int, case: Case, form: Form) -> list[Ear]:
    """The case's prompt into the thinker, at once or as it would be spoken."""
    model, mel = steps.model, Mel(steps.model.config.hearing.mels)
    ids = torch.from_numpy(case["in_thinker_input_ids"][0][case["in_thinker_attention_mask"][0] == 1])
    sounds = [torch.from_numpy(wave) for wave in case.sounds]
    ears = [Ear(model.thinker.audio_tower, mel) for _ in sounds]
    is_sound = (ids == model.config.audio_token).tolist()
    if form == "one-shot":
        for ear, sound in zip(ears, sounds, strict=True):
            ear.push(sound)
            ear.finish()
            ear.listen()
        x = model.thinker.embed(ids.to(model.device)).clone()
        if ears:
            x[torch.tensor(is_sound)] = torch.cat([ear.heard() for ear in ears])
        steps.prefill({slot: x})
        return ears
    at, listening = 0, iter(zip(ears, sounds, strict=True))
    while at < len(ids):
        end = at
        while end < len(ids) and is_sound[end] == is_sound[at]:
            end += 1
        if is_sound[at]:
            ear, sound = next(listening)
            for piece in torch.split(sound, PIECE):
                ear.push(piece)
                steps.hear(slot, ear, at)
            ear.finish()
            steps.hear(slot, ear, at)
        else:
            steps.prefill({slot: model.thinker.embed(ids[at:end].to(model.device))})
        at = end
    return ears


def verify(model: Chroma, cases: Sequence[Case], form: Form) -> list[Verdict]:
    """Cases that run at once, in one form, against the official answers."""
    return [_verify(case, form, a) for case, a in zip(cases, run(model, cases, form), strict=True)]


def _verify(case: Case, form: Form, answer: Answer) -> Verdict:
    verdict = Verdict(case.name, form)
    verdict.equal["text"] = answer.words == case["text_tokens"].tolist()
    verdict.equal["frames"] = _same(answer.frames, case["frames"]) and _same(
        answer.steps, case["all_step_codes"]
    )
    verdict.equal["ref codes"] = _same(list(answer.reference.T), case["ref_codes"])
    lengths = [len(answer.prompt), *answer.lengths]
    verdict.equal["schedule"] = lengths == case["backbone_step_lengths"].tolist()
    seen = answer.seen
    near: dict[str, Callable[[], tuple[Tensor, str]]] = {
        "mel": lambda: (torch.cat(answer.mels, dim=1), ""),
        "heard": lambda: (answer.heard, "audio_tower_out"),
        "prompt": lambda: (answer.prompt, "prefill_embeddings"),
        "thinker": lambda: (torch.stack(seen.thinker_logits), "thinker_logits"),
        "thinker h": lambda: (torch.stack(seen.thinker_hidden), "thinker_hidden"),
        "backbone": lambda: (torch.stack(seen.backbone_logits), "backbone_logits"),
        "backbone h": lambda: (torch.stack(seen.backbone_hidden), "backbone_hidden"),
        "decoder": lambda: (torch.stack(seen.decoder_logits), "decoder_logits"),
        "wave": lambda: (answer.wave, "wave"),
    }
    for name, get in near.items():
        ours, key = get()
        verdict.errors[name] = _error(ours, _mels(case) if name == "mel" else _hidden(case, key))
    return verdict


def agree(
    model: Chroma, cases: Sequence[Case], form: Form, weights: Weights = "full", kv: KV = "full"
) -> list[Verdict]:
    """Cases that run at once in a coarser precision, led along the official answers: do the distributions
    agree? `weights` and `kv` as `precision` has them.

    Three figures for each part: the share of steps whose likeliest id is another, the mean divergence
    (Kullback-Leibler, nats) of ours from the official distribution, and the largest difference of a logit.
    """
    answers = run(model, cases, form, led=True)
    share, nats = (a + b for a, b in zip(AGREES[weights], KV_AGREES[kv], strict=True))
    limits = share, nats
    return [_agree(case, form, answer, limits) for case, answer in zip(cases, answers, strict=True)]


def _agree(case: Case, form: Form, answer: Answer, limits: tuple[float, float]) -> Verdict:
    verdict = Verdict(case.name, form, agrees=limits)
    verdict.equal["ref codes"] = _same(list(answer.reference.T), case["ref_codes"])
    seen = answer.seen
    for part, steps in (
        ("thinker", seen.thinker_logits),
        ("backbone", seen.backbone_logits),
        ("decoder", seen.decoder_logits),
    ):
        ours, theirs = torch.stack(steps), torch.from_numpy(case[f"{part}_logits"])
        other = ours.argmax(-1) != theirs.argmax(-1)
        verdict.errors[f"{part} !="] = float(other.float().mean())
        p, q = theirs.log_softmax(-1), ours.log_softmax(-1)
        verdict.errors[f"{part} kl"] = float((p.exp() * (p - q)).sum(-1).mean())
        verdict.told[f"{part} most"] = float((ours - theirs).abs().max())
    return verdict


def _mels(case: Case) -> tuple[Array, int]:
    """The official mels without their padding, side by side."""
    features, mask = case["in_thinker_input_features"], case["in_thinker_feature_attention_mask"]
    parts = [mel[:, on == 1] for mel, on in zip(features, mask, strict=True)]
    return np.concatenate(parts, axis=1), 1


def _hidden(case: Case, key: str) -> tuple[Array, int]:
    """(an array, every how many columns of it are stored)."""
    if key in case.arrays:
        return case.arrays[key], 1
    return case[f"{key}_every{EVERY}"], EVERY


def _same(ours: list[Tensor], theirs: Array) -> bool:
    return len(ours) == len(theirs) and bool((np.array([t.tolist() for t in ours]) == theirs).all())


def _error(ours: Tensor, stored: tuple[Array, int]) -> float:
    """The largest difference; infinite where the shapes differ or something is no number."""
    theirs, every = stored
    mine = ours.float().cpu().numpy()[..., ::every]
    if mine.shape != theirs.shape:
        return float("inf")
    worst = float(np.abs(mine - theirs).max(initial=0.0))
    return worst if np.isfinite(worst) else float("inf")
