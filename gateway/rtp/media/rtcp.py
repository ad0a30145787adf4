"""RTCP (RFC 3550 §6): what we say of what we send and hear, and what the other side says of that.

`Reception` counts one source's packets as appendices A.1, A.3 and A.8 have it. `Rtcp` is a call's whole
exchange: our reports (SR while we send, RR while we do not, each with our CNAME), theirs, and the round trip.

Times are seconds of `time.monotonic()`, the wall clock's `wall_s` those of `time.time()`.
"""

from __future__ import annotations

import random
import secrets
import struct
from dataclasses import dataclass
from typing import Final

from gateway.rtp.payloads.packet import CLOCK_HZ

EVERY_S: Final = 5.0
"""Between two reports, on average; each pause is .5 to 1.5 of it (§6.2, §6.3.1)."""
SR: Final = 200
RR: Final = 201
SDES: Final = 202
BYE: Final = 203
_CNAME: Final = 1
_NTP_EPOCH_S: Final = 2_208_988_800
"""From 1900 to 1970."""
_RESTARTED: Final = 3_000
"""Numbers ahead that are taken for a gap (MAX_DROPOUT)."""
SEEN: Final = 64
"""Numbers below the highest one of which it is known whether they came."""
_SEEN_MASK: Final = (1 << SEEN) - 1
_HEAD: Final = struct.Struct(">BBH")
_SENDER: Final = struct.Struct(">IIIIII")
"""SSRC, NTP time (two words), RTP time, packets, octets."""
_BLOCK: Final = struct.Struct(">IIIIII")
"""SSRC, fraction and lost, highest number, jitter, LSR, DLSR."""
_WORD: Final = struct.Struct(">I")


@dataclass(slots=True)
class Reception:
    """What came from one source."""

    ssrc: int
    clock_hz: int = CLOCK_HZ
    """of its timestamps"""
    received: int = 0
    jitter: float = 0.0
    """in units of the RTP clock"""
    duplicates: int = 0
    """of `received`, as far as numbers lie within `SEEN` of the highest one"""
    _seen: int = 0
    """a bit for each of the last `SEEN` numbers, the highest one's is the lowest: whether it came"""
    _base: int = 0
    """the first number"""
    _highest: int = 0
    """of all, beyond 16 bits"""
    _transit: float = 0.0
    _expected_before: int = 0
    _received_before: int = 0

    def take(self, number: int, timestamp: int, at: float, *, sounds: bool) -> bool:
        """A packet came at `at`; False when it had come before.

        `sounds`: its timestamp says when its sound was (that of a key does not).
        """
        new = True
        if not self.received:
            self._base = self._highest = number
            self._seen = 1
        else:
            step = (number - self._highest) & 0xFFFF
            if 0 < step < _RESTARTED:
                self._highest += step
                self._seen = (self._seen << step | 1) & _SEEN_MASK
            elif _RESTARTED <= step <= 0x10000 - _RESTARTED:  # the source began to count anew
                self._base, self._highest = number - self.expected, number
                self._seen = 1
            else:
                bit = 1 << (-step & 0xFFFF)
                new = not self._seen & bit
                self._seen |= bit & _SEEN_MASK
                self.duplicates += not new
        self.received += 1
        if not (sounds and new):
            return new
        clock_hz = self.clock_hz
        transit = at * clock_hz - timestamp
        if self.received > 1:
            change = abs((transit - self._transit + 0x80000000) % 0x100000000 - 0x80000000)
            if change < clock_hz * EVERY_S:  # more is another origin, and no jitter
                self.jitter += (change - self.jitter) / 16
        self._transit = transit
        return True

    @property
    def expected(self) -> int:
        """Packets, by the numbers of those that came."""
        return self._highest - self._base + 1 if self.received else 0

    @property
    def lost(self) -> int:
        """Packets; duplicates make it less, never below 0 here."""
        return max(0, self.expected - self.received)

    @property
    def missing(self) -> int:
        """Packets that never came, however often others did."""
        return max(0, self.expected - self.received + self.duplicates)

    @property
    def highest(self) -> int:
        """The extended highest number, 32 bits."""
        return self._highest & 0xFFFFFFFF

    def interval_loss(self) -> float:
        """The share that was lost since the last time this was asked."""
        expected = self.expected - self._expected_before
        received = self.received - self._received_before
        self._expected_before, self._received_before = self.expected, self.received
        return max(0.0, (expected - received) / expected) if expected > 0 else 0.0


@dataclass(slots=True)
class HeardOfUs:
    """What the other side's last report says of our sound."""

    share_lost: float
    """since its report before"""
    lost: int
    jitter_s: float
    round_trip_s: float | None
    """None: it has not heard a report of ours yet"""


class Rtcp:
    """One call's exchange. `ssrc` is ours."""

    __slots__ = (
        "_cname",
        "_due_at",
        "_heard_at",
        "_random",
        "_their_middle",
        "clock_hz",
        "left",
        "reports",
        "round_trip_s",
        "ssrc",
        "told",
    )

    def __init__(self, ssrc: int, now: float, *, chance: random.Random | None = None) -> None:
        self.ssrc = ssrc
        self.clock_hz = CLOCK_HZ
        """of our RTP timestamps, and so of the jitter that they tell"""
        self._cname = secrets.token_hex(8).encode()  # says nothing of the host (RFC 7022 §4.2)
        self._random = chance or random.Random()  # noqa: S311  # spreads reports, keeps no secret
        self._due_at = now + EVERY_S * self._random.uniform(0.25, 0.75)
        self._their_middle = 0
        """the middle 32 bits of the time in their last sender report"""
        self._heard_at = 0.0
        self.reports = 0
        """compound packets that came"""
        self.told: HeardOfUs | None = None
        self.round_trip_s: float | None = None
        """the last one that a report told"""
        self.left = False
        """the source said BYE"""

    def due(self, now: float) -> bool:
        """Whether a report is to be sent; asked again, it waits for the next one."""
        if now < self._due_at:
            return False
        self._due_at = now + EVERY_S * self._random.uniform(0.5, 1.5)
        return True

    # ── ours ─────────────────────────────────────────────────────────────────────────────────────────

    def write(
        self,
        now: float,
        wall_s: float,
        heard: Reception | None,
        sent: tuple[int, int, int] | None,
        *,
        bye: bool = False,
    ) -> bytes:
        """A compound packet. `heard`: whose packets we count. `sent`: RTP time, packets and octets of ours;
        None while we do not send."""
        block = b"" if heard is None or not heard.received else self._block(heard, now)
        count = 1 if block else 0
        if sent is None:
            parts = [_packet(RR, count, _WORD.pack(self.ssrc) + block)]
        else:
            rtp_time, packets, octets = sent
            seconds, fraction = divmod(wall_s + _NTP_EPOCH_S, 1.0)
            sender = _SENDER.pack(
                self.ssrc,
                int(seconds) & 0xFFFFFFFF,
                int(fraction * (1 << 32)),
                rtp_time & 0xFFFFFFFF,
                packets & 0xFFFFFFFF,
                octets & 0xFFFFFFFF,
            )
            parts = [_packet(SR, count, sender + block)]
        item = bytes((_CNAME, len(self._cname))) + self._cname + b"\0"
        parts.append(_packet(SDES, 1, _WORD.pack(self.ssrc) + item + bytes(-len(item) % 4)))
        if bye:
            parts.append(_packet(BYE, 1, _WORD.pack(self.ssrc)))
        return b"".join(parts)

    def _block(self, heard: Reception, now: float) -> bytes:
        since = (now - self._heard_at) * 65536 if self._their_middle else 0
        share = min(255, int(heard.interval_loss() * 256))
        lost = min(heard.lost, 0x7FFFFF)
        return _BLOCK.pack(
            heard.ssrc,
            share << 24 | lost,
            heard.highest,
            int(heard.jitter) & 0xFFFFFFFF,
            self._their_middle,
            min(0xFFFFFFFF, max(0, int(since))),
        )

    # ── theirs ───────────────────────────────────────────────────────────────────────────────────────

    def take(self, data: bytes, now: float, wall_s: float) -> bool:
        """What came; False when it is not RTCP, and nothing of it counts."""
        packets = _split(data)
        if packets is None:
            return False
        self.reports += 1
        for kind, count, body in packets:
            if kind == SR and len(body) >= _SENDER.size:
                _, seconds, fraction, *_ = _SENDER.unpack_from(body)
                self._their_middle = (seconds & 0xFFFF) << 16 | fraction >> 16
                self._heard_at = now
                self._take_blocks(body[_SENDER.size :], count, wall_s)
            elif kind == RR:
                self._take_blocks(body[_WORD.size :], count, wall_s)
            elif kind == BYE:
                self.left = True
        return True

    def _take_blocks(self, blocks: bytes, count: int, wall_s: float) -> None:
        for at in range(0, min(count * _BLOCK.size, len(blocks) - _BLOCK.size + 1), _BLOCK.size):
            ssrc, losses, _, jitter, last, since = _BLOCK.unpack_from(blocks, at)
            if ssrc != self.ssrc:
                continue
            lost = losses & 0xFFFFFF
            if lost & 0x800000:  # duplicates: fewer than none were lost
                lost = 0
            trip_s = _round_trip_s(last, since, wall_s)
            if trip_s is not None:
                self.round_trip_s = trip_s
            self.told = HeardOfUs((losses >> 24) / 256, lost, jitter / self.clock_hz, trip_s)


def _round_trip_s(last: int, since: int, wall_s: float) -> float | None:
    """By when our report left, and how long they held it (§6.4.1); None when they name none of ours."""
    if last == 0:
        return None
    now = int((wall_s + _NTP_EPOCH_S) * 65536) & 0xFFFFFFFF
    trip = ((now - last - since + 0x80000000) & 0xFFFFFFFF) - 0x80000000
    return trip / 65536 if 0 <= trip < 65536 * 60 else None


def _packet(kind: int, count: int, body: bytes) -> bytes:
    return _HEAD.pack(0x80 | count, kind, len(body) // 4) + body


def _split(data: bytes) -> list[tuple[int, int, bytes]] | None:
    """(kind, count, body) of a compound packet; None when it is not one (§A.2)."""
    found: list[tuple[int, int, bytes]] = []
    at = 0
    while at + 4 <= len(data):
        first, kind, words = _HEAD.unpack_from(data, at)
        end = at + 4 + 4 * words
        if first >> 6 != 2 or end > len(data):
            return None
        found.append((kind, first & 0x1F, data[at + 4 : end]))
        at = end
    return found if found and found[0][0] in (SR, RR) else None
