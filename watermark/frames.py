"""The only two things a leg may play: a marked frame, or silence.

A `MarkedFrame` can be made only inside `watermark` (a `Marker` holds the seal), so a type checker and the
running program both refuse synthesized sound that carries no mark.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

RATE_HZ: Final = 24_000
"""Sample rate of everything inside the house."""

_SEAL: Final = object()


class MarkedFrame:
    """Sound that carries the call's mark.

    `samples`: float32 `(n,)`, 24 kHz mono in [-1, 1], read-only.
    """

    __slots__ = ("samples",)

    def __init__(self, samples: NDArray[np.float32], *, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("a MarkedFrame is made by watermark.Marker only: mark the frame, or play Silence")
        samples.setflags(write=False)
        self.samples = samples

    def __len__(self) -> int:
        return int(self.samples.shape[0])


@dataclass(frozen=True, slots=True)
class Silence:
    """`samples` samples of digital zero at 24 kHz."""

    samples: int

    def __len__(self) -> int:
        return self.samples


Frame = MarkedFrame | Silence
