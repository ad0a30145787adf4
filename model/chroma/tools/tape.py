"""Stand-ins for CUDA graphs: a tape of operations where there is no GPU, and a call that is made again.

A tape keeps what a graph keeps: each operation with the very tensors it had, and nothing of Python's. What
the call read of the host stays as it was when the call was recorded, a tensor that was put in another's place
later is not seen, and the recording's own memory may hold anything when a replay begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model.chroma.serving.graph_capture import GraphRecorder

T = TypeVar("T")
UNWRITTEN = ("aten.empty", "aten.new_empty")
"""The beginnings of the names of operations that make memory and write nothing into it."""


@dataclass(frozen=True, slots=True)
class _Operation:
    function: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    made: dict[int, Tensor]
    """what it returned in memory of its own, by place; nothing where it writes into others'"""

    def again(self) -> None:
        found = self.function(*self.arguments, **self.options)
        if self.made:
            every = _tensors(found)
            for place, target in self.made.items():
                target.copy_(every[place])


@dataclass(slots=True)
class Tape:
    """What a call did, to be done again."""

    operations: list[_Operation] = field(default_factory=list)
    memory: list[Tensor] = field(default_factory=list)
    """made by the call itself"""

    def replay(self) -> None:
        """Every operation once more, on the tensors that it had; the memory is spoilt before."""
        for tensor in self.memory:
            tensor.fill_(torch.nan if tensor.is_floating_point() else 1)
        for operation in self.operations:
            operation.again()


class _Taping(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Writes what torch is asked to do on a tape."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self._tape = tape

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        found = func(*args, **options)
        if func._schema.is_mutable:
            self._tape.operations.append(_Operation(func, args, options, {}))
            return found
        given = {_place(tensor) for tensor in _tensors((args, options))}
        made = {at: one for at, one in enumerate(_tensors(found)) if _place(one) not in given}
        if not made:
            return found  # views: their memory is another's
        self._tape.memory += made.values()
        if not str(func).startswith(UNWRITTEN):
            self._tape.operations.append(_Operation(func, args, options, made))
        return found


class TapeRecorder:
    """Records tapes, on any device."""

    pinned = False

    def __call__(self, work: Callable[[], T]) -> tuple[Tape, T]:
        """The work is done twice before, as `Capturer` does."""
        for _ in range(2):
            work()
        tape = Tape()
        with _Taping(tape):
            found = work()
        return tape, found

    def wait(self) -> None:
        """Nothing is under way: the host did it all."""


@dataclass(frozen=True, slots=True)
class _Call:
    work: Callable[[], Any]
    found: list[Tensor]

    def replay(self) -> None:
        for kept, one in zip(self.found, _tensors(self.work()), strict=True):
            kept.copy_(one)


class CallRecorder:
    """Does the work again, eagerly, over the same padded rows as a graph: what graphs compare with."""

    def __init__(self, device: torch.device) -> None:
        self.pinned = device.type == "cuda"
        self._device = device

    def __call__(self, work: Callable[[], T]) -> tuple[_Call, T]:
        """The work, whose results go where those of the first time lie."""
        found = work()
        return _Call(work, _tensors(found)), found

    def wait(self) -> None:
        """Until the device is idle."""
        if self.pinned:
            torch.cuda.synchronize(self._device)


def graphs(device: torch.device) -> GraphRecorder | None:
    """How graphs are recorded there: None lets the runner take CUDA's; a CPU has tapes."""
    return None if device.type == "cuda" else TapeRecorder()


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _place(tensor: Tensor) -> int:
    """Which memory it lies in."""
    return int(tensor.untyped_storage()._cdata)
