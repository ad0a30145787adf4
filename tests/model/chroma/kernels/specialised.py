"""How often a kernel would be compiled: Triton's own keys, counted without a GPU and without compiling.

Triton compiles a kernel once for each key that it makes of the arguments (types, alignment, constants). Here
it makes them for an H100, and what it would compile and launch does nothing.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.needs import missing


class StandIn:
    """As much of a driver as Triton asks before it compiles."""

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


class _Launched:
    """A kernel that was compiled, and does nothing."""

    function = packed_metadata = None

    def launch_metadata(self, *_: object) -> None:
        return None

    def run(self, *_: object) -> None:
        return None


@dataclass
class Compilations:
    """`compiled`: by kernel, the keys for which Triton would compile it."""

    compiled: dict[str, list[str]] = field(default_factory=dict)

    def count(self) -> dict[str, int]:
        return {name: len(keys) for name, keys in self.compiled.items()}


@contextmanager
def counted() -> Iterator[Compilations]:
    """Within it Triton's kernels are keyed, counted and not run."""
    if importlib.util.find_spec("triton") is None:
        missing("triton is not installed, so compilations are not counted: pip install triton==3.9.0 (1 GB)")
    from triton.runtime.driver import driver
    from triton.runtime.jit import JITFunction

    found = Compilations()

    def compile_(self: Any, key: str, signature: Any, device: Any, *rest: Any) -> _Launched:
        found.compiled.setdefault(self.fn.__name__, []).append(key)
        launched = _Launched()
        self.device_caches[device][0][key] = launched
        return launched

    before, whole = driver._active, JITFunction._do_compile
    _forget()
    driver.set_active(StandIn())
    JITFunction._do_compile = compile_
    try:
        yield found
    finally:
        JITFunction._do_compile = whole
        driver._active = before
        _forget()


def _forget() -> None:
    """No kernel is compiled yet, for any driver."""
    from triton.runtime.jit import _triton_jit_function_registry

    for kernel in _triton_jit_function_registry.values():
        kernel.device_caches.clear()
