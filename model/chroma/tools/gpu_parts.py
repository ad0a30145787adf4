"""The parts of `gpu_check`, each run as a program of its own: `python -m model.chroma.tools.gpu_parts PART`.

On its standard input comes what is asked, known already and how much time there is; on its standard output
goes a line of JSON for each thing found, before it is tried and after.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from model.chroma.network import checkpoint
from model.chroma.network.weights import Chroma
from model.chroma.tools import floor as floors
from model.chroma.tools import golden, gpu_figures, replays
from model.chroma.tools.gpu_check import CheckAsked
from model.chroma.tools.gpu_job import Job, Missing

COMPANY: Final = {"full": (1, 8, 64), "small": (1, 3)}
FORMS: Final[tuple[golden.Form, ...]] = ("one-shot", "streamed")
Compare = Callable[[Chroma, Sequence[golden.Case], golden.Form], list[golden.Verdict]]


# ── device ───────────────────────────────────────────────────────────────────────────────────────────────


def device(job: Job) -> None:
    """What the rest runs on."""
    job.do("python", lambda: {"version": platform.python_version(), "machine": platform.machine()})
    job.do("torch", lambda: {"version": torch.__version__, "cuda": torch.version.cuda,
                             "cudnn": torch.backends.cudnn.version()})  # type: ignore[no-untyped-call]  # torch's  # fmt: skip
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
    found = next(
        (path for name in (named, "cc", "gcc", "clang") if name and (path := shutil.which(name))), None
    )
    if found is None:
        return {"passed": device.type != "cuda", "why": "no C compiler (cc, gcc, clang or CC)"}
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)  # noqa: S603  # found on the PATH
    return {"path": found, "version": version.stdout.partition("\n")[0]}


def _device(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"name": f"CPU, {torch.get_num_threads()} thread(s)", "cores": os.cpu_count()}
    of = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    return {
        "name": of.name, "capability": f"{of.major}.{of.minor}", "GB": total / 1e9, "free GB": free / 1e9,
        "multiprocessors": of.multi_processor_count,
    }  # fmt: skip


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


def _compared(
    compare: Compare, model: Chroma, runs: list[list[golden.Case]], form: golden.Form
) -> dict[str, Any]:
    """Of several runs: whether all cases pass, the largest errors, and what fails."""
    found = [verdict for cases in runs for verdict in compare(model, cases, form)]
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
            job.do(f"batched {name}", partial(_compared, compare, model, [cases], "batched"))
            few = [[case] for case in cases[: 2 if job.size == "full" else 1]]
            job.do(f"streamed {name}", partial(_compared, compare, model, few, "streamed"))


def graphs(job: Job) -> None:
    """Graphs against the step called eagerly."""
    cases = list(golden.read(job.golden))
    with _exact():
        for dtype in (torch.float32, torch.bfloat16):
            name = str(dtype).removeprefix("torch.")
            model, exact = job.load(dtype), dtype == torch.float32
            compare = partial(replays.verify, official=exact)
            job.do(f"batched {name}", partial(_compared, compare, model, [cases], "batched"))
            for form in FORMS if exact or job.size == "full" else ():
                job.do(f"{form} {name}", partial(_compared, compare, model, [cases[:1]], form))
    model = job.model()
    for calls in COMPANY[job.size]:
        job.do(f"{calls} calls, {job.size} size", partial(_company, model, calls))


def _company(model: Chroma, calls: int) -> dict[str, Any]:
    found = replays.company(model, calls)
    differs = {} if found.differs is None else {"differs": found.differs}
    return {"passed": found.passed, "frames": found.frames, "wave": found.sound, **differs}


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
            job.do(case.name, partial(_compared, compare, model, [[case]], "streamed"))


WORK: Final[dict[str, Callable[[Job], None]]] = {
    "device": device, "kernels": kernels, "checkpoint": speech, "golden": recorded, "graphs": graphs,
    "bench": gpu_figures.crowds, "gaps": gpu_figures.gaps, "admission": gpu_figures.admitted,
    "official": beside,
}  # fmt: skip


def main() -> None:
    """One part, as its standard input asks for."""
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print is no finding
    order = json.load(sys.stdin)
    job = Job(CheckAsked(**order["asked"]), order["known"], time.monotonic() + order["seconds"], told)
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
