"""Where a call's packets come from, and so where ours go (symmetric RTP, RFC 4961).

The other side's description names an address. Behind a NAT packets come from elsewhere, and ours must go
back there. Who guesses a port must not be able to take a call over, so the rule is:

* The described address is believed at once, whenever something comes from there.
* Another address is believed once two packets in a row came from it, and only while nothing is known of the
  caller yet, or when it goes on with the caller's stream (its SSRC, and the next numbers: a NAT that gave out
  another port), or when the address that was believed has been silent for `SILENT_S`.
* A new description makes nothing known of the caller again, but what is believed stays until something comes.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from gateway.rtp.media.socket_pair import Source

SILENT_S: Final = 1.0
NEAR: Final = 100
"""Numbers by which a stream may have gone on."""


class Stream(NamedTuple):
    """Packets of one source under one SSRC."""

    source: Source
    ssrc: int


class SourceLatch:
    """One call's. `to` is where our packets go."""

    __slots__ = ("_at", "_candidate", "_known", "_last", "described", "strangers", "to")

    def __init__(self, described: Source) -> None:
        self.to = described
        self.described = described
        self._known = False
        """something came from `to` since the last description"""
        self._at = 0.0
        self._last = (0, 0)
        """SSRC and number of the last packet that was believed"""
        self._candidate: tuple[Source, int, int] | None = None
        """an address that is not believed yet, with its SSRC and the number that it must come with next"""
        self.strangers = 0
        """packets that were not believed"""

    def describe(self, described: Source) -> None:
        """The other side has described itself anew."""
        if described != self.described:
            self.described, self._known = described, False
            self.to = described

    def believes(self, source: Source, ssrc: int, number: int, at: float) -> bool:
        """Whether a packet from `source` is the caller's; it may change `to`."""
        if source != self.to and source != self.described and not self._follows(source, ssrc, number, at):
            self.strangers += 1
            return False
        self.to, self._known, self._at, self._last = source, True, at, (ssrc, number)
        self._candidate = None
        return True

    def _follows(self, source: Source, ssrc: int, number: int, at: float) -> bool:
        awaited, self._candidate = self._candidate, (source, ssrc, (number + 1) & 0xFFFF)
        if awaited != (source, ssrc, number):
            return False
        goes_on = ssrc == self._last[0] and 0 < (number - self._last[1]) & 0xFFFF < NEAR
        return not self._known or goes_on or at - self._at > SILENT_S
