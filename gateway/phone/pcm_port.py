"""A port of pjmedia's conference bridge that hears and speaks frames of 20 ms.

The bridge's own thread calls it every 20 ms, and it waits for nothing. Frames are copied by address:
`bytes(frame.buf)` takes 129 µs, a copy 1 to 2 µs.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any, Final

import pjsua2 as pj

from gateway.errors import LineError

FRAME_MS: Final = 20
AUDIO: Final = 1
"""PJMEDIA_FRAME_TYPE_AUDIO."""
_AUDIO_BYTES: Final = struct.pack("<i", AUDIO)
_FRAME: Final = struct.Struct("<i4xQQQI")
"""pj::MediaFrame on a 64-bit machine: type, std::vector<unsigned char> (begin, end, capacity), size."""


def check_frame_layout() -> None:
    """Raises `LineError` unless pj::MediaFrame lies in memory as `_FRAME` says."""
    frame, buffer = pj.MediaFrame(), pj.ByteVector()
    for byte in b"voicegate":
        buffer.append(byte)
    frame.type, frame.size, frame.buf = AUDIO, 9, buffer
    kind, begin, end, _, size = _FRAME.unpack(ctypes.string_at(int(frame.this), _FRAME.size))
    if (kind, end - begin, size) != (AUDIO, 9, 9) or ctypes.string_at(begin, 9) != b"voicegate":
        raise LineError("this pjsua2 build lays out its frames differently; voicegate knows 2.15.1")


class PcmPort(pj.AudioMediaPort):  # type: ignore[misc]  # pjsua2 ships no types
    """A port that hears and speaks int16 frames of 20 ms. Subclasses say what with them happens."""

    def __init__(self, name: str, rate_hz: int) -> None:
        super().__init__()
        self.frame_bytes = rate_hz * FRAME_MS // 1000 * 2
        self._silence = bytes(self.frame_bytes)
        self._out = pj.ByteVector(self.frame_bytes, 0)
        _, self._out_at, _, _, _ = _FRAME.unpack(
            bytes(8) + ctypes.string_at(int(self._out.this), 24) + bytes(4)
        )
        format_ = pj.MediaFormatAudio()
        format_.init(pj.PJMEDIA_FORMAT_PCM, rate_hz, 1, FRAME_MS * 1000, 16)
        self.createPort(name, format_)

    def pull(self) -> bytes | None:
        """The next 20 ms to play, `frame_bytes` long; None: silence."""
        return None

    def push(self, pcm: bytes | None) -> None:
        """20 ms were heard; None: nothing was."""

    def onFrameRequested(self, frame: Any) -> None:
        pcm = self.pull()
        # the copy is exactly as long as was asked for: a longer one would be a write past pjmedia's buffer
        ctypes.memmove(self._out_at, self._silence if pcm is None else pcm, self.frame_bytes)
        frame.buf = self._out
        ctypes.memmove(int(frame.this), _AUDIO_BYTES, 4)

    def onFrameReceived(self, frame: Any) -> None:
        kind, begin, end, _, _ = _FRAME.unpack(ctypes.string_at(int(frame.this), _FRAME.size))
        heard = kind == AUDIO and end - begin == self.frame_bytes
        self.push(ctypes.string_at(begin, self.frame_bytes) if heard else None)
