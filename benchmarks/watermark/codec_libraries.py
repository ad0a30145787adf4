"""Codecs that neither ffmpeg nor sox encodes, by Debian's libraries: G.729 (libbcg729-0) and AMR-WB
(libvo-amrwbenc0, libopencore-amrwb0). `MISSING` says which of them are not installed."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import numpy as np
import soxr

from watermark.pcm import float_from_int16, int16_from_float

Channel = Callable[[np.ndarray, int], tuple[np.ndarray, int]]

AMR_WB_MODES: Final = {"6.6": 0, "8.85": 1, "12.65": 2, "23.85": 8}


def _library(name: str) -> ctypes.CDLL | None:
    with suppress(OSError):
        return ctypes.CDLL(name)
    return None


_BCG729 = _library("libbcg729.so.0")
_AMR_WB_IN = _library("libvo-amrwbenc.so.0")
_AMR_WB_OUT = _library("libopencore-amrwb.so.0")

MISSING: Final = {
    codec: f"{codec} is not tried: apt-get install {packages}"
    for codec, packages, found in (
        ("G.729", "libbcg729-0", (_BCG729,)),
        ("AMR-WB", "libvo-amrwbenc0 libopencore-amrwb0", (_AMR_WB_IN, _AMR_WB_OUT)),
    )
    if None in found
}
"""Codec -> what a row of a table says in its place."""


def _frames(samples: np.ndarray, rate_hz: int, coded_hz: int, frame: int) -> np.ndarray:
    """int16 `(frames, frame)` at the codec's rate, the last one filled with silence."""
    pcm = int16_from_float(np.asarray(soxr.resample(samples, rate_hz, coded_hz), np.float32))
    return np.pad(pcm, (0, -len(pcm) % frame)).reshape(-1, frame)


def g729(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
    """G.729A, 8 kbit/s, no comfort noise; 5 ms later."""
    if _BCG729 is None:
        raise SystemExit(MISSING["G.729"])
    encoder_of, decoder_of = _BCG729.initBcg729EncoderChannel, _BCG729.initBcg729DecoderChannel
    encoder_of.restype = decoder_of.restype = ctypes.c_void_p
    encoder, decoder = ctypes.c_void_p(encoder_of(0)), ctypes.c_void_p(decoder_of())
    frames = _frames(samples, rate_hz, 8_000, 80)
    out = np.empty_like(frames)
    bits, length = (ctypes.c_uint8 * 16)(), ctypes.c_uint8()
    for sound, heard in zip(frames.ctypes.data + 160 * np.arange(len(frames)),
                            out.ctypes.data + 160 * np.arange(len(frames)), strict=True):  # fmt: skip
        _BCG729.bcg729Encoder(encoder, ctypes.c_void_p(int(sound)), bits, ctypes.byref(length))
        _BCG729.bcg729Decoder(decoder, bits, length, 0, 0, 0, ctypes.c_void_p(int(heard)))
    _BCG729.closeBcg729EncoderChannel(encoder)
    _BCG729.closeBcg729DecoderChannel(decoder)
    return float_from_int16(out.ravel()), 8_000


def amr_wb(mode: str) -> Channel:
    """AMR-WB at this many kbit/s, a key of `AMR_WB_MODES`."""

    def channel(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
        if _AMR_WB_IN is None or _AMR_WB_OUT is None:
            raise SystemExit(MISSING["AMR-WB"])
        _AMR_WB_IN.E_IF_init.restype = _AMR_WB_OUT.D_IF_init.restype = ctypes.c_void_p
        encoder = ctypes.c_void_p(_AMR_WB_IN.E_IF_init())
        decoder = ctypes.c_void_p(_AMR_WB_OUT.D_IF_init())
        frames = _frames(samples, rate_hz, 16_000, 320)
        out = np.empty_like(frames)
        bits = (ctypes.c_uint8 * 64)()
        for sound, heard in zip(frames.ctypes.data + 640 * np.arange(len(frames)),
                                out.ctypes.data + 640 * np.arange(len(frames)), strict=True):  # fmt: skip
            _AMR_WB_IN.E_IF_encode(encoder, AMR_WB_MODES[mode], ctypes.c_void_p(int(sound)), bits, 0)
            _AMR_WB_OUT.D_IF_decode(decoder, bits, ctypes.c_void_p(int(heard)), 0)
        _AMR_WB_IN.E_IF_exit(encoder)
        _AMR_WB_OUT.D_IF_exit(decoder)
        return float_from_int16(out.ravel()), 16_000

    return channel
