"""STUN on the SIP port (RFC 5389), as far as a telephone's keep-alive needs it (RFC 5626 §3.5.2, §4.4.2).

A Binding request is answered with the address that it came from, so that a telephone sees when its NAT gives
it another one. Nothing is kept of it. An answer is 12 bytes longer than the shortest request (24 for IPv6),
so that nobody gains by asking in somebody else's name.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Final

COOKIE: Final = 0x2112A442
MAX_REQUEST: Final = 548
"""Bytes; a request with all that a telephone puts in has less than 100."""
_HEAD: Final = struct.Struct("!HHI12s")
_BINDING: Final = 0x0001
_SUCCESS: Final = 0x0101
_XOR_MAPPED_ADDRESS: Final = 0x0020


def is_stun(data: bytes) -> bool:
    """Whether a datagram begins as STUN does, and no SIP message can (RFC 5389 §6)."""
    return len(data) >= _HEAD.size and data[0] < 4 and data[4:8] == COOKIE.to_bytes(4, "big")


def binding_answer(data: bytes, host: str, port: int) -> bytes | None:
    """The answer to a Binding request from there; None for all else, which gets none."""
    if not is_stun(data) or len(data) > MAX_REQUEST:
        return None
    kind, length, _, transaction = _HEAD.unpack_from(data)
    if kind != _BINDING or length % 4 or length != len(data) - _HEAD.size:
        return None
    address = ipaddress.ip_address(host.partition("%")[0])
    mask = COOKIE.to_bytes(4, "big") + transaction
    mapped = bytes(a ^ b for a, b in zip(address.packed, mask, strict=False))
    family = 1 if address.version == 4 else 2
    value = struct.pack("!BBH", 0, family, port ^ COOKIE >> 16) + mapped
    attribute = struct.pack("!HH", _XOR_MAPPED_ADDRESS, len(value)) + value
    return _HEAD.pack(_SUCCESS, len(attribute), COOKIE, transaction) + attribute
