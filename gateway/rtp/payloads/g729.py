"""G.729 Annex A (RFC 3551 §4.5.6), 8 kbit/s, where this machine has bcg729: 10 bytes for 10 ms of 8 kHz.

Comfort noise of Annex B is heard, and never sent.
"""

from __future__ import annotations

import ctypes
from typing import Final

import numpy as np

from gateway.config import bcg729
from gateway.rtp.payloads.g711 import Pcm

UNIT: Final = 80
"""Samples of 10 ms."""
CODES: Final = 10
"""Their bytes."""
NOISE_CODES: Final = 2
"""Of comfort noise, at a packet's end."""
MOST_UNITS: Final = 24
"""Of one packet, 240 ms."""


class G729Decoder:
    """One call's ear. Raises `RuntimeError` where there is no bcg729."""

    def __init__(self) -> None:
        self._library = _library()
        self._state = ctypes.c_void_p(self._library.initBcg729DecoderChannel())
        self._out = ctypes.create_string_buffer(2 * UNIT)

    def decode(self, codes: bytes) -> Pcm:
        """A packet's sound. What is left of a unit is no sound, and said to be lost."""
        units = [codes[at : at + CODES] for at in range(0, len(codes), CODES)][:MOST_UNITS]
        return np.frombuffer(b"".join(map(self._unit, units)), "<i2")

    def conceal(self, count: int) -> Pcm:
        """About `count` samples, as the sound would go on."""
        units = min(max(round(count / UNIT), 1), MOST_UNITS)
        return np.frombuffer(b"".join(self._unit(b"") for _ in range(units)), "<i2")

    def _unit(self, codes: bytes) -> bytes:
        noise, lost = len(codes) == NOISE_CODES, len(codes) not in (CODES, NOISE_CODES)
        self._library.bcg729Decoder(
            self._state, codes.ljust(CODES, b"\0"), len(codes), lost, noise, 0, ctypes.addressof(self._out)
        )
        return self._out.raw

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self._library.closeBcg729DecoderChannel(self._state)


class G729Encoder:
    """One call's mouth. Raises as the ear does."""

    def __init__(self) -> None:
        self._library = _library()
        self._state = ctypes.c_void_p(self._library.initBcg729EncoderChannel(0))
        self._out = ctypes.create_string_buffer(2 * CODES)
        self._length = ctypes.c_uint8()

    def encode(self, pcm: bytes) -> bytes:
        """Int16 in whole units of 10 ms. Raises `ValueError` for less."""
        if len(pcm) % (2 * UNIT):  # bcg729 reads as much as it knows, whatever is there
            raise ValueError(f"{len(pcm)} bytes do not make whole units of {2 * UNIT}")
        return b"".join(self._unit(pcm[at : at + 2 * UNIT]) for at in range(0, len(pcm), 2 * UNIT))

    def _unit(self, pcm: bytes) -> bytes:
        self._library.bcg729Encoder(self._state, pcm, ctypes.addressof(self._out), ctypes.byref(self._length))
        return self._out.raw[: self._length.value]

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self._library.closeBcg729EncoderChannel(self._state)


def _library() -> ctypes.CDLL:
    found = bcg729.library()
    if found is None:
        raise RuntimeError(f"no G.729 here: {bcg729.PACKAGE} is not installed")
    return found
