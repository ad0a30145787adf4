"""What the host knows, brought to the device without waiting for it.

On a GPU numbers go through pinned memory and the copy is only begun: torch's allocator keeps the pinned
memory until the stream has read it, and what follows on the stream finds the copy done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def uploaded(values: Sequence[Any], device: torch.device, dtype: torch.dtype = torch.long) -> Tensor:
    """Numbers, in lists of any depth, as a tensor of the device."""
    pinned = device.type == "cuda"
    return torch.tensor(values, dtype=dtype, pin_memory=pinned).to(device, non_blocking=True)


def uploaded_sound(pcm: NDArray[np.float32], device: torch.device) -> Tensor:
    """A copy of samples `(n,)` float32."""
    sound = torch.from_numpy(pcm.copy())
    return sound.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else sound.to(device)
