"""What becomes of an engine when something fails: which errors end its process, which are one caller's.

A step writes the state of every reply in place, so whatever stops it half way leaves all of them unknown. A
device's own error is told by every call after it, in the process that saw it. Memory that other work does not
get is that work's loss: its caller is refused, and what it took is free.
"""

from __future__ import annotations

from typing import Final, Literal

import torch

from model.chroma.serving.schedule import Kind
from model.json_log import untold
from model.own_process import Cause

Fate = Cause | Literal["refused", "told"]
"""The process ends; or who asked for it is refused, for want of memory; or is told the error."""

OF_DEVICES: Final = (
    "cuda error", "cuda driver error", "cublas error", "cublas_status_", "cudnn error", "cudnn_status_",
    "cufft error", "nccl error", "triton error [", "device-side assert", "hip error",
)  # fmt: skip
"""In the text of an error that is the device's, of torch, Triton or their libraries."""
OF_MEMORY: Final = ("out of memory", "alloc_failed", "allocation_failed", "can't allocate memory")

HUNG_AFTER_S: Final = {"cuda": (5.0, 30.0), "cpu": (60.0, 300.0)}
"""Of a step, and of a piece of other work: many times what it takes. A CPU needs seconds for a frame of the
full model."""
READ_S: Final = 900.0
"""Weights come from a disk."""
PREPARED_S: Final = 180.0
"""One trial of `auto`, or the capture of one graph, whose kernels may have to be compiled."""


def fate(error: BaseException, kind: Kind) -> Fate:
    """What becomes of an `error` of work of that kind."""
    text = str(error).lower()
    memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(word in text for word in OF_MEMORY)
    )
    if memory:
        return Cause.MEMORY if kind is Kind.FRAME else "refused"
    device = isinstance(error, torch.AcceleratorError) or (
        isinstance(error, RuntimeError) and any(word in text for word in OF_DEVICES)
    )
    if device:
        return Cause.DEVICE
    return Cause.STEP if kind is Kind.FRAME else "told"


def hung_after_s(kind: Kind, device: torch.device) -> float:
    """How long work of that kind may take on that device before it counts as hung."""
    step_s, other_s = HUNG_AFTER_S["cuda" if device.type == "cuda" else "cpu"]
    return step_s if kind is Kind.FRAME else other_s


def told(error: BaseException) -> str:
    """An error in a line, for the log: its kind, and where it arose. Only torch's own are quoted: another's
    text may hold what was said; and what torch says after its first line is advice."""
    known = untold(error)
    lines = str(error).strip().splitlines() if isinstance(error, RuntimeError) else []
    where = f" ({known['where']})" if known["where"] else ""
    return f"{known['error']}{f': {lines[0]}' if lines else ''}{where}"


def give_back(device: torch.device) -> None:
    """What torch keeps of memory that nobody uses goes back to the device: others may want it in other
    sizes, and `free_bytes` sees it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
