"""A browser's packets as they come: sound waits in the jitter buffer, keys (RFC 4733) are heard at once."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Any

from gateway.line.jitter import JitterBuffer
from gateway.line.telephone_event import TelephoneEvents


@dataclass(frozen=True, slots=True)
class _Rest:
    """A key's packet in the order of the sound. Its own timestamp may run at another rate."""

    sequence_number: int
    timestamp: int
    ssrc: int
    payload: bytes


class WebStream(JitterBuffer):
    """Made by aiortc, in the place of its own buffer. `key_types` are known once the answer is."""

    def __init__(self, capacity: int = 64, prefetch: int = 0, is_video: bool = False) -> None:
        super().__init__(capacity, prefetch, is_video)
        self.key_types: Set[int] = frozenset()
        """payload types that are keys"""
        self.pressed: Callable[[str], None] = _nobody
        self._events = TelephoneEvents()

    def add(self, packet: Any) -> tuple[bool, None]:
        """Takes an `aiortc.rtp.RtpPacket`."""
        if packet.payload_type not in self.key_types:
            return super().add(packet)
        stands_at = self._last_timestamp & 0xFFFFFFFF
        self.add_rest(_Rest(packet.sequence_number, stands_at, packet.ssrc, packet.payload))
        digit = self._events.pressed_in(packet.payload, packet.timestamp, packet.ssrc)
        if digit is not None:
            self.pressed(digit)
        return False, None


def _nobody(_: str) -> None:
    """Nobody waits for keys yet."""
