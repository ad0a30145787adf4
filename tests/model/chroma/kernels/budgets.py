"""What each kernel may need: at most so many registers of a thread and bytes of shared memory of a program.

A new kernel needs a row in `BUDGETS`; a function that others inline, one in `INLINED`. Who raises a row says
why: the 65,536 registers of a multiprocessor are shared by the threads of all programs that run on it, its
227 KiB of memory by the programs. `python -m benchmarks.engine_kernels` prints what is needed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """At most so many registers of a thread and bytes of shared memory of a program, in any variant."""

    registers: int
    shared: int


BUDGETS = {
    "_add_norm": Budget(40, 64),
    "_combine": Budget(40, 2_048),
    "_depth": Budget(80, 2_048),
    "_draw": Budget(104, 128),
    "_gated": Budget(32, 0),
    "_narrow": Budget(80, 64),
    "_product": Budget(152, 65_536),  # 128 rows by 64 outputs, inputs shared, whose edge is uneven
    "_rotate_put": Budget(32, 0),
    # three programs on a multiprocessor by either
    "_share": Budget(136, 73_728),
    # two programs on a multiprocessor: 64 queries have a sum of 128 numbers each
    "_tile_share": Budget(196, 81_924),
}
INLINED = frozenset({"_half", "_mix", "page_of"})
"""Functions of the package that Triton compiles into others."""
