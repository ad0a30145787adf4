"""How messages stand on a stream: a 4-byte big-endian length, then as many bytes."""

from __future__ import annotations

import struct
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
