"""How many kernels a piece of work launches, counted on shapes alone: no GPU, no weights, no data.

The model stands on torch's meta device. Every torch operation that would start a kernel is counted as it goes
by; every Triton kernel is recorded in place of being compiled. What the counts leave out:

* torch may start more than one kernel for one operation: a convolution or a product may turn its layout or
  add up split sums, a sort or a sum may go in passes, `cat` takes 128 inputs at most. Each counts as one; a
  convolution with a bias counts as two (cuDNN's, and torch's addition), attention under a mask as three (the
  mask is made wide, and its rows are aligned).
* Copies between host and device, and what the caching allocator or a graph itself adds, are not counted.
* A view is nothing, and neither is a cast to the type that a tensor already has.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model.chroma.network import checkpoint, config
from model.chroma.network.config import ChromaConfig
from model.chroma.network.precision import KV, Weights, keep_kv, round_weights
from model.chroma.network.quirks import SERVING
from model.chroma.network.weights import Chroma
from model.chroma.serving.slots import Slots
from model.chroma.serving.steps import Steps

NOTHING: Final = frozenset({
    "aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty", "aten::new_empty_strided",
    "aten::detach", "aten::alias", "aten::lift_fresh", "aten::_unsafe_view", "aten::_reshape_alias",
    "aten::view", "aten::resize_", "aten::set_",
})  # fmt: skip
"""Operations that start no kernel, beside those that torch marks as views."""
WHOLE: Final = frozenset({
    "aten::rms_norm", "aten::layer_norm", "aten::linear", "aten::softmax", "aten::embedding",
    "aten::conv1d", "aten::conv_transpose1d", "aten::scaled_dot_product_attention",
})  # fmt: skip
"""Operations that torch would take apart on the meta device and has a kernel for on a GPU."""


@dataclass(frozen=True, slots=True)
class KernelCall:
    """One launch of a Triton kernel: the `JITFunction`, its grid and its arguments."""

    kernel: Any
    grid: tuple[int, ...]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.kernel.fn.__name__)


@dataclass(slots=True)
class Launches:
    """What was launched, by name: torch's operations and our kernels."""

    torch: Counter[str] = field(default_factory=Counter)
    calls: list[KernelCall] = field(default_factory=list)

    @property
    def triton(self) -> Counter[str]:
        return Counter(call.name for call in self.calls)

    @property
    def total(self) -> int:
        return self.torch.total() + len(self.calls)


class _Watch(TorchDispatchMode):
    """Counts torch's operations; those that consist of others are taken apart first."""

    def __init__(self, found: Launches) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self._found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        if name not in WHOLE and torch._C._dispatch_has_kernel_for_dispatch_key(
            func.name(), torch._C.DispatchKey.CompositeImplicitAutograd
        ):
            with self:
                return func.decompose(*args, **kwargs)
        result = func(*args, **kwargs)
        if name in WHOLE or not (func.is_view or name in NOTHING):
            self._found.torch[name.removeprefix("aten::")] += _kernels(name, args, kwargs)
        return result


def _kernels(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Kernels of one operation."""
    if name in ("aten::conv1d", "aten::conv_transpose1d"):
        return 2 if len(args) > 2 and args[2] is not None else 1
    if name == "aten::scaled_dot_product_attention":
        mask = kwargs.get("attn_mask", args[3] if len(args) > 3 else None)
        return 1 if mask is None else 3
    return 1


@contextmanager
def counted() -> Iterator[Launches]:
    """Counts what is launched within. All tensors must be on the meta device; triton must be installed."""
    from triton.runtime.jit import JITFunction  # not installed everywhere

    found = Launches()

    def record(kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        if callable(grid):
            raise TypeError(f"{kernel.fn.__name__}: a grid that asks for the arguments is not counted")
        found.calls.append(KernelCall(kernel, tuple(grid), args, kwargs))

    run = JITFunction.run
    JITFunction.run = record
    try:
        with _Watch(found):
            yield found
    finally:
        JITFunction.run = run


def full_size() -> ChromaConfig:
    """The sizes of the full model."""
    return config.parse(json.loads(config.FULL_SIZE.read_text()), "4b")


def on_paper(
    sizes: ChromaConfig, dtype: torch.dtype = torch.bfloat16, weights: Weights = "full", kv: KV = "full"
) -> Chroma:
    """The model without memory, as a GPU would hold it: Mimi in float32, all else in `dtype`."""
    model = checkpoint.blueprint(sizes)
    for name, like in model.state_dict().items():
        kind = torch.float32 if name.startswith("codec_model.") else dtype
        checkpoint.place(model, name, like.to(kind))
    return keep_kv(round_weights(model.eval(), weights), kv)


def steps_on_paper(model: Chroma, slots: int, context: int = 2048) -> Steps:
    """Steps that take the GPU's kernels, over slots without memory."""
    steps = Steps(model, Slots.make(model, slots, SERVING, context=context), SERVING)
    for cache in (steps.slots.thinker, steps.slots.backbone, steps.slots.frame, steps.slots.codec.cache):
        cache.kernels = True
    return steps


@torch.inference_mode()
def of_step(steps: Steps, rows: int, *, words: bool, pairs: bool) -> Launches:
    """One step of so many `rows`, sound included: the thinker goes on where `words`, and words come
    in where `pairs`."""
    shape = steps.shape(range(rows), words=words, pairs=pairs)

    def step() -> Tensor:
        return steps.step(shape, torch.empty(rows, dtype=torch.long, device="meta"))

    return _warm(step)


@torch.inference_mode()
def of_prefill(steps: Steps, widths: Sequence[int]) -> Launches:
    """One pass of so many new positions of each of the first slots."""
    hidden = steps.model.config.thinker.hidden
    fresh = {
        slot: torch.empty(width, hidden, dtype=steps.model.dtype, device="meta")
        for slot, width in enumerate(widths)
    }

    def pass_() -> None:
        for slot in fresh:
            steps.slots.thinker.lengths[slot] = 0
        steps.prefill(fresh)

    return _warm(pass_)


@torch.inference_mode()
def of_hearing(steps: Steps, chunks: int) -> Launches:
    """One pass of so many chunks through the audio encoder, each with its own number of mel frames."""
    tower = steps.model.thinker.audio_tower
    config = tower.config

    def pass_() -> None:
        mels = torch.empty(chunks, config.mels, config.chunk, device="meta")
        tower(mels, torch.empty(chunks, dtype=torch.long, device="meta"))

    return _warm(pass_)


def _warm(work: Callable[[], object]) -> Launches:
    """The launches of the second time: the first puts frequencies and codewords in place."""
    with counted():
        work()
    with counted() as found:
        work()
    return found
