"""How attention's keys are shared out among programs, in steps as in prefill.

The two kernels' sums over a share are alike and stand in each: joined in one inlined function, one or the
other takes more registers than its budget (137 for 136, or 199 for 196, compiled for sm_90 by Triton 3.9).
"""

from __future__ import annotations

import torch
import triton

BLOCK = 64
"""Keys that are read at once; all of them lie in one page."""
BYTE_BLOCK = 32
"""The same of keys in a byte a number: made wide, 64 take more registers than keep the device full."""
LEAST = 16
"""`tl.dot` takes no less of any axis."""


def filling(device: torch.device, programs: int, waves: int, most: int) -> int:
    """Shares for each of so many programs, so that every multiprocessor has `waves` of them; a power of two,
    `most` at most."""
    if device.type != "cuda":  # Triton's interpreter
        return 2
    aim = waves * torch.cuda.get_device_properties(device).multi_processor_count
    return int(min(triton.next_power_of_2(max(1, aim // programs)), most))
