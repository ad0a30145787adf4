"""Opus on a telephone's line (RFC 7587): 16 kHz of sound, 48 kHz of RTP clock, by the libopus that browsers'
lines have.

libopus is loaded by its first call. A frame of 20 ms takes it about as long as FFmpeg's G.722 to decode, and
some times as long to encode; it goes on by itself where packets are lost, better than we could.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from gateway.line.opus import OpusDecoder, OpusEncoder, OpusError
from gateway.rtp.payloads.g711 import Pcm

RATE_HZ: Final = 16_000
FRAME: Final = RATE_HZ // 50
UNIT: Final = RATE_HZ // 400
"""2.5 ms: libopus makes nothing shorter, nor anything between."""
LONGEST: Final = 6 * FRAME
TOO_MUCH_LOSS: Final = 0.02
"""From this share of lost packets on, each packet holds a copy of the one before, where that is of use."""


class Opus16Decoder:
    """One call's ear."""

    def __init__(self) -> None:
        self._opus = OpusDecoder(RATE_HZ)
        self.broken = 0
        """packets that were none of Opus'"""

    def decode(self, packet: bytes) -> Pcm:
        """A packet's sound; of what is no Opus, 20 ms that go on from the last."""
        try:
            return np.frombuffer(self._opus.decode(packet), np.int16)
        except OpusError:
            self.broken += 1
            return self.recover(b"", FRAME)

    def recover(self, following: bytes, count: int) -> Pcm:
        """About `count` samples in the place of a lost packet: from the copy in the packet after it, where
        that is here and has one, or as the sound would go on."""
        samples = min(max(round(count / UNIT), 1) * UNIT, LONGEST)
        try:
            sound = self._opus.recover(following, samples) if following else self._opus.conceal(samples)
        except OpusError:
            return np.zeros(samples, np.int16)
        return np.frombuffer(sound, np.int16)


class Opus16Encoder:
    """One call's mouth. `bitrate`: bits a second; `fec`: the other side can use copies of lost packets."""

    def __init__(self, bitrate: int, *, fec: bool) -> None:
        self._bitrate = bitrate
        self._fec = fec
        self.loss_percent = 0
        self._opus = OpusEncoder(bitrate, rate_hz=RATE_HZ)

    def heed(self, share_lost: float) -> None:
        """So much of ours gets lost: from too much on, copies go along for the rest of the call."""
        if self._fec and share_lost > TOO_MUCH_LOSS and not self.loss_percent:
            self.loss_percent = min(max(10, round(150 * share_lost)), 40)
            self._opus = OpusEncoder(self._bitrate, loss_percent=self.loss_percent, rate_hz=RATE_HZ)

    def encode(self, pcm: bytes) -> bytes:
        """A packet of 20 ms of int16."""
        return self._opus.encode(pcm)
