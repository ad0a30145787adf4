"""`voicegate engine`: look at a checkpoint, prove the engine, measure it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar, get_args

import click
import torch

from model.chroma.network import checkpoint
from model.chroma.network import config as chroma_config
from model.chroma.network.precision import KV, Weights, keep_kv, round_weights
from model.chroma.network.weights import Chroma
from model.chroma.serving.engine_settings import EngineSettings, place, promises
from model.chroma.tools import bench as benches
from model.chroma.tools import crowd, golden, replays
from model.chroma.tools import toy as toys
from model.chroma.tools.floor import Floor, arithmetic, bandwidth
from model.chroma.tools.gpu_check import gpu_check
from model.chroma.tools.inventory import Memory, parts
from model.errors import CheckpointError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WEIGHTS = "int8, fp8: the big linear layers in a byte a weight"
KEPT = "fp8: keys and values of thinker and backbone in a byte a number"
FORMS: tuple[golden.Form, ...] = ("one-shot", "streamed")


Number = TypeVar("Number", int, float)


@click.group()
def engine() -> None:
    """Run, measure or compare the Chroma engine."""


engine.add_command(gpu_check)


@engine.command()
@click.argument("source")
@click.option("--dtype", type=click.Choice(list(DTYPES)), default="bfloat16", help="of weights and state")
@click.option("--conversations", type=click.IntRange(1), default=1, help="slots to count")
@click.option("--context", type=click.IntRange(1), default=4096, help="thinker positions of a slot at most")
@click.option(
    "--promised", type=click.IntRange(1), default=EngineSettings().promised, help="those that each slot has"
)
@click.option("--reply-s", type=float, default=EngineSettings().reply_s, help="seconds of the longest answer")
@click.option("--kv", type=click.Choice(get_args(KV)), default="full", help=KEPT)
def inspect(
    source: str, dtype: str, conversations: int, context: int, promised: int, reply_s: float, kv: KV
) -> None:
    """Show the parts of a checkpoint (a directory or a hub id), their sizes and the memory they take."""
    directory = checkpoint.find(source)
    config = chroma_config.read(directory / checkpoint.CONFIG)
    tensors = checkpoint.stored(directory)
    model = checkpoint.blueprint(config)
    checkpoint.plan(model, {name: tensor.shape for name, tensor in tensors.items()}, str(directory))
    size = DTYPES[dtype].itemsize
    click.echo(f"{directory}: {len(tensors)} tensors in {len({t.file for t in tensors.values()})} file(s)\n")
    click.echo(f"{'part':<28}{'tensors':>9}{'parameters':>16}{'MiB':>12}")
    for part in parts(tensors):
        width = 4 if part.name.startswith("Mimi") else size
        memory = f"{part.numel * width / 2**20:.1f}" if part.loaded else "not loaded"
        click.echo(f"{part.name:<28}{part.tensors:>9}{part.numel:>16,}{memory:>12}")
    promise = promises(promised, reply_s, config.frame_s)
    state = Memory.of(config, size, context, promise, 1 if kv == "fp8" else size)
    weights = sum(p.numel * (4 if p.name.startswith("Mimi") else size) for p in parts(tensors) if p.loaded)
    click.echo(
        f"\nweights {weights / 2**20:,.1f} MiB as {dtype} (Mimi as float32)\n"
        f"a thinker position {state.thinker_position:,} B, "
        f"a backbone position {state.backbone_position:,} B\n"
        f"a slot {state.slot / 2**20:,.1f} MiB: thinker {state.promised.context} positions, "
        f"backbone {state.promised.reply}, Mimi {state.codec / 2**20:,.1f} MiB "
        f"(with all of its context for itself: {state.most / 2**20:,.1f} MiB)\n"
        f"{conversations} conversation(s): {(weights + conversations * state.slot) / 2**20:,.1f} MiB in all"
    )


@engine.command()
@click.argument("directory", type=click.Path(path_type=Path))
def toy(directory: Path) -> None:
    """Write a toy checkpoint into DIRECTORY, a new one, for the other commands and for VOICEGATE_CHROMA.

    It has the official names and layout, small sizes, and drawn weights: its words and its sound mean
    nothing. `verify` compares with what this engine computed one-shot in float64, not with the official code.
    """
    torch.set_num_threads(1)  # the parts are tiny: threads only wait for each other
    cases = toys.write(directory)
    click.echo(f"{directory}: a checkpoint with drawn weights, and the cases {', '.join(cases)}")


@engine.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--case", "cases", multiple=True, help="only these cases")
@click.option("--batched", is_flag=True, help="all cases at once, staggered, through the batched step")
@click.option("--graphed", is_flag=True, help="graphs against the step called eagerly; see below")
@click.option("--calls", default="1,8", help="--graphed: so many calls at once, with commas between")
@click.option("--device", default="cpu", help="cpu, cuda, …")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32")
@click.option("--weights", type=click.Choice(get_args(Weights)), default="full", help=WEIGHTS)
@click.option("--kv", type=click.Choice(get_args(KV)), default="full", help=KEPT)
def verify(
    directory: Path,
    cases: tuple[str, ...],
    batched: bool,
    graphed: bool,
    calls: str,
    device: str,
    dtype: str,
    weights: Weights,
    kv: KV,
) -> None:
    """Compare with the recorded answers: every case-*.npz in DIRECTORY, one-shot and streamed.

    The answers of a golden are the official code's; those of a toy are this engine's own.

    With --batched all cases run at once, each begun some frames after the one before.

    Text, frames and reference codes must be equal, logits and hidden states within 1e-3, sound within 1e-4.
    bfloat16, rounded weights, and rounded keys and values cannot be so near: they are led along the official
    words and codes, and in each step the likeliest id and the distribution are compared. The largest
    difference of a logit (`most`) is told, and nothing is asked of it.

    With --graphed each step runs as a graph and as an eager call over the same rows: words, codes and ends
    must be equal in any precision, sound within 1e-4, first on the cases, then among drawn calls that begin,
    rest and end in each other's company. A CPU has no CUDA graphs: there a tape of the step's operations is
    replayed.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is not a directory")
    where, kind = place(EngineSettings(device=device, dtype=dtype, weights=weights, kv=kv))  # type: ignore[arg-type]  # click chose
    model = checkpoint.load(
        directory, device=where, dtype=kind, codec_dtype=torch.float32, weights=weights, kv=kv
    )
    exact = kind == torch.float32 and weights == kv == "full"
    compare: Callable[[Chroma, list[golden.Case], golden.Form], list[golden.Verdict]]
    compare = golden.verify if exact else partial(golden.agree, weights=weights, kv=kv)
    if graphed:
        compare = partial(replays.verify, official=exact)
    found = [case for case in golden.read(directory) if not cases or case.name in cases]
    if not found:
        raise CheckpointError(f"{directory} has no case {', '.join(cases)}")
    runs: list[tuple[golden.Form, list[golden.Case]]] = (
        [("batched", found)] if batched else [(form, [case]) for case in found for form in FORMS]
    )
    passed = total = 0
    for form, together in runs:
        for verdict in compare(model, together, form):
            if total == 0:
                _head(verdict)
            total += 1
            passed += verdict.passed
            _line(verdict)
    for number in _numbers("--calls", calls, int) if graphed else []:
        found_among = replays.company(model, number)
        total += 1
        passed += found_among.passed
        click.echo(_company(found_among))
    click.echo(f"\n{passed} of {total} runs pass")
    sys.exit(0 if passed == total else 1)


def _head(verdict: golden.Verdict) -> None:
    names = "".join(f"{name:>12}" for name in (*verdict.equal, *verdict.errors, *verdict.told))
    click.echo(f"{'case':<18}{'form':<10}{names}")
    limits = "".join(f"{verdict.limit(name):>12.0e}" for name in verdict.errors)
    click.echo(f"{'':<28}{'       equal' * len(verdict.equal)}{limits}")


def _line(verdict: golden.Verdict) -> None:
    equal = "".join(f"{'yes' if same else 'NO':>12}" for same in verdict.equal.values())
    errors = "".join(f"{error:>12.1e}" for error in (*verdict.errors.values(), *verdict.told.values()))
    mark = "" if verdict.passed else "  FAILS"
    click.echo(f"{verdict.case:<18}{verdict.form:<10}{equal}{errors}{mark}")


def _company(found: replays.Company) -> str:
    head = f"{found.calls} call(s) staggered, {found.frames} frames"
    mark = "" if found.passed else f"  FAILS{f': {found.differs}' if found.differs else ''}"
    return f"{head:<44}sound {found.sound:.1e}{mark}"


@engine.command()
@click.option("--checkpoint", "source", help="measure this checkpoint (a directory or a hub id)")
@click.option("--random", "size", type=click.Choice(list(benches.SIZES)), help="drawn weights of this size")
@click.option("--device", default="auto", help="cpu, cuda, …; auto: the GPU where there is one")
@click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16"]), default="auto")
@click.option("--weights", type=click.Choice(get_args(Weights)), default="full", help=WEIGHTS)
@click.option("--kv", type=click.Choice(get_args(KV)), default="full", help=KEPT)
@click.option("--frames", type=click.IntRange(2), default=100, help="frames to take the mean of")
@click.option(
    "--speech", "speech_s", type=click.FloatRange(1, 60), default=5.0, help="seconds before the reply"
)
@click.option("--lengths", default="1,5,10,30", help="seconds of speech to prefill, with commas between")
@click.option("--calls", help="a table for so many calls at once, with commas between: 1,4,8,…")
@click.option(
    "--context", type=click.IntRange(64), default=1000, help="--calls: each one's thinker positions"
)
@click.option("--reply", type=click.IntRange(1), default=800, help="--calls: backbone positions of each")
@click.option("--plot", type=click.Path(path_type=Path), help="--calls: draws the table into this file")
def bench(
    source: str | None,
    size: str | None,
    device: str,
    dtype: Literal["auto", "float32", "bfloat16"],
    weights: Weights,
    kv: KV,
    frames: int,
    speech_s: float,
    lengths: str,
    calls: str | None,
    context: int,
    reply: int,
    plot: Path | None,
) -> None:
    """Measure one call: time to first sound, ms per frame, prefill, memory; with the floor beside each.

    With --calls also many at once. Full size wants a GPU: on a CPU `--random 4b` needs 11 GB and seconds for
    a frame.
    """
    if plot is not None and calls is None:
        raise click.UsageError("--plot draws what --calls measures")
    seconds = _numbers("--lengths", lengths, float)
    crowds = [] if calls is None else _numbers("--calls", calls, int)
    where, kind = place(EngineSettings(device=device, dtype=dtype, weights=weights, kv=kv))
    if source is not None and size is None:
        title, directory = source, checkpoint.find(source)
        model = checkpoint.load(
            directory, device=where, dtype=kind, codec_dtype=torch.float32, weights=weights, kv=kv
        )
    elif source is None and size is not None:
        title, model = f"random {size}", round_weights(benches.random_model(size, where, kind), weights)
        keep_kv(model, kv)
    else:
        raise click.UsageError("give either --checkpoint or --random")
    subject = benches.Bench(model)
    figures = subject.run(min(frames, benches.room(model)), speech_s, seconds)
    for line in benches.report(model, figures, subject.slots, title, speech_s):
        click.echo(line)
    if crowds:
        _crowds(model, crowds, context, reply, frames, plot)


def _numbers(option: str, given: str, kind: Callable[[str], Number]) -> list[Number]:
    try:
        found = [kind(number) for number in given.split(",")]
    except ValueError:
        found = []
    if not found or min(found) <= 0:
        raise click.UsageError(f"{option} {given}: numbers above 0 with commas between")
    return found


def _crowds(
    model: Chroma, numbers: list[int], context: int, reply: int, frames: int, plot: Path | None
) -> None:
    """The table of many calls, and what a frame of the least and of the most needs."""
    click.echo(f"\ncalls at once, half of them a frame behind; contexts {context} / {reply}")
    click.echo(crowd.HEAD)
    found = []
    for measured in crowd.table(model, numbers, context, reply, frames):
        found.append(measured)
        click.echo(crowd.line(measured, model.config.frame_s))
    if len(found) < len(numbers):
        click.echo(f"{numbers[len(found)]:>6}  does not fit into memory")
    floor = Floor(model, bandwidth(model.device), arithmetic(model.device, model.dtype))
    for calls in sorted({numbers[0], numbers[-1]}):
        click.echo("")
        for text in floor.roofline(context, reply, calls):
            click.echo(text)
    if plot is not None:
        crowd.plot(found, model.config.frame_s, plot)
        click.echo(f"\n{plot}")
