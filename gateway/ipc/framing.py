"""How messages stand on a stream: a 4-byte big-endian length, then as many bytes.

Nothing here reads or writes a socket, so that asyncio programs and lines share it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from gateway.errors import RpcError

MAX_MESSAGE: Final = 8 << 20
"""Bytes. A voice's reference clip (30 s of float32 at 24 kHz, in base64) is the largest that travels."""
HEAD_BYTES: Final = 4
_LENGTH: Final = struct.Struct(">I")


def framed(body: bytes) -> bytes:
    """The message with its length before it. Raises `RpcError` when the message is too large."""
    return _LENGTH.pack(_fits(len(body))) + body


def length_of(head: bytes | bytearray) -> int:
    """The length of the message that begins with `head`. Raises `RpcError` when it is too large."""
    return _fits(int(_LENGTH.unpack_from(head)[0]))


def _fits(length: int) -> int:
    if length > MAX_MESSAGE:
        raise RpcError(f"a message of {length} bytes is larger than {MAX_MESSAGE}")
    return length


class Unframer:
    """Takes messages out of a stream that comes in pieces."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The messages that are whole now. Raises `RpcError` when one is said to be too large."""
        self._waiting += piece
        while len(self._waiting) >= HEAD_BYTES:
            end = HEAD_BYTES + length_of(self._waiting)
            if len(self._waiting) < end:
                return
            body = bytes(self._waiting[HEAD_BYTES:end])
            del self._waiting[:end]
            yield body

    def clear(self) -> None:
        """Forgets what had begun to come: the stream is another one now."""
        self._waiting.clear()
