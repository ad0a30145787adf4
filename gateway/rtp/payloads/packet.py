"""RTP packets (RFC 3550 §5.1): from bytes, and to bytes."""

from __future__ import annotations

import struct
from functools import partial
from typing import Final, NamedTuple

from gateway.line.telephone_event import payload_at

CLOCK_HZ: Final = 8_000
"""G.711's RTP clock and that of telephone-event; G.722's too, although it samples twice as often
(RFC 3551 §4.5.2)."""
LONGEST: Final = 1_500
"""Bytes that are read of a packet; a longer one is cut, and its sound with it."""
HEADER_BYTES: Final = 12
_HEADER: Final = struct.Struct(">BBHII")
_MARKER: Final = 0x80
_PADDING: Final = 0x20
_VERSION: Final = 0x80
_PLAIN: Final = b"\x80"
"""How a packet begins that has neither padding, nor an extension, nor contributing sources: nearly each."""
_RTCP: Final = range(192, 224)
"""Second bytes that are RTCP's where both come to one port (RFC 5761 §4)."""


class RtpPacket(NamedTuple):
    """What is used of a packet. The jitter buffer knows these names."""

    sequence_number: int
    timestamp: int
    ssrc: int
    payload: bytes
    """The sound's or the event's bytes, after one byte with the payload type and the marker."""

    @property
    def payload_type(self) -> int:
        """0 to 127."""
        return self.payload[0] & 0x7F


_packet: Final = partial(tuple.__new__, RtpPacket)
"""`RtpPacket` of a tuple, at half the price."""


def read_rtp(data: bytes) -> RtpPacket | None:
    """The packet; None for what is not RTP, is cut short, or has nothing in it."""
    at, end = HEADER_BYTES, len(data)
    if data[:1] != _PLAIN:
        begins = payload_at(data)
        if begins is None:
            return None
        at = begins
        if data[0] & _PADDING:
            end -= data[-1]
    if end <= at:
        return None
    _, kind, number, timestamp, ssrc = _HEADER.unpack_from(data)
    if kind in _RTCP:
        return None
    return _packet((number, timestamp, ssrc, data[1:2] + data[at:end]))


def is_rtcp(data: bytes) -> bool:
    """Whether a packet on RTP's port is RTCP (RFC 5761 §4)."""
    return len(data) >= 8 and data[0] >> 6 == 2 and data[1] in _RTCP


def write_rtp(
    payload_type: int, number: int, timestamp: int, ssrc: int, payload: bytes, marker: bool = False
) -> bytes:
    """A packet's bytes. `number` and `timestamp` wrap."""
    kind = payload_type | _MARKER if marker else payload_type
    return _HEADER.pack(_VERSION, kind, number & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc) + payload
