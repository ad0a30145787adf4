"""G.722 at 64 kbit/s, by FFmpeg: one state for each direction of a call.

A frame of 20 ms takes FFmpeg about 20 µs to encode and 10 µs to decode. The codec is adaptive from sample to
sample, so calls cannot share a look-up as G.711's do. FFmpeg is loaded by who speaks G.722 (`load`, 7 MB), or
else, a fifth of a second late, by its first call.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

import numpy as np

from gateway.rtp.payloads.g711 import Pcm

RATE_HZ: Final = 16_000


def load() -> Any:
    """PyAV's module. Its types do not know what an audio context has."""
    return importlib.import_module("av")


def _context(mode: str) -> Any:
    """An open codec."""
    context = load().CodecContext.create("g722", mode)
    context.sample_rate, context.layout, context.format = RATE_HZ, "mono", "s16"
    context.open()
    return context


class G722Decoder:
    """One call's ear."""

    def __init__(self) -> None:
        self._context = _context("r")
        self._packet = load().Packet

    def decode(self, codes: bytes) -> Pcm:
        """Two samples for each byte; whatever the bytes are, they are sound."""
        frames = self._context.decode(self._packet(codes))
        parts = [bytes(frame.planes[0])[: 2 * frame.samples] for frame in frames]
        return np.frombuffer(b"".join(parts), np.int16)


class G722Encoder:
    """One call's mouth."""

    def __init__(self) -> None:
        self._context = _context("w")
        self._frame: Any = None

    def encode(self, pcm: bytes) -> bytes:
        """A byte for each two samples of int16; `pcm` has an even number of them, as many each time."""
        if self._frame is None:
            self._frame = load().AudioFrame(format="s16", layout="mono", samples=len(pcm) // 2)
            self._frame.sample_rate = RATE_HZ
        self._frame.planes[0].update(pcm)
        return b"".join(map(bytes, self._context.encode(self._frame)))
