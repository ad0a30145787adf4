"""The parts of `gpu_check`, each run as a program of its own: `python -m model.chroma.tools.gpu_parts PART`.

On its standard input comes what is asked, known already and how much time there is; on its standard output
goes a line of JSON for each thing found, before it is tried and after.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, TextIO

import torch
from torch import Tensor

from model.chroma.network import checkpoint
from model.chroma.network.hearing import EAR_HZ, Ear, Mel
from model.chroma.network.quirks import SERVING
from model.chroma.network.weights import Chroma
from model.chroma.serving import admission
from model.chroma.serving.engine import EngineSettings, place
from model.chroma.serving.slots import Slots
from model.chroma.serving.steps import Steps
from model.chroma.tools import bench, crowd, golden, replays, toy
from model.chroma.tools import floor as floors
from model.chroma.tools.floor import PARTS, Floor
from model.chroma.tools.gpu_check import Asked

CALLS: Final = {"full": (1, 64, 400, 8, 256, 128), "small": (1, 4)}
"""The most telling first."""
CONTEXT: Final = {"full": 1000, "small": 64}
REPLY: Final = {"full": 800, "small": 40}
FRAMES: Final = {"full": 60, "small": 6}
COMPANY: Final = {"full": (1, 8, 64), "small": (1, 3, 8)}
PREFILLED: Final = 50
"""Positions of each slot in a timed prefill: two seconds of speech."""
TRIALS_CONTEXT: Final = {"full": 2048, "small": 128}


class Missing(Exception):
    """What a part needs is not at hand."""


@dataclass
class Job:
    """One part's order, and where its findings go."""

    asked: Asked
    known: Mapping[str, Mapping[str, Any]]
    until: float
    told: TextIO

    @property
    def left_s(self) -> float:
        return self.until - time.monotonic()

    def tell(self, name: str, /, **found: Any) -> None:
        """Something found; `passed` where it can fail."""
        self._say({"name": name, "found": found})

    def _say(self, line: Mapping[str, Any]) -> None:
        self.told.write(json.dumps(line) + "\n")
        self.told.flush()

    def end(self, end: str, why: str = "") -> None:
        self._say({"end": end, "why": why})

    def do(self, name: str, work: Callable[[], Mapping[str, Any]]) -> None:
        """Finds and tells it, unless it is known. An error fails it; what the GPU never recovers from ends
        the process, and the next one goes on behind it."""
        if name in self.known:
            return
        self._say({"name": name, "found": {"under way": True}})
        try:
            found = dict(work())
        except Missing:
            raise
        except Exception as error:
            traceback.print_exc()
            if self.device.type == "cuda":
                torch.cuda.synchronize()  # raises once more where the error stays
                torch.cuda.empty_cache()
            found = {"passed": False, "why": f"{type(error).__name__}: {str(error).strip()[:300]}"}
        self.tell(name, **found)

    @cached_property
    def _where(self) -> tuple[torch.device, torch.dtype]:
        return place(EngineSettings(device=self.asked.device))

    @property
    def device(self) -> torch.device:
        return self._where[0]

    @property
    def dtype(self) -> torch.dtype:
        return self._where[1]

    @property
    def size(self) -> Literal["full", "small"]:
        if self.asked.size == "auto":
            return "full" if self.device.type == "cuda" else "small"
        return self.asked.size

    @property
    def golden(self) -> Path:
        """A checkpoint with cases: the one that is named, or a toy, which is written once."""
        if self.asked.golden is not None:
            return Path(self.asked.golden)
        found = Path(self.asked.folder) / "toy"
        if not (found / "complete").exists():
            shutil.rmtree(found, ignore_errors=True)
            toy.write(found)
            (found / "complete").touch()
        return found

    def model(self) -> Chroma:
        """With drawn weights of full size, or the golden's."""
        if self.size == "full":
            return bench.random_model("4b", self.device, self.dtype)
        return self.load(self.dtype)

    def load(self, dtype: torch.dtype) -> Chroma:
        """The golden's."""
        return checkpoint.load(self.golden, device=self.device, dtype=dtype, codec_dtype=torch.float32)


# ── device ───────────────────────────────────────────────────────────────────────────────────────────────


def device(job: Job) -> None:
    """What the rest runs on."""
    job.do("python", lambda: {"version": platform.python_version(), "machine": platform.machine()})
    job.do("torch", lambda: {"version": torch.__version__, "cuda": torch.version.cuda,
                             "cudnn": torch.backends.cudnn.version()})  # fmt: skip
    job.do("triton", _triton)
    job.do("compiler", lambda: _compiler(job.device))
    job.do("device", lambda: _device(job.device))
    job.do("driver", _driver)
    job.do("rates", lambda: {"copy GB/s": floors.bandwidth(job.device) / 1e9,
                             "Tflop/s": floors.arithmetic(job.device, job.dtype) / 1e12})  # fmt: skip


def _triton() -> dict[str, Any]:
    try:
        import triton
    except ImportError as error:
        return {"passed": not torch.cuda.is_available(), "why": f"not installed: {error}"}
    return {"version": triton.__version__}


def _compiler(device: torch.device) -> dict[str, Any]:
    """Triton builds its launchers with one."""
    named = os.environ.get("CC")
    found = next((path for name in (named, "cc", "gcc", "clang") if name and (path := shutil.which(name))), None)
    if found is None:
        return {"passed": device.type != "cuda", "why": "no C compiler (cc, gcc, clang or CC)"}
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)  # noqa: S603  # found on the PATH
    return {"path": found, "version": version.stdout.partition("\n")[0]}


def _device(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"name": f"CPU, {torch.get_num_threads()} thread(s)", "cores": os.cpu_count()}
    of = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    return {"name": of.name, "capability": f"{of.major}.{of.minor}", "multiprocessors": of.multi_processor_count,
            "GB": total / 1e9, "free GB": free / 1e9}  # fmt: skip


def _driver() -> dict[str, Any]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return {"version": "no nvidia-smi"}
    asked = "driver_version,name,clocks.sm,clocks.max.sm,power.draw,temperature.gpu"
    found = subprocess.run(  # noqa: S603  # found on the PATH
        [tool, f"--query-gpu={asked}", "--format=csv,noheader"],
        capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip
    return {"version": found.stdout.strip() or found.stderr.strip()}


# ── proofs ───────────────────────────────────────────────────────────────────────────────────────────────


def kernels(job: Job) -> None:
    """See `kernel_check`."""
    try:
        import triton  # noqa: F401  # whether it is there
    except ImportError as error:
        raise Missing(f"triton is not installed ({error})") from None
    from model.chroma.tools import kernel_check

    for name, work in kernel_check.checks(job.device, small=job.device.type != "cuda"):
        job.do(name, work)


def speech(job: Job) -> None:
    """See `checkpoint_check`."""
    from model.chroma.tools import checkpoint_check

    if job.asked.checkpoint is None:
        raise Missing("no --checkpoint")
    checkpoint_check.check(job, checkpoint.find(job.asked.checkpoint))


def _verdicts(found: list[golden.Verdict]) -> dict[str, Any]:
    """Of several cases: whether all pass, the largest error, and what fails."""
    bad = [f"{v.case} {v.form}: {', '.join(_fails(v))}" for v in found if not v.passed]
    worst: dict[str, float] = {}
    for verdict in found:
        for name, error in verdict.errors.items():
            worst[name] = max(worst.get(name, 0.0), error)
    return {"passed": not bad, **worst, **({"fails": bad[:5]} if bad else {})}


def _fails(verdict: golden.Verdict) -> Iterator[str]:
    yield from (name for name, same in verdict.equal.items() if not same)
    yield from (name for name, error in verdict.errors.items() if not error <= verdict.limit(name))


@contextmanager
def _exact() -> Iterator[None]:
    """Without TF32, as `verify` runs."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield


def recorded(job: Job) -> None:
    """The golden's answers by the eager step."""
    cases = list(golden.read(job.golden))
    with _exact():
        for dtype, compare in ((torch.float32, golden.verify), (torch.bfloat16, golden.agree)):
            name = str(dtype).removeprefix("torch.")
            if all(f"{form} {name}" in job.known for form in ("batched", "streamed")):
                continue
            model = job.load(dtype)
            job.do(f"batched {name}", lambda m=model, c=compare: _verdicts(c(m, cases, "batched")))
            job.do(f"streamed {name}", lambda m=model, c=compare: _verdicts(
                [verdict for case in cases[:2] for verdict in c(m, [case], "streamed")]))  # fmt: skip


def graphs(job: Job) -> None:
    """Graphs against the step called eagerly."""
    cases = list(golden.read(job.golden))
    with _exact():
        for dtype in (torch.float32, torch.bfloat16):
            name = str(dtype).removeprefix("torch.")
            model, exact = job.load(dtype), dtype == torch.float32
            job.do(f"batched {name}", lambda m=model, e=exact: _verdicts(
                replays.verify(m, cases, "batched", official=e)))  # fmt: skip
            for case in cases[:1]:
                for form in ("one-shot", "streamed"):
                    job.do(f"{case.name} {form} {name}", lambda c=case, f=form, m=model, e=exact: _verdicts(
                        replays.verify(m, [c], f, official=e)))  # fmt: skip
    model = job.model()
    for calls in COMPANY[job.size]:
        job.do(f"{calls} calls, {job.size} size", lambda n=calls: _company(model, n))


def _company(model: Chroma, calls: int) -> dict[str, Any]:
    found = replays.company(model, calls)
    differs = {} if found.differs is None else {"differs": found.differs}
    return {"passed": found.passed, "frames": found.frames, "wave": found.sound, **differs}


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────


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
        job.do(f"{calls} calls", lambda n=calls: _crowd(model, n, size, floor))
        admission.give_back(job.device)
        took[calls] = time.monotonic() - began


def _crowd(model: Chroma, calls: int, size: str, floor: Floor) -> dict[str, Any]:
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
        job.do(f"steps of {calls}", lambda n=calls: _steps(model, n, job.size, rate))
    for slots in (1, 5):
        job.do(f"prefill of {slots}", lambda n=slots: _prefill(model, n))
    for chunks in (1, 2):
        job.do(f"encoder, {chunks} chunk(s)", lambda n=chunks: _encoder(model, n))


def _steps(model: Chroma, calls: int, size: str, rate: float) -> dict[str, Any]:
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

    def once() -> float:
        ear = Ear(model.thinker.audio_tower, mel)
        ear.push(sound)
        return floors.ms(model.device, ear.listen)

    first = once()
    return {"ms": statistics.median(once() for _ in range(7)), "first ms": first, "chunks": chunks}


def admitted(job: Job) -> None:
    """What `auto` would take, and how much memory each of its trials leaves behind."""
    model, size = job.model(), job.size
    voices = 2 << 30 if size == "full" else 1 << 20
    before = admission.free_bytes(job.device)
    job.tell("before", **{"free GB": before / 1e9})
    job.do("auto", lambda: _auto(model, TRIALS_CONTEXT[size], voices))
    admission.give_back(job.device)
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


def beside(job: Job) -> None:
    """The official code's recorded answers on the real checkpoint."""
    if job.asked.official is None or job.asked.checkpoint is None:
        raise Missing("not at hand: no --official answers of the official code on --checkpoint")
    cases = list(golden.read(Path(job.asked.official)))
    directory = checkpoint.find(job.asked.checkpoint)
    with _exact():
        model = checkpoint.load(directory, device=job.device, dtype=job.dtype, codec_dtype=torch.float32)
        compare = golden.verify if job.dtype == torch.float32 else golden.agree
        for case in cases:
            job.do(case.name, lambda c=case: _verdicts(compare(model, [c], "streamed")))


WORK: Final[dict[str, Callable[[Job], None]]] = {
    "device": device, "kernels": kernels, "checkpoint": speech, "golden": recorded, "graphs": graphs,
    "bench": crowds, "gaps": gaps, "admission": admitted, "official": beside,
}  # fmt: skip


def main() -> None:
    """One part, as its standard input asks for."""
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print is no finding
    order = json.load(sys.stdin)
    job = Job(Asked(**order["asked"]), order["known"], time.monotonic() + order["seconds"], told)
    _end_with(os.getppid())
    if job.device.type != "cuda":
        torch.set_num_threads(min(2, torch.get_num_threads()))
    try:
        WORK[sys.argv[1]](job)
    except Missing as error:
        job.end("missing", str(error))
    else:
        job.end("done")


def _end_with(parent: int) -> None:
    """A part whose command is gone would only stand in the way of the next."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main()
