"""Keys as RTP says them (RFC 4733): from packets of telephone-event to one digit a press.

A press is many packets with one timestamp, of which any may be lost, come twice, late, or without a marker.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Final

KEYS: Final = "0123456789*#ABCD"
"""By event code (RFC 4733 §3.2); codes above are no keys."""
EVENT: Final = 101
"""The payload type that telephone-event has by custom, and in our offers."""

_HEADER: Final = struct.Struct(">BBHII")
_PAYLOAD: Final = struct.Struct(">BBH")
_END: Final = 0x80
_LONGEST: Final = 0xFFFF
"""A press that lasts longer goes on under a new timestamp (RFC 4733 §2.5.1.3)."""
_REMEMBERED: Final = 16
"""Presses whose late packets are known as theirs."""


def payload_at(packet: bytes) -> int | None:
    """Where the payload of an RTP packet begins (RFC 3550 §5.1); None when this is no RTP or is cut short."""
    if len(packet) < _HEADER.size or packet[0] >> 6 != 2:
        return None
    at = _HEADER.size + 4 * (packet[0] & 0x0F)
    if packet[0] & 0x10:
        if len(packet) < at + 4:
            return None
        at += 4 + 4 * int.from_bytes(packet[at + 2 : at + 4], "big")
    return at


class TelephoneEvents:
    """One call's presses, from the packets whose payload type says that they are events."""

    __slots__ = ("_before", "_digit", "_duration", "_ended", "_past")

    def __init__(self) -> None:
        self._past: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)
        self._digit = ""
        self._before = (0, 0)
        self._duration = 0
        self._ended = True

    def pressed(self, packet: bytes) -> str | None:
        """The key whose press begins with this RTP packet; None when it tells nothing new, or nothing."""
        at = payload_at(packet)
        if at is None:
            return None
        _, _, _, timestamp, source = _HEADER.unpack_from(packet)
        return self.pressed_in(packet[at:], timestamp, source)

    def pressed_in(self, payload: bytes, timestamp: int, source: int) -> str | None:
        """The same, of a packet whose header was read."""
        if len(payload) < _PAYLOAD.size:
            return None
        code, flags, duration = _PAYLOAD.unpack_from(payload)
        if code >= len(KEYS):
            return None
        digit, press = KEYS[code], (source, timestamp)
        if press in self._past:
            if press == self._before:
                self._note(duration, flags)
            return None
        goes_on = (
            not self._ended
            and digit == self._digit
            and source == self._before[0]
            and (
                # the next part of a long press, or a phone whose timestamps run on within a press
                self._duration == _LONGEST or duration > self._duration
            )
        )
        self._past.append(press)
        self._before, self._digit, self._duration, self._ended = press, digit, 0, False
        self._note(duration, flags)
        return None if goes_on else digit

    def _note(self, duration: int, flags: int) -> None:
        self._duration = max(self._duration, duration)
        self._ended = self._ended or bool(flags & _END)
