"""Our Triton kernels compiled ahead of time: `python -m benchmarks.engine_kernels [--target sm_100]`.

What is compiled is what the code launches: steps, prefills and a voice of the full model, with weights and
with keys and values in bytes too, are traced on shapes alone (`model.chroma.tools.launches`), and Triton is
asked to warm up for each of the calls. Each distinct combination of types, constants, and what is known of
integers and addresses, is one variant.
Needs triton, whose compiler, assembler and `cuobjdump` are its own, and no GPU.
"""

from __future__ import annotations

import importlib
import itertools
import pkgutil
import re
import subprocess
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import click
import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction, MockTensor

import model.chroma.kernels as package
from model.chroma.kernels.byte_kernel import narrow
from model.chroma.network.precision import KV, Weights
from model.chroma.serving import voices
from model.chroma.tools import launches
from model.chroma.tools.launches import KernelCall

TARGETS: Final = ("sm_80", "sm_90", "sm_100")
"""An A100's, an H100's and H200's, a B200's."""
WITHOUT_FP8: Final = ("sm_80",)
"""Triton has no e4m3 there, and the engine takes neither weights nor keys and values in fp8."""
VARIED: Final = {"SPLITS": (1, 32), "SHARED": (False, True)}
"""Constants that the size of a device decides, and what they may be: into how many shares a row's keys are
cut, and whether the inputs of a product are. Calls on shapes alone have one of them."""
SLOTS: Final = 80
ROWS: Final = (1, 5)
"""Of a step: a single row, whose strides are ones, and an odd number."""
BYTE_ROWS: Final = (5, 80)
"""The same where weights are bytes: each has a tile of its own."""
PREFILLS: Final = ((50,), (50, 12, 1, 50, 37), (256,))
"""New positions of each slot in a pass."""
USAGE: Final = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)")


@dataclass(frozen=True, slots=True)
class Compiled:
    """What the assembler said of one variant. `registers` of a thread, `shared` bytes of a program, `spilled`
    bytes of a thread: what did not fit into registers."""

    name: str
    variant: str
    registers: int
    shared: int
    spilled: int


def kernels() -> dict[str, JITFunction]:
    """Every function of `model.chroma.kernels` that Triton compiles, by name; also those that are inlined."""
    found = {}
    for module in pkgutil.iter_modules(package.__path__):
        members = vars(importlib.import_module(f"{package.__name__}.{module.name}"))
        found.update({name: one for name, one in members.items() if isinstance(one, JITFunction)})
    return found


@cache
@torch.inference_mode()
def calls(weights: Weights = "full", kv: KV = "full") -> list[KernelCall]:
    """Every launch of our kernels in steps of several sizes, prefills and a voice of the full model; with
    rounded weights in steps alone."""
    return list(_calls(weights, kv))


def _calls(weights: Weights, kv: KV) -> Iterator[KernelCall]:
    model = launches.on_paper(launches.full_size(), weights=weights, kv=kv)
    steps = launches.steps_on_paper(model, SLOTS)
    for rows in ROWS if weights == "full" else BYTE_ROWS:
        yield from launches.of_step(steps, rows, words=True, pairs=True).calls
        if weights == "full":
            yield from launches.of_step(steps, rows, words=False, pairs=False).calls
    if weights == "fp8":  # a second implementation, off until it wins on a device
        inputs = model.config.thinker.intermediate
        with launches.counted() as found:
            narrow(torch.empty(ROWS[-1], inputs, dtype=model.dtype, device="meta"))
        yield from found.calls
    if weights != "full":
        return
    for widths in PREFILLS:
        yield from launches.of_prefill(steps, widths).calls
    ids = torch.empty(20, dtype=torch.long, device="meta")
    codes = torch.empty(60, model.config.codebooks, dtype=torch.long, device="meta")
    with launches.counted() as found:
        voices.prepare(model, ids, codes)
    yield from found.calls


class _Known(MockTensor):  # type: ignore[misc]  # triton has no types
    """An argument as Triton looks at it: its type, and whether 16 divides its address."""

    def __init__(self, like: Tensor) -> None:
        super().__init__(like.dtype, list(like.shape))
        self._at = int(like.storage_offset()) * like.element_size()

    def data_ptr(self) -> int:
        return self._at


class _Absent:
    """A driver for a device that is not there."""

    def __init__(self, target: str) -> None:
        self._arch = int(target.removeprefix("sm_"))

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._arch, 32)

    def get_current_device(self) -> int:
        """One for each target: Triton keeps what it compiled by device."""
        return self._arch

    def get_current_stream(self, device: int) -> int:
        return device


def compiled(called: Iterable[KernelCall], target: str, **options: int) -> list[Compiled]:
    """The distinct variants that these calls need, with Triton's `options`. Raises what Triton raises."""
    before, found = driver._active, {}
    driver.set_active(_Absent(target))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "TRITON_DEFAULT_FP_FUSION")  # not in our release
            for call in called:
                args = [_Known(one) if isinstance(one, Tensor) else one for one in call.args]
                given = {k: _Known(v) if isinstance(v, Tensor) else v for k, v in call.kwargs.items()}
                varied = [name for name in VARIED if name in given]
                for values in itertools.product(*(VARIED[name] for name in varied)):
                    more = {**given, **dict(zip(varied, values, strict=True))}
                    kernel = call.kernel.warmup(*args, grid=call.grid, **more, **options)
                    found[kernel.hash] = call, kernel
    finally:
        driver._active = before
    return [_read(call.name, kernel) for call, kernel in found.values()]


def _read(name: str, kernel: Any) -> Compiled:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(kernel.asm["cubin"])
        asked = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    usage = USAGE.search(said)
    if usage is None:
        raise click.ClickException(f"cuobjdump says nothing of {name}'s registers: {said}")
    registers, stack, local = map(int, usage.groups())
    source = kernel.src
    names = list(source.signature)
    types = dict.fromkeys(kind[1:] for kind in source.signature.values() if kind.startswith("*"))
    known = [f"{names[at[0]]}={value}" for at, value in source.constants.items() if names[at[0]].isupper()]
    return Compiled(
        name, f"{','.join(types)} {' '.join(known)}", registers, kernel.metadata.shared, stack + local
    )


def everything(target: str) -> list[Compiled]:
    """All variants that serving needs."""
    kinds: list[tuple[Weights, KV]] = [("full", "full"), ("int8", "full")]
    if target not in WITHOUT_FP8:
        kinds += [("fp8", "full"), ("full", "fp8")]
    return compiled((call for kind in kinds for call in calls(*kind)), target)


@click.command()
@click.option("--target", "targets", type=click.Choice(TARGETS), multiple=True, default=TARGETS)
def main(targets: tuple[str, ...]) -> None:
    """Compile every kernel for GPUs that need not be here; fails when one spills."""
    spilled = 0
    for target in targets:
        click.echo(f"{target}: {'kernel':<16}{'registers':>10}{'shared, B':>11}{'spilled, B':>12}  variant")
        for one in everything(target):
            figures = f"{one.registers:>10}{one.shared:>11,}{one.spilled:>12,}"
            click.echo(f"{'':{len(target)}}  {one.name:<16}{figures}  {one.variant}")
            spilled += one.spilled > 0
    if spilled:
        raise click.ClickException(f"{spilled} variants do not fit into registers")


if __name__ == "__main__":
    main()
