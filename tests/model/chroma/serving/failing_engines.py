"""Engines for an engine's own process (`model.worker`), whose steps fail after some that went well.

They stand apart from `test_engine_ends`, whose front a process of weights need not load.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any, Final

import torch

from model import engines, own_process
from model.api import Engine
from model.chroma.serving import fates
from model.chroma.serving.engine import ChromaEngine

SOUND_STEPS: Final = 6
"""Steps that go well, before one that does not."""
ILLEGAL: Final = "CUDA error: an illegal memory access was encountered"


async def _ill(meets: Callable[[], object]) -> Engine:
    """The engine, whose steps meet that."""
    engine = await engines.chroma()
    assert isinstance(engine, ChromaEngine)
    run, steps = engine.steps.run, iter(range(1_000_000))

    def step(*given: Any) -> Any:
        if next(steps) >= SOUND_STEPS:
            meets()
        return run(*given)

    engine.steps.run = step  # type: ignore[method-assign]  # that is the injection
    return engine


def _fail(error: Exception) -> None:
    raise error


async def sticky() -> Engine:
    return await _ill(lambda: _fail(torch.AcceleratorError(ILLEGAL)))


async def without_memory() -> Engine:
    return await _ill(lambda: _fail(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")))


async def hung() -> Engine:
    fates.HUNG_AFTER_S["cpu"] = (2.0, 300.0)  # nobody waits for a minute here
    return await _ill(lambda: time.sleep(1000))


async def hung_with_the_interpreter() -> Engine:
    own_process.HELD_S = 3.0  # type: ignore[misc]  # nor for this
    return await _ill(lambda: ctypes.PyDLL(None).sleep(1000))
