"""Noise for the pauses of a caller whose telephone sends none of its own (RFC 3389).

Of what such a packet says only the level is used: the pause is filled with noise as loud as the caller's
room, so that speech does not come out of nothing. Its colour (the reflection coefficients) is left out.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from gateway.rtp.payloads.g711 import Pcm
from watermark.pcm import int16_from_float

LENGTH: Final = 8_192
_UNIT: Final = np.random.default_rng(3389).standard_normal(LENGTH).astype(np.float32)


class ComfortNoise:
    """One pause. `level` is the packet's first byte: -dBov, 0 to 127; 0 is the loudest square wave."""

    __slots__ = ("_at", "_loudness")

    def __init__(self, level: int) -> None:
        self._loudness = np.float32(10 ** (-(level & 0x7F) / 20))
        self._at = 0

    def next(self, count: int) -> Pcm:
        """`count` samples of it, at most `LENGTH`."""
        if self._at + count > LENGTH:
            self._at = 0
        at, self._at = self._at, self._at + count
        return int16_from_float(_UNIT[at : at + count] * self._loudness)
