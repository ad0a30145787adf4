"""`voicegate engine gpu-check`: what the first minutes on a GPU must tell, most important first.

Each part runs in a process of its own, since one that a sticky CUDA error hit fails for ever, and has a time
of its own. What it finds is in the file as soon as it is told; a run that was killed goes on from there, and
a part whose process dies goes on behind what killed it.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Self

import click

from model.errors import CheckpointError

Status = Literal["passed", "failed", "broken", "late", "missing", "under way"]
"""`failed`: something found is not as it must be; `broken`: its process died or an error ended it; `late`:
its time was up; `missing`: what it needs is not at hand."""
FORMAT: Final = 1
PROGRAM = "model.chroma.tools.gpu_parts"
RESTARTS: Final = 8
"""Of a part whose process died over one of its steps."""
LEAST_S: Final = 5.0
"""With less time left no part begins."""


@dataclass(frozen=True, slots=True)
class Part:
    """`limit_s`: the longest it may take; `of`: settings that its findings depend on."""

    name: str
    what: str
    limit_s: float
    of: tuple[str, ...] = ()


PARTS: Final = (
    Part("device", "device, driver, torch, triton, compiler", 60),
    Part("kernels", "each kernel in bfloat16 and float32 against float64", 150),
    Part("checkpoint", "a real checkpoint: names, tokenizer, ten seconds of speech", 150,
         ("checkpoint", "clip", "clip_words")),
    Part("golden", "recorded answers on this device, eager", 90, ("golden",)),
    Part("graphs", "graphs against the step called eagerly", 150, ("golden",)),
    Part("bench", "frames of 1 to 400 calls", 150),
    Part("gaps", "from kernel to kernel, prefill, audio encoder", 90),
    Part("admission", "what `auto` admits, and the memory of its trials", 120),
    Part("official", "the official code's answers on the checkpoint", 90, ("checkpoint", "official")),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CheckAsked:
    """The settings, as the parts get them."""

    device: str = "auto"
    size: Literal["auto", "full", "small"] = "auto"
    """of the model with drawn weights: `full` on a GPU, `small` (the golden's) elsewhere"""
    checkpoint: str | None = None
    golden: str | None = None
    official: str | None = None
    clip: str | None = None
    clip_words: str | None = None
    folder: str = "."
    """for what parts leave behind: sound, a toy"""


@dataclass(slots=True)
class Entry:
    """A part in the file. `found`: what it told, by name; `passed` False in one of them is a failure."""

    status: Status = "under way"
    seconds: float = 0.0
    why: str = ""
    asked: dict[str, Any] = field(default_factory=dict)
    found: dict[str, dict[str, Any]] = field(default_factory=dict)


class Notes:
    """The file: written anew after each thing that is told, and whole at every moment."""

    def __init__(self, path: Path, parts: dict[str, Entry]) -> None:
        self.path = path
        self.parts = parts

    @classmethod
    def open(cls, path: Path, *, fresh: bool) -> Self:
        """Raises `CheckpointError` for a file that is not one of these."""
        if fresh or not path.exists():
            return cls(path, {})
        try:
            stored = json.loads(path.read_text())
            if stored["format"] != FORMAT:
                raise ValueError(f"its format is {stored['format']}")
            return cls(path, {name: Entry(**entry) for name, entry in stored["parts"].items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{path} is not what an earlier gpu-check wrote ({error}); name another file with --out, or "
                "begin anew with --fresh"
            ) from None

    def write(self) -> None:
        """Raises `CheckpointError` where the file cannot be written."""
        beside = self.path.with_name(f".{self.path.name}.new")
        whole = {"format": FORMAT, "parts": {name: asdict(entry) for name, entry in self.parts.items()}}
        try:
            beside.write_text(json.dumps(whole, indent=1) + "\n")
            beside.replace(self.path)
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be written: {error.strerror or error}") from None


def due(entry: Entry | None, part: Part, asked: CheckAsked) -> bool:
    """Whether the part must run: it has not, was killed, or was asked of something else."""
    if entry is None or entry.status in ("under way", "missing"):
        return True
    return entry.asked != settings(part, asked)


def settings(part: Part, asked: CheckAsked) -> dict[str, Any]:
    """What the part's findings depend on."""
    every = asdict(asked)
    return {name: every[name] for name in ("device", "size", *part.of)}


def run(notes: Notes, asked: CheckAsked, seconds: float, say: Callable[[str], None]) -> bool:
    """All that is due within so many seconds; whether nothing failed."""
    until = time.monotonic() + seconds
    for part in PARTS:
        entry = notes.parts.get(part.name)
        if not due(entry, part, asked):
            continue
        left = until - time.monotonic()
        if left < LEAST_S:
            say("the time is up: run it again, and it goes on from here")
            break
        same = entry is not None and entry.status == "under way" and entry.asked == settings(part, asked)
        entry = notes.parts[part.name] = entry if same and entry is not None else Entry()
        entry.asked = settings(part, asked)
        say(f"{part.name}: {part.what}")
        _perform(part, entry, notes, asked, min(part.limit_s, left), say)
        say(f"  {entry.status} after {entry.seconds:.1f} s{f': {entry.why}' if entry.why else ''}")
    return all(
        part.name in notes.parts and notes.parts[part.name].status in ("passed", "missing") for part in PARTS
    )


def _perform(
    part: Part, entry: Entry, notes: Notes, asked: CheckAsked, seconds: float, say: Callable[[str], None]
) -> None:
    """The part to its end, in as many processes as that takes."""
    began = time.monotonic()
    spent = entry.seconds
    entry.status, entry.why = "under way", ""
    notes.write()

    def tell(name: str, found: dict[str, Any]) -> None:
        entry.found[name] = found
        entry.seconds = spent + time.monotonic() - began
        notes.write()
        if not found.get("under way"):
            say(f"  {name}: {shown(found)}")

    for _ in range(1 + RESTARTS):
        end, why = _process(part, entry, asked, began + seconds - time.monotonic(), tell)
        open_ = [name for name, found in entry.found.items() if found.get("under way")]
        for name in open_:
            if end == "died":
                tell(name, {"passed": False, "why": why})
            else:
                del entry.found[name]
        if end != "died" or not open_:
            break
    entry.seconds = spent + time.monotonic() - began
    bad = [name for name, found in entry.found.items() if found.get("passed") is False]
    entry.why = f"{len(bad)} of {len(entry.found)}" if bad and end == "done" else why
    if end == "died":
        entry.status = "broken"
    elif end == "late":  # with less than its own time, it may go on in the next run
        entry.status = "late" if seconds >= part.limit_s else "under way"
    else:
        entry.status = "failed" if bad else "passed" if end == "done" else "missing"
    notes.write()


End = Literal["done", "missing", "late", "died"]


def _process(
    part: Part, entry: Entry, asked: CheckAsked, seconds: float, tell: Callable[[str, dict[str, Any]], None]
) -> tuple[End, str]:
    """One process; how it ended, and why."""
    known = {name: found for name, found in entry.found.items() if not found.get("under way")}
    order = {"asked": asdict(asked), "known": known, "seconds": max(1.0, seconds - 2.0)}
    command = [sys.executable, "-m", PROGRAM, part.name]
    errors = Path(asked.folder) / f"{part.name}.log"
    with errors.open("w") as log:
        child = subprocess.Popen(  # noqa: S603  # ourselves
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            env=_environment(part, asked), start_new_session=True,
        )  # fmt: skip
    try:
        assert child.stdin is not None  # noqa: S101  # for mypy: it is a pipe
        child.stdin.write(json.dumps(order))
        child.stdin.close()
        told: End | None = None
        why = ""
        for line in _lines(child, time.monotonic() + seconds):
            if line is None:
                return "late", f"its {seconds:.0f} s were up"
            said = json.loads(line)
            if "end" in said:
                told, why = said["end"], said["why"]
            else:
                tell(said["name"], said["found"])
        code = child.wait()
        if told is not None and code == 0:
            return told, why
        return "died", f"{_last(errors)} ({_code(code)})"
    except BrokenPipeError:
        return "died", f"{_last(errors)} ({_code(child.wait())})"
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _environment(part: Part, asked: CheckAsked) -> dict[str, str]:
    """A CPU has no compiled kernels: Triton's interpreter takes their place, chosen when it is imported."""
    environment = dict(os.environ)
    if part.name == "kernels" and not _gpu(asked.device):
        environment["TRITON_INTERPRET"] = "1"
    return environment


def _gpu(device: str) -> bool:
    import torch  # a second, which only the command itself may take

    return device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())


def _lines(child: subprocess.Popen[str], until: float) -> Iterator[str | None]:
    """What it says, line by line, to its end; None once time is up."""
    assert child.stdout is not None  # noqa: S101  # for mypy: it is a pipe
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        rest = b""
        while True:
            if not selector.select(max(0.0, until - time.monotonic())):
                yield None
                return
            piece = os.read(child.stdout.fileno(), 1 << 16)
            if not piece:
                return
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield line.decode()


def _last(errors: Path) -> str:
    """The last line that a process wrote of its errors."""
    lines = [line.strip() for line in errors.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def _code(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def shown(found: Mapping[str, Any]) -> str:
    """What was found, in a line."""
    passed = found.get("passed")
    mark = "" if passed is None else "ok" if passed else "FAILS"
    rest = (f"{key} {_value(value)}" for key, value in found.items() if key != "passed")
    return "  ".join(part for part in (mark, *rest) if part)


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@click.command("gpu-check")
@click.option("--checkpoint", help="a real checkpoint, a directory or a hub id: read, spoken by, heard")
@click.option("--golden", type=click.Path(path_type=Path), help="a directory with case-*.npz; else a toy's")
@click.option(
    "--official",
    type=click.Path(path_type=Path),
    help="case-*.npz of what the official code answered on --checkpoint",
)
@click.option("--clip", type=click.Path(path_type=Path), help="a voice for --checkpoint: mono WAV, 24 kHz")
@click.option("--clip-words", help="what is said in --clip")
@click.option("--device", default="auto", help="cpu, cuda, …; auto: the GPU where there is one")
@click.option(
    "--size",
    type=click.Choice(["auto", "full", "small"]),
    default="auto",
    help="of the model with drawn weights; auto: full on a GPU",
)
@click.option("--seconds", type=click.FloatRange(10), default=600.0, help="for all parts together")
@click.option("--out", type=click.Path(path_type=Path), default=Path("gpu-check"), help="a directory")
@click.option("--fresh", is_flag=True, help="begin anew, whatever an earlier run has found")
@click.option("--again", multiple=True, type=click.Choice([part.name for part in PARTS]),
              help="do this part anew")  # fmt: skip
def gpu_check(
    checkpoint: str | None, golden: Path | None, official: Path | None, clip: Path | None,
    clip_words: str | None, device: str, size: Literal["auto", "full", "small"], seconds: float, out: Path,
    fresh: bool, again: tuple[str, ...],
) -> None:  # fmt: skip
    """Find out on a GPU what only a GPU can tell, within ten minutes: kernels, graphs, speed, memory.

    What is found stands in OUT/gpu-check.json after each step. A second run goes on where the first one
    ended. Runs on a CPU, too, with small sizes.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{out} cannot be made: {error.strerror or error}") from None
    if (clip is None) != (clip_words is None):
        raise click.UsageError("--clip and --clip-words go together")
    asked = CheckAsked(
        device, size, checkpoint, _absolute(golden), _absolute(official), _absolute(clip), clip_words,
        str(out.resolve()),
    )  # fmt: skip
    notes = Notes.open(out / "gpu-check.json", fresh=fresh)
    for name in again:
        notes.parts.pop(name, None)
    passed = run(notes, asked, seconds, click.echo)
    click.echo(f"\n{notes.path}")
    for part in PARTS:
        entry = notes.parts.get(part.name)
        click.echo(f"{part.name:<12}{entry.status if entry else 'not yet':<10}{entry.why if entry else ''}")
    sys.exit(0 if passed else 1)


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())


if __name__ == "__main__":
    from model.errors import EngineError

    try:
        gpu_check()
    except EngineError as error:
        sys.exit(f"Error: {error}")
