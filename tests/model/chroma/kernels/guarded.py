"""The interpreted proof with guards: what a kernel may touch, and what nobody has written yet.

* Each load and store that its mask lets through lies within a tensor that was handed to the launch, from its
  first element to its last; a GPU would read its neighbour's memory and say nothing.
* `torch.empty` and its kind are full of NaN (whole numbers of -2**62): what a kernel leaves unwritten, and
  somebody reads, is wrong. So are caches before anybody wrote them, scratch places included.

Run as a program of its own by `test_kernels`, with TRITON_INTERPRET=1.
"""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime import interpreter

from tests.model.chroma.kernels.budgets import BUDGETS

EMPTY = ("empty", "empty_like", "empty_strided")


class OutOfRange(Exception):
    """A kernel touched memory that it was not handed."""


def poison(x: Tensor) -> Tensor:
    """Filled with what nobody may read, in place."""
    if x.is_floating_point():
        x.view(torch.uint8).fill_(0x7F) if x.element_size() == 1 else x.fill_(torch.nan)  # float8's NaN
    elif x.dtype != torch.bool:
        x.fill_(max(torch.iinfo(x.dtype).min, -(1 << 62)))
    return x


def extent(x: Tensor) -> tuple[int, int]:
    """Addresses from the first element to behind the last."""
    if not x.numel():
        return x.data_ptr(), x.data_ptr()
    last = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return x.data_ptr(), x.data_ptr() + (last + 1) * x.element_size()


@contextmanager
def guarded() -> Iterator[set[str]]:
    """Both guards stand; the names of the kernels that were launched."""
    launched: set[str] = set()
    allowed: list[tuple[int, int]] = []
    name = ""
    builder, executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
    load, store, call = builder.create_masked_load, builder.create_masked_store, executor.__call__
    made = {kind: getattr(torch, kind) for kind in EMPTY}

    def check(what: str, pointers: Any, mask: Any) -> None:
        at = pointers.data[mask.data]
        size = pointers.get_element_ty().primitive_bitwidth // 8
        inside = np.zeros(at.shape, dtype=bool)
        for low, high in allowed:
            inside |= (at >= low) & (at + size <= high)
        if not inside.all():
            raise OutOfRange(f"{name} {what} {int((~inside).sum())} places outside of what it was handed")

    def checked_load(self: Any, ptrs: Any, mask: Any, *more: Any) -> Any:
        check("loads", ptrs, mask)
        return load(self, ptrs, mask, *more)

    def checked_store(self: Any, ptrs: Any, value: Any, mask: Any, *more: Any) -> Any:
        check("stores", ptrs, mask)
        return store(self, ptrs, value, mask, *more)

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal name
        name = self.fn.__name__
        launched.add(name)
        allowed[:] = [extent(one) for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]
        return call(self, *args, **kwargs)

    builder.create_masked_load, builder.create_masked_store = checked_load, checked_store
    executor.__call__ = watched
    for kind, make in made.items():
        setattr(torch, kind, lambda *args, make=make, **kwargs: poison(make(*args, **kwargs)))
    try:
        yield launched
    finally:
        builder.create_masked_load, builder.create_masked_store = load, store
        executor.__call__ = call
        for kind, make in made.items():
            setattr(torch, kind, make)


class _Kept:
    """A patch that stays."""

    def restore(self) -> None:
        """Not at the end of a launch."""


@contextmanager
def patched_once() -> Iterator[None]:
    """Triton's language is made the interpreter's once for each module of kernels, until this ends.

    By itself the interpreter (3.9) does so at each launch and again at each call of one function by another,
    and looks through all of the language for it: half of what a small kernel takes.
    """
    patch = interpreter._patch_lang
    scopes: dict[str, Any] = {}

    def once(kernel: Any) -> _Kept:
        module = kernel.__module__
        if module not in scopes:
            scopes[module] = patch(kernel)
        return _Kept()

    interpreter._patch_lang = once
    try:
        yield
    finally:
        interpreter._patch_lang = patch
        for scope in reversed(scopes.values()):
            scope.restore()


@triton.jit
def _careless(x, out, count, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at), mask=at < count)


def guards() -> None:
    """They see what they are for."""
    x, out = torch.ones(15), torch.empty(16)
    assert out.isnan().all(), "what nobody wrote is no number"
    _careless[(1,)](x[:8], out[:7], 7, BLOCK=8)
    assert out[:7].eq(1).all()
    assert out[7:].isnan().all()
    for inside in (8, 7):
        with pytest.raises(interpreter.InterpreterError, match="OutOfRange"):
            _careless[(1,)](x[:inside], out[:6], 7, BLOCK=8)


if __name__ == "__main__":
    torch.manual_seed(0)
    with patched_once(), guarded() as launched:
        guards()
        runpy.run_module("tests.model.chroma.interpreted", run_name="__main__")
    assert launched >= BUDGETS.keys(), f"not tried: {BUDGETS.keys() - launched}"
