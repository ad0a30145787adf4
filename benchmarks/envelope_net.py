"""Trains the envelope layer's network on lessons (`benchmarks/envelope_lessons.py`), by torch on one thread.

    python -m benchmarks.envelope_net FOLDER --steps 8000            # goes on from its last checkpoint
    python -m benchmarks.envelope_net FOLDER --steps 8000 --write    # and writes weights.{npz,json}

What is printed as "tried" is of voices that nothing is learnt from: z in 10 s of a mark as loud as in
lessons, over all of them and through each channel.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from math import cos, pi
from pathlib import Path
from typing import Final

import click
import numpy as np
import torch
from torch import nn

from benchmarks import envelope_voices
from benchmarks.envelope_lessons import BENT, DELTA_DB, LESSON_S, STEADY, Lesson, kept
from watermark.envelope import chip_network
from watermark.envelope.cells import BANDS
from watermark.envelope.chip_network import DILATIONS, WIDTH
from watermark.envelope.loudness import INPUTS, inputs

SEED: Final = 14
CHANNELS: Final = 64
SEGMENT: Final = 750
"""Frames that are measured together; the network is used on 5 s and more."""
BATCH: Final = 16
RATE: Final = 3e-3
DECAY: Final = 1e-4
WARM: Final = 100
SLOW: Final = 0.998
"""What is kept of the weights' running mean in a step: the mean is what is written."""
TORCH_CHIPS: Final = Path(__file__).parents[1] / "tests" / "watermark" / "envelope" / "torch_chips.npz"
"""What torch makes of one and a half seconds: numpy is compared with it."""
TILT: Final = 0.15
"""Standard deviation, in the network's units (3 dB), by which a lesson's sub-bands are louder or softer."""


class Net(nn.Module):
    """`watermark.envelope.chip_network.ChipNetwork`, as torch trains it."""

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        widths = [INPUTS, *[channels] * (len(DILATIONS) - 1), BANDS]
        self.layers = nn.ModuleList(
            nn.Conv1d(into, out, WIDTH, padding=WIDTH // 2 * dilation, dilation=dilation)
            for into, out, dilation in zip(widths, widths[1:], DILATIONS, strict=False)
        )
        with torch.no_grad():
            self.convolutions[-1].weight.mul_(0.1)

    @property
    def convolutions(self) -> list[nn.Conv1d]:
        """The layers, the first one first."""
        return [layer for layer in self.layers if isinstance(layer, nn.Conv1d)]

    def forward(self, flow: torch.Tensor) -> torch.Tensor:
        """`(B, 32, frames)` -> `(B, 8, frames)`."""
        last = len(self.layers) - 1
        for at, layer in enumerate(self.convolutions):
            made: torch.Tensor = layer(flow)
            if at < last:
                made = torch.relu(made)
            flow = made + flow if 0 < at < last else made
        return flow


def segments(lesson: Lesson) -> tuple[np.ndarray, np.ndarray]:
    """Inputs, half floats `(S, 32, 750)`, and the chip of each frame in which a cell is centred, 0
    elsewhere."""
    chips = np.zeros((BANDS, len(lesson.powers)), np.int8)
    cell, band = np.nonzero(lesson.frames >= 0)
    chips[band, lesson.frames[cell, band]] = lesson.chips[cell, band]
    begins = range(0, len(lesson.powers) - SEGMENT + 1, SEGMENT)
    return (
        np.stack([inputs(lesson.powers[at : at + SEGMENT]) for at in begins]).astype(np.float16),
        np.stack([chips[:, at : at + SEGMENT] for at in begins]),
    )


class Lessons:
    """All lessons of a kind in memory; those made meanwhile are added."""

    def __init__(self, folder: Path, learnt: bool) -> None:
        self.folder, self.learnt = folder, learnt
        self.inputs = np.zeros((0, INPUTS, SEGMENT), np.float16)
        self.chips = np.zeros((0, BANDS, SEGMENT), np.int8)
        self.channels: list[str] = []
        self._known: set[Path] = set()

    def renew(self) -> None:
        new = [path for path in kept(self.folder, self.learnt) if path not in self._known]
        made = [(lesson, *segments(lesson)) for lesson in map(Lesson.read, new)]
        self._known.update(new)
        if made:
            self.inputs = np.concatenate([self.inputs, *(each[1] for each in made)])
            self.chips = np.concatenate([self.chips, *(each[2] for each in made)])
            self.channels += [lesson.channel for lesson, sound, _ in made for _ in sound]


def loss_of(made: torch.Tensor, chips: torch.Tensor) -> torch.Tensor:
    """Nats a chip: the logarithm of what the network thought of the chips that were there."""
    here = chips != 0
    return nn.functional.softplus(-2 * made[here] * chips[here]).mean()


@torch.no_grad()
def tried(net: nn.Module, lessons: Lessons) -> str:
    """z in 10 s by channel, and the mean loss."""
    by_channel: dict[str, list[float]] = {}
    losses = []
    for at in range(0, len(lessons.inputs), 8):
        made = net(torch.from_numpy(lessons.inputs[at : at + 8].astype(np.float32)))
        chips = torch.from_numpy(lessons.chips[at : at + 8].astype(np.float32))
        losses.append(float(loss_of(made, chips)))
        score = (made * chips).sum((1, 2)) / (made.square() * chips.abs()).sum((1, 2)).sqrt()
        for channel, z in zip(lessons.channels[at : at + 8], score.tolist(), strict=True):
            by_channel.setdefault(channel.removesuffix(", bent"), []).append(z * (1_000 / SEGMENT) ** 0.5)
    every = np.concatenate(list(by_channel.values()))
    cells = " ".join(f"{channel} {np.mean(scores):.1f}" for channel, scores in sorted(by_channel.items()))
    return f"tried: loss {np.mean(losses):.4f} z {every.mean():.2f} | {cells}"


def trained(folder: Path, steps: int, minutes: float) -> Net:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    rng = np.random.default_rng(SEED)
    net, slow = Net(), Net()
    slow.load_state_dict(net.state_dict())
    adam = torch.optim.AdamW(net.parameters(), RATE, betas=(0.9, 0.98), weight_decay=DECAY)
    learnt, judged = Lessons(folder, True), Lessons(folder, False)
    checkpoint, first = folder / "net.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        net.load_state_dict(state["net"])
        slow.load_state_dict(state["slow"])
        adam.load_state_dict(state["adam"])
        first = int(state["step"])
        rng = np.random.default_rng([SEED, first])
    learnt.renew()
    judged.renew()
    click.echo(f"{len(learnt.inputs)} segments to learn from, {len(judged.inputs)} tried; from step {first}")
    losses: list[float] = []
    step, began, over = first, time.process_time(), False
    while step < steps and not over:
        at = rng.integers(0, len(learnt.inputs), BATCH)
        sound = learnt.inputs[at].astype(np.float32)
        sound[:, INPUTS // 2 :] += rng.normal(0, TILT, (BATCH, INPUTS // 2, 1)).astype(np.float32)
        slower = 0.02 + 0.98 * (1 + cos(pi * step / steps)) / 2
        rate = RATE * min(1, (step + 1) / WARM) * slower
        for group in adam.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", dtype=torch.bfloat16):  # twice as fast where the processor knows it
            made = net(torch.from_numpy(sound))
        loss = loss_of(made.float(), torch.from_numpy(learnt.chips[at].astype(np.float32)))
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        adam.step()
        with torch.no_grad():
            keep = min(SLOW, (1 + step) / (10 + step))
            for mean, now in zip(slow.parameters(), net.parameters(), strict=True):
                mean.lerp_(now, 1 - keep)
        losses.append(loss.item())
        step += 1
        over = time.process_time() - began > 60 * minutes
        if step % 250 == 0 or step == steps or over:
            learnt.renew()
            click.echo(
                f"step {step} {time.process_time() - began:.0f} s, {len(learnt.inputs)} segments: "
                f"loss {np.mean(losses):.4f}; {tried(slow, judged)}"
            )
            losses = []
            part = checkpoint.with_suffix(".part")
            torch.save({"net": net.state_dict(), "slow": slow.state_dict(), "adam": adam.state_dict(),
                        "step": step}, part)  # fmt: skip
            os.replace(part, checkpoint)
    return slow


def written(folder: Path, net: Net, steps: int) -> None:
    arrays: dict[str, np.ndarray] = {}
    with torch.no_grad():
        for at, layer in enumerate(net.convolutions):
            for name, values in layer.named_parameters():
                values.copy_(values.half())
                arrays[f"{name}{at}"] = values.half().numpy()
        heard = Lessons(folder, False)
        heard.renew()
        inputs = torch.from_numpy(heard.inputs[:1, :, :150].astype(np.float32))
        np.savez(TORCH_CHIPS, inputs=inputs[0].half().numpy(), chips=net(inputs)[0].numpy())
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    chip_network.PATH.write_bytes(content.getvalue())
    sha256 = hashlib.sha256(content.getvalue()).hexdigest()
    voices = envelope_voices.voices(folder)
    recipe = {
        "recipe": [
            f"python -m benchmarks.envelope_lessons FOLDER --count {len(kept(folder))}",
            f"python -m benchmarks.envelope_net FOLDER --steps {steps} --write",
        ],
        "seed": SEED,
        "torch": torch.__version__.split("+")[0],
        "sha256": sha256,
        "weights": sum(array.size for array in arrays.values()),
        "lessons_s": LESSON_S * len(kept(folder)),
        "mark_db": list(DELTA_DB),
        "channels": {name: share for name, (share, _) in STEADY.items()},
        "bent": BENT,
        "sources": envelope_voices.sources(),
        "voices": {
            family.name: sorted(
                voice.name for voice in voices if voice.family == family.name and voice.learnt
            )
            for family in envelope_voices.FAMILIES
        },
    }
    chip_network.PATH.with_suffix(".json").write_text(json.dumps(recipe, indent=1) + "\n")
    click.echo(
        f"{chip_network.PATH}: {len(content.getvalue())} bytes; SHA256 in chip_network.py is to be\n{sha256}"
    )


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--steps", default=8_000, show_default=True)
@click.option("--minutes", default=1e9, help="Stop, with a checkpoint, after so many of the processor.")
@click.option("--write", is_flag=True, help="Write watermark/envelope/weights.npz and .json.")
def main(folder: Path, steps: int, minutes: float, write: bool) -> None:
    """Trains the network, from the last checkpoint on."""
    net = trained(folder, steps, minutes)
    if write:
        written(folder, net, steps)


if __name__ == "__main__":
    main()
