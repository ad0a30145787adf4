"""Where a slot's positions lie in a cache of pages, as every kernel finds them.

A layer's keys are `(pages, kv_heads, PAGE, D)`, and so are its values; `table` `(slots + 1, …)` int32 names
the page of each piece of `PAGE` places. What a row must not write goes to a place whose page is scratch.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def page_of(table, table_row, slot, place, PAGE: tl.constexpr):
    """The page, int64, of a `slot`'s `place`; both may be tensors. `table_row`: the table's stride."""
    return tl.load(table + slot * table_row + place // PAGE).to(tl.int64)
