"""A leak for `benchmarks.soak --leak`: a hall that keeps some bytes of each call.

`injected` makes a folder for PYTHONPATH whose `sitecustomize` has this module lie in wait for the hall's, and
each process tell what it has in use (`benchmarks.heap_watch`). The product has no such setting.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from benchmarks import heap_watch

BYTES_VARIABLE: Final = "SOAK_LEAK_BYTES"
HALL: Final = "gateway.hall.hall"
ENTRY: Final = "gateway.run.entry"
ROOT: Final = Path(__file__).resolve().parents[1]


CUSTOM: Final = """
from benchmarks import heap_watch, soak_leak

soak_leak.lie_in_wait()
heap_watch.begin()
"""


def injected(folder: Path, leak_bytes: int) -> dict[str, str]:
    """What a house's environment needs, so that its halls leak so many bytes a call (0: none), and all its
    processes tell in `folder` what they have in use."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(CUSTOM)
    paths = [str(folder), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    more = {BYTES_VARIABLE: str(leak_bytes)} if leak_bytes else {}
    told = {heap_watch.FOLDER_VARIABLE: str(folder), heap_watch.MALLOC_VARIABLE: heap_watch.MALLOC}
    return {"PYTHONPATH": os.pathsep.join(paths), **told, **more}


def lie_in_wait() -> None:
    """Has modules changed when this process imports them: the way into each process, so that it tells; the
    hall's, if it is to leak."""
    sys.meta_path.insert(0, _Finder(ENTRY, _tells))
    if (leak_bytes := int(os.environ.get(BYTES_VARIABLE, 0))) > 0:
        sys.meta_path.insert(0, _Finder(HALL, functools.partial(_leaks, leak_bytes)))


def _tells(entry: ModuleType) -> None:
    entry.live = heap_watch.watching(entry.live)  # type: ignore[attr-defined]


def _leaks(leak_bytes: int, module: ModuleType) -> None:
    module.Hall._make = leaking(module.Hall._make, leak_bytes)


def leaking(make: Callable[..., Any], leak_bytes: int) -> Callable[..., Any]:
    """`make`, which keeps so many bytes each time."""
    kept: list[bytearray] = []

    @functools.wraps(make)
    def made(*args: Any, **more: Any) -> Any:
        kept.append(bytearray(b"x" * leak_bytes))
        return make(*args, **more)

    return made


class _Finder(importlib.abc.MetaPathFinder):
    """Has one module changed, once."""

    def __init__(self, name: str, change: Callable[[ModuleType], None]) -> None:
        self._name, self._change = name, change

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            self._change(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]  # of this module's loader alone
        return spec
