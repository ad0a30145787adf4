"""Recordings: RIFF/WAVE files with PCM, float, mu-law or A-law samples, and what they may be.

The standard library's `wave` reads neither float nor the extensible format that most programs write at 24
bits.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watermark.errors import SoundError
from watermark.pcm import (
    A_LAW_VALUES,
    FULL_SCALE,
    MU_LAW_VALUES,
    bytes_from_float,
    float_from_bytes,
    float_from_int16,
)

Floats = NDArray[np.float32]

LARGEST_BYTES: Final = 512 << 20
PCM: Final = 1
FLOAT: Final = 3
A_LAW: Final = 6
MU_LAW: Final = 7
EXTENSIBLE: Final = 0xFFFE


@dataclass(frozen=True, slots=True)
class Recording:
    """`channels`: float32 `(C, n)` in [-1, 1]."""

    channels: Floats
    rate_hz: int

    @property
    def seconds(self) -> float:
        return float(self.channels.shape[1] / self.rate_hz)


def read(path: Path, largest_bytes: int = LARGEST_BYTES) -> Recording:
    """Raises `SoundError` with a reason that a person can use."""
    try:
        if path.stat().st_size > largest_bytes:
            raise SoundError(f"{path} is larger than {largest_bytes >> 20} MiB")
        return parse(path.read_bytes())
    except FileNotFoundError:
        raise SoundError(f"{path} does not exist") from None
    except OSError as error:
        raise SoundError(f"{path}: {error.strerror}") from None
    except SoundError as error:
        raise SoundError(f"{path}: {error}") from None


def parse(data: bytes) -> Recording:
    """The recording in the bytes of a WAVE file. Raises `SoundError`."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise SoundError("this is not a WAV file (convert it with: ffmpeg -i IN OUT.wav)")
    layout: tuple[int, int, int, int] | None = None
    at = 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        body = data[at + 8 : at + 8 + size]  # a stream's header may claim more than there is
        if name == b"fmt ":
            layout = _layout(body)
        elif name == b"data":
            if layout is None:
                raise SoundError("its sound comes before its format: the file is damaged")
            return _samples(body, *layout)
        at += 8 + size + (size & 1)
    raise SoundError("it holds no sound: the file is damaged")


def _layout(body: bytes) -> tuple[int, int, int, int]:
    """(format, channels, rate, bits)."""
    if len(body) < 16:
        raise SoundError("its format is cut off: the file is damaged")
    kind, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", body)
    if kind == EXTENSIBLE and len(body) >= 26:
        kind = int.from_bytes(body[24:26], "little")
    known = {PCM: (8, 16, 24, 32), FLOAT: (32, 64), A_LAW: (8,), MU_LAW: (8,)}
    if bits not in known.get(kind, ()):
        raise SoundError(
            f"its samples (format {kind}, {bits} bits) are not supported: use PCM, float or G.711"
        )
    if not 1 <= channels <= 8:
        raise SoundError(f"it has {channels} channels")
    if not 1_000 <= rate_hz <= 768_000:
        raise SoundError(f"its rate is {rate_hz} Hz")
    return kind, channels, rate_hz, bits


def _samples(body: bytes, kind: int, channels: int, rate_hz: int, bits: int) -> Recording:
    width = bits // 8
    count = len(body) // (width * channels)
    raw = body[: count * width * channels]
    flat: Floats
    if kind == FLOAT:
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and no sound to the detector
            flat = np.frombuffer(raw, f"<f{width}").astype(np.float32)
    elif kind in (A_LAW, MU_LAW):
        flat = (A_LAW_TABLE if kind == A_LAW else MU_LAW_TABLE)[np.frombuffer(raw, np.uint8)]
    elif width == 1:
        flat = (np.frombuffer(raw, np.uint8).astype(np.float32) - 128) / np.float32(128)
    elif width == 3:
        wide = np.zeros((count * channels, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        flat = wide.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)
    elif width == 4:
        flat = np.frombuffer(raw, "<i4").astype(np.float32) / np.float32(2**31)
    else:
        flat = float_from_bytes(raw)
    return Recording(np.ascontiguousarray(flat.reshape(count, channels).T, np.float32), rate_hz)


def write(path: Path, samples: Floats, rate_hz: int) -> None:
    """Mono float32 `(n,)` in [-1, 1] as 16-bit PCM. Raises `SoundError`."""
    pcm = bytes_from_float(samples)
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(pcm), b"WAVE", b"fmt ", 16, PCM, 1, rate_hz,
                         2 * rate_hz, 2, 16, b"data", len(pcm))  # fmt: skip
    try:
        path.write_bytes(header + pcm)
    except OSError as error:
        raise SoundError(f"{path}: {error.strerror}") from None


def mu_law(samples: Floats) -> NDArray[np.uint8]:
    """G.711 mu-law codes of float samples."""
    scaled = np.clip(np.abs(samples) * FULL_SCALE, 0, 32635) + 132
    exponent = np.floor(np.log2(scaled)).astype(np.int64) - 7
    mantissa = (scaled.astype(np.int64) >> (exponent + 3)) & 15
    sign = np.where(samples < 0, 0x80, 0)
    return np.asarray(~(sign | exponent << 4 | mantissa) & 0xFF, np.uint8)


MU_LAW_TABLE: Final = float_from_int16(MU_LAW_VALUES)
A_LAW_TABLE: Final = float_from_int16(A_LAW_VALUES)
"""G.711 code -> float32 sample."""


def through_mu_law(samples: Floats) -> Floats:
    """What a G.711 mu-law line makes of float samples at 8 kHz."""
    return MU_LAW_TABLE[mu_law(samples)]
