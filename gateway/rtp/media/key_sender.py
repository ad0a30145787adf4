"""Keys that we press, as RTP says them (RFC 4733): event packets in the place of sound."""

from __future__ import annotations

import struct
from collections import deque
from typing import Final, NamedTuple

from gateway.line.telephone_event import KEYS

PRESSED: Final = 8
"""Packets of 20 ms that say that a key is down (160 ms) …"""
ENDS: Final = 3
"""… and those that say that it is up again (§2.5.1.4)."""
BETWEEN: Final = 5
"""Frames of sound between two keys (100 ms)."""
VOLUME: Final = 10
"""-10 dBm0."""
_END: Final = 0x80
_PAYLOAD: Final = struct.Struct(">BBH")


class KeyPacket(NamedTuple):
    """What goes out instead of 20 ms of sound."""

    payload: bytes
    timestamp: int
    """When the key went down: all packets of one press say the same."""
    marker: bool


class KeySender:
    """One call's. It is asked once each 20 ms."""

    __slots__ = ("_began", "_digits", "_sent")

    def __init__(self) -> None:
        self._digits: deque[str] = deque()
        self._sent = 0
        """packets and frames of the first key that waits"""
        self._began = 0

    def dial(self, digits: str) -> None:
        """These keys after those that wait. Raises `ValueError` for what is not a key."""
        if not digits or any(digit not in KEYS for digit in digits):
            raise ValueError(f"{digits!r} cannot be dialled: 0-9, A-D, * and # are keys")
        self._digits.extend(digits)

    @property
    def dials(self) -> bool:
        """A key waits, or is being sent."""
        return bool(self._digits)

    def next(self, timestamp: int, step: int) -> KeyPacket | None:
        """The packet of these 20 ms, which begin at `timestamp` and last `step`; None: sound goes out."""
        if not self._digits:
            return None
        at, self._sent = self._sent, self._sent + 1
        if at == PRESSED + ENDS + BETWEEN - 1:
            self._digits.popleft()
            self._sent = 0
            return None
        if at >= PRESSED + ENDS:
            return None
        digit = self._digits[0]
        if at == 0:
            self._began = timestamp
        ended = at >= PRESSED
        lasted = step * min(at + 1, PRESSED + 1)
        payload = _PAYLOAD.pack(KEYS.index(digit), VOLUME | (_END if ended else 0), lasted)
        return KeyPacket(payload, self._began, at == 0)
