"""What goes to a caller: the hall's sound in packets of the length that the caller wants, one clock for all.

A frame's RTP timestamp is that of the tick that it belongs to, so a frame that comes late leaves late and is
still played in its place. A hall up to two frames late costs nothing but that delay; for what is later the
caller gets silence.

Hot path: no logs, no locks.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from typing import Final

from gateway.rtp.agreement import BY_TICKS, Agreement
from gateway.rtp.media.key_sender import KeySender
from gateway.rtp.payloads.packet import CLOCK_HZ, write_rtp

STEP: Final = CLOCK_HZ // 50
"""Units of the RTP clock of most codecs in a tick."""
BYTES_A_MS: Final = 8
"""Of each codec that is not `BY_TICKS`."""
WAITING: Final = 5
"""Frames of the hall's that may wait (100 ms); more would mean that it sends faster than time passes."""
LATE: Final = 2
"""Ticks that may pass without the hall's answer before silence is sent instead."""


class RtpSender:
    """One call's. `send` takes a packet's bytes; `silence` is 20 ms of it in the codec that was agreed on."""

    def __init__(
        self, agreed: Agreement, send: Callable[[bytes], None], silence: Callable[[], bytes]
    ) -> None:
        self.ssrc = secrets.randbits(32)
        self.packets = 0
        self.octets = 0
        self.played = 0
        """frames of the hall's sound that were sent"""
        self.underrun = False
        """since the last tick a frame of ours had to be silence"""
        self.keys = KeySender()
        self._agreed = agreed
        self._send = send
        self._silence = silence
        self._number = secrets.randbits(16)
        self._origin = secrets.randbits(32)
        self._waiting: deque[bytes | None] = deque(maxlen=WAITING)
        self._owed: deque[int] = deque()
        """ticks whose frames the caller has not got yet"""
        self._codes = bytearray()
        """what is not a whole packet yet"""
        self._codes_at = 0
        """its timestamp; a byte of each codec lasts one unit of the RTP clock"""
        self._marker = True
        """the next packet is the first after a pause (RFC 3551 §4.1)"""

    def agree(self, agreed: Agreement) -> None:
        """What holds from now on."""
        self._agreed = agreed
        self._codes.clear()

    def timestamp(self, tick: int) -> int:
        """A tick's RTP timestamp, beyond 32 bits."""
        return self._origin + tick * self._agreed.clock_hz // 50

    def forget_hall(self) -> None:
        """Nobody answers, and what was answered before is not played late."""
        self._waiting.clear()
        self._owed.clear()

    # ── a turn ───────────────────────────────────────────────────────────────────────────────────────

    def owe(self, ticks: range) -> None:
        """It is time for these ticks' frames: sends what is there, to the oldest that is owed first."""
        self._owed.extend(ticks)
        while self._owed and self._waiting:
            codes = self._waiting.popleft()
            while codes is None and len(self._waiting) >= len(self._owed):
                codes = self._waiting.popleft()  # late once, but silent now: the delay is not kept
            self._give(codes)
        while len(self._owed) > max(LATE, len(ticks)):  # of those made up for the hall hears only now
            self.underrun = True
            self._give(None)

    def take(self, codes: bytes | None) -> None:
        """The hall's next 20 ms, encoded; None: it is silent. Sent at once when a tick waits for it."""
        if not self._owed:
            self._waiting.append(codes)
            return
        if codes is None:  # in a pause, what the hall's lateness cost is made up for
            while len(self._owed) > 1:
                self._owed.popleft()
        self._give(codes)

    def rest(self, ticks: range) -> None:
        """It is time for these ticks' frames, and nobody is there who could make one: silence."""
        self._owed.extend(ticks)
        while self._owed:
            self._give(None)

    def _give(self, codes: bytes | None) -> None:
        """The frame of the oldest tick that is owed one."""
        tick = self._owed.popleft()
        agreed = self._agreed
        if not agreed.sending:
            self._codes.clear()
            self._marker = True
            return
        at = self.timestamp(tick)
        if codes is not None:
            self.played += 1
        if self.keys.dials:
            key = self.keys.next(at, agreed.event_hz // 50)
            if key is not None and agreed.event is not None:
                self._codes.clear()
                self._write(agreed.event, key.timestamp, key.payload, key.marker)
                return
        if codes is None:
            codes = self._silence()
        whole = agreed.packet_ms * BYTES_A_MS
        if agreed.codec in BY_TICKS or (not self._codes and len(codes) == whole):
            self._write(agreed.sent_as, at, codes, self._marker)
            self._marker = False
            return
        if at != self._codes_at + len(self._codes):  # ticks were left out
            self._codes.clear()
            self._codes_at = at
        self._codes += codes
        while len(self._codes) >= whole:
            self._write(agreed.sent_as, self._codes_at, bytes(self._codes[:whole]), self._marker)
            self._marker = False
            self._codes_at += whole
            del self._codes[:whole]

    def _write(self, kind: int, timestamp: int, payload: bytes, marker: bool) -> None:
        self._number = (self._number + 1) & 0xFFFF
        self.packets += 1
        self.octets += len(payload)
        self._send(write_rtp(kind, self._number, timestamp, self.ssrc, payload, marker))
