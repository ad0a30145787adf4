"""Opus (RFC 6716) as a call needs it: mono, 20 ms, with in-band FEC and concealment; 48 kHz, or less.

Spoken to by ctypes, because PyAV's Opus can neither conceal a lost packet nor decode the FEC copy in the
next one (its decoder always says `decode_fec=0`), and costs a resampler and a frame object per packet. The
library is the one in PyAV's wheel; where PyAV was built from source, the system's `libopus.so.0`.

Hot path: `encode` and `decode` allocate their result and nothing else.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
from functools import cache
from pathlib import Path
from typing import Final

from gateway.errors import StartError

RATE_HZ: Final = 48_000
FRAME: Final = 960
"""Samples of 20 ms."""
MAX_SAMPLES: Final = 5_760
"""Samples of the longest packet, 120 ms."""
MAX_BYTES: Final = 1_275
"""Of one frame's packet."""

_VOIP: Final = 2048
_LOW_DELAY: Final = 2051
_SET_BITRATE: Final = 4002
_SET_MAX_BANDWIDTH: Final = 4004
_SET_COMPLEXITY: Final = 4010
_SET_INBAND_FEC: Final = 4012
_SET_PACKET_LOSS_PERC: Final = 4014
_SET_SIGNAL: Final = 4024
_WIDEBAND: Final = 1103
_SUPERWIDEBAND: Final = 1104
_VOICE: Final = 3001


class OpusError(ValueError):
    """The codec refused: what came is no Opus packet."""


@cache
def _library() -> ctypes.CDLL:
    """libopus with its types. Raises `StartError` when there is none."""
    pyav = importlib.util.find_spec("av")  # found, not imported: FFmpeg need not be loaded for this
    folders = [Path(pyav.origin).parent.parent] if pyav is not None and pyav.origin else []
    bundled = sorted(found for folder in folders for found in folder.glob("av.libs/libopus-*"))
    name = str(bundled[0]) if bundled else ctypes.util.find_library("opus")
    if name is None:
        raise StartError("libopus is missing; on Debian: apt-get install libopus0")
    library = ctypes.CDLL(name)
    pointer, number = ctypes.c_void_p, ctypes.c_int
    numbers = ctypes.POINTER(number)
    for function, result, arguments in (
        ("opus_encoder_create", pointer, [number, number, number, numbers]),
        ("opus_encode", number, [pointer, ctypes.c_char_p, number, pointer, number]),
        ("opus_encoder_destroy", None, [pointer]),
        ("opus_decoder_create", pointer, [number, number, numbers]),
        ("opus_decode", number, [pointer, ctypes.c_char_p, number, pointer, number, number]),
        ("opus_decoder_destroy", None, [pointer]),
        ("opus_strerror", ctypes.c_char_p, [number]),
    ):
        entry = getattr(library, function)
        entry.restype, entry.argtypes = result, arguments
    library.opus_encoder_ctl.restype = number
    return library


def _check(value: int) -> int:
    if value < 0:
        raise OpusError(_library().opus_strerror(value).decode())
    return value


class OpusEncoder:
    """One direction of one call. What it says fits our voices: 24 kHz inside is superwideband outside.

    Without loss it runs the codec's transform half alone (2.5 ms of look-ahead, 75 us a frame where the
    speech model takes 280); with `loss_percent` the speech model, which alone has in-band FEC.
    """

    def __init__(
        self, bitrate: int = 64_000, complexity: int = 5, loss_percent: int = 0, rate_hz: int = RATE_HZ
    ) -> None:
        """`rate_hz`: of the sound that it is given, 16,000 or `RATE_HZ`."""
        self._opus = _library()
        self._frame = rate_hz // 50
        error = ctypes.c_int()
        application = _VOIP if loss_percent else _LOW_DELAY
        self._state = ctypes.c_void_p(
            self._opus.opus_encoder_create(rate_hz, 1, application, ctypes.byref(error))
        )
        _check(error.value)
        for request, value in (
            (_SET_BITRATE, bitrate),
            (_SET_COMPLEXITY, complexity),
            (_SET_MAX_BANDWIDTH, _WIDEBAND if rate_hz == 16_000 else _SUPERWIDEBAND),
            (_SET_SIGNAL, _VOICE),
            (_SET_INBAND_FEC, 1 if loss_percent else 0),
            (_SET_PACKET_LOSS_PERC, loss_percent),
        ):
            _check(self._opus.opus_encoder_ctl(self._state, ctypes.c_int(request), ctypes.c_int(value)))
        self._out = ctypes.create_string_buffer(MAX_BYTES)

    def encode(self, pcm: bytes) -> bytes:
        """One packet of 20 ms: `pcm` is int16 little-endian, 960 samples at 48 kHz. Raises `ValueError` for
        more or fewer."""
        if len(pcm) != 2 * self._frame:  # libopus reads as much as it is told, whatever is there
            raise ValueError(f"a frame of {len(pcm)} bytes; 20 ms are {2 * self._frame} here")
        size = self._opus.opus_encode(self._state, pcm, self._frame, self._out, MAX_BYTES)
        return ctypes.string_at(self._out, _check(size))

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self._opus.opus_encoder_destroy(self._state)


class OpusDecoder:
    """The other direction. Every method answers int16 little-endian, mono, at its rate."""

    def __init__(self, rate_hz: int = RATE_HZ) -> None:
        """`rate_hz`: one of Opus' own: 8, 12, 16, 24 or 48 kHz."""
        self._opus = _library()
        self._most = MAX_SAMPLES * rate_hz // RATE_HZ
        error = ctypes.c_int()
        self._state = ctypes.c_void_p(self._opus.opus_decoder_create(rate_hz, 1, ctypes.byref(error)))
        _check(error.value)
        self._out = ctypes.create_string_buffer(2 * MAX_SAMPLES)

    def decode(self, packet: bytes) -> bytes:
        """A packet's sound. Raises `OpusError` for what is no Opus."""
        return self._decode(packet, self._most, 0)

    def recover(self, next_packet: bytes, samples: int) -> bytes:
        """The sound of the lost packet before `next_packet`: its FEC copy, or concealment without one."""
        return self._decode(next_packet, samples, 1)

    def conceal(self, samples: int) -> bytes:
        """Goes on in the last sound's manner for what is lost; fades by itself when asked again."""
        return self._decode(None, samples, 0)

    def _decode(self, packet: bytes | None, samples: int, fec: int) -> bytes:
        size = len(packet) if packet else 0
        got = self._opus.opus_decode(self._state, packet, size, self._out, samples, fec)
        return ctypes.string_at(self._out, 2 * _check(got))

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self._opus.opus_decoder_destroy(self._state)
