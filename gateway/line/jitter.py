"""A jitter buffer that is emptied by the line's clock, in the place of aiortc's.

aiortc's buffer hands a packet on when later ones push it out: it holds 80 ms, one lost packet stops it for
320 ms, and 280 ms of that stay for good. Here packets wait in order and the tick takes them (`pull`), so a
lost packet costs nothing but itself:

* The delay aimed at follows the jitter seen: the 97th percentile of the last 4 s of how much later than the
  promptest packet each came, and a little more.
* Nothing there: the sound is concealed (`LATE`) without going on, so that a late packet still plays. When
  instead a later packet comes, what was concealed counts as played: a loss adds no delay.
* A gap with a later packet waiting: concealed at once, by that packet's FEC copy when it is the next one.
* More delay than aimed at, for a while: a packet is `spare`. The line drops its sound when that is quiet,
  or at the latest after half a second (`must_drop`).
* A packet that is no sound (a key, comfort noise) stands in the order like the others (`add_rest`), so that
  its number is not missed. What its sender leaves out after it is a pause and no loss.

Times are `time.monotonic()` seconds of arrival and of pulling; RTP timestamps count at `rate_hz`.
"""

from __future__ import annotations

import enum
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, Protocol

RATE_HZ: Final = 48_000
FRAME: Final = 960
"""20 ms at `RATE_HZ`."""
FRAMES_A_SECOND: Final = 50
FIRST_TARGET_S: Final = 0.04
"""Delay aimed at before there is anything to judge by."""
LEAST_TARGET_S: Final = 0.01
MOST_TARGET_S: Final = 0.2
MARGIN_S: Final = 0.005
JUDGED: Final = 200
"""Arrivals that are judged by: 4 s of 20 ms packets."""
JUDGED_SHARE: Final = 0.97
PATIENCE: Final = 10
"""Pulls with too much delay before a packet is spare …"""
END_OF_PATIENCE: Final = 25
"""… and before it is dropped even if it is loud."""
FAR_TOO_MUCH_S: Final = 0.1
"""With this much delay too many, patience is a fifth."""
MOST_CONCEALED: Final = 5
"""Packets concealed in a row before we call it silence."""
SETTLED: Final = 32
"""Packets over which the delay is averaged."""
ROUND: Final = 0x10000
"""Sequence numbers until they begin anew."""
HALF_A_ROUND: Final = ROUND // 2
FARTHEST: Final = 100
"""A sequence number farther away than this begins a new stream."""


class PullKind(enum.Enum):
    """What a pull found."""

    PLAY = enum.auto()
    """`payload` is the next packet"""
    RECOVER = enum.auto()
    """the next packet is lost; `payload` is the one after it, which may hold its FEC copy"""
    LATE = enum.auto()
    """conceal"""
    SILENT = enum.auto()
    """nothing comes: the sender pauses, or has not begun"""
    REST = enum.auto()
    """`payload` is a packet without sound; pull again"""


class Pulled(NamedTuple):
    kind: PullKind
    payload: bytes = b""
    samples: int = FRAME
    """how much to conceal or recover"""
    spare: bool = False
    """there is more delay than needed: drop this sound if it is quiet, and call `dropped`"""
    must_drop: bool = False
    """… even if it is not"""


_pulled: Final = partial(tuple.__new__, Pulled)
"""`Pulled` of a tuple, at half the price."""
_TAKEN: Final = False, None


class ArrivedPacket(Protocol):
    """What is used of `aiortc.rtp.RtpPacket`."""

    @property
    def sequence_number(self) -> int: ...

    @property
    def timestamp(self) -> int: ...

    @property
    def ssrc(self) -> int: ...

    @property
    def payload(self) -> bytes: ...


@dataclass(slots=True)
class JitterStats:
    """Counters since the call began."""

    received: int = 0
    late: int = 0
    """came after their place had been concealed"""
    duplicate: int = 0
    lost: int = 0
    """skipped because they never came in time"""
    recovered: int = 0
    """of these, taken from FEC"""
    concealed: int = 0
    """packets' worth of concealment played"""
    dropped: int = 0
    """played packets left out to lose delay"""


class JitterBuffer:
    """Packets of one audio stream, in order, for as long as they must wait.

    The first three parameters and `add`'s result are aiortc's; of them only the form is kept: nothing is
    ever handed to aiortc's decoder.
    """

    def __init__(
        self,
        capacity: int = 64,
        prefetch: int = 0,
        is_video: bool = False,
        *,
        clock: Callable[[], float] = time.monotonic,
        rate_hz: int = RATE_HZ,
        first_target_s: float = FIRST_TARGET_S,
    ) -> None:
        self.stats = JitterStats()
        self.delay_s = 0.0
        """how long packets have waited of late, had they come as promptly as the promptest"""
        self._rate_hz = rate_hz
        self._first_target_s = first_target_s
        self._frame = rate_hz // FRAMES_A_SECOND
        self._capacity = max(capacity, 64)
        self._clock = clock
        self._ssrc: int | None = None
        self._reset()

    def _reset(self) -> None:
        self._packets: dict[int, tuple[int, bytes]] = {}
        self._resting: set[int] = set()
        """which of them are no sound"""
        self._next: int | None = None
        """sequence number (unwrapped) that plays next"""
        self._taken: int | None = None
        """the last number that was pulled; what comes again is not pulled again, even after a pause"""
        self._newest = 0
        self._last_timestamp = 0
        """unwrapped timestamp of the newest packet"""
        self._samples = self._frame
        """length of the sender's packets"""
        self._lateness: deque[float] = deque(maxlen=JUDGED)
        """arrival minus media time, seconds on no particular origin"""
        self._since_judged = 0
        self._promptest = 0.0
        self.target_s = self._first_target_s
        self._concealed = 0
        """packets concealed since the last one played, not yet counted against a gap"""
        self._playing = False
        self._excess = 0

    # ── arrivals ─────────────────────────────────────────────────────────────────────────────────────

    def add(self, packet: ArrivedPacket) -> tuple[bool, None]:
        """Takes a packet. Answers aiortc's (no picture-loss indication, no frame)."""
        self._add(packet, True)
        return _TAKEN

    def add_rest(self, packet: ArrivedPacket) -> None:
        """Takes a packet that is no sound. Packets of one key share a timestamp: none judges jitter."""
        self._add(packet, False)

    def _add(self, packet: ArrivedPacket, sounds: bool) -> None:
        self.stats.received += 1
        if self._ssrc != packet.ssrc:
            self._ssrc = packet.ssrc
            self._reset()
        if self._next is None:
            number = self._newest = self._next = packet.sequence_number
            timestamp = self._last_timestamp = packet.timestamp
        else:
            newest, last = self._newest, self._last_timestamp  # counters wrap: the nearest is meant
            number = newest + (packet.sequence_number - newest + HALF_A_ROUND) % ROUND - HALF_A_ROUND
            timestamp = last + ((packet.timestamp - last + 0x80000000) & 0xFFFFFFFF) - 0x80000000
            if abs(number - newest) > FARTHEST:
                self._reset()
                number = self._newest = self._next = packet.sequence_number
                timestamp = self._last_timestamp = packet.timestamp
        if sounds:
            self._judge(self._clock() - timestamp / self._rate_hz)
        if number > self._newest:
            frame, step = self._frame, timestamp - self._last_timestamp
            if (
                step != self._samples
                and sounds
                and number == self._newest + 1
                and frame // 8 <= step <= 6 * frame
            ):
                self._samples = step
            self._newest, self._last_timestamp = number, timestamp
        if number in self._packets:
            self.stats.duplicate += 1
        elif number < self._next and (self._playing or self._is_over(number)):
            self.stats.late += 1
        else:
            self._next = min(self._next, number)  # before the first pull an earlier one may still come
            self._packets[number] = (timestamp, packet.payload)
            if not sounds:
                self._resting.add(number)
            while len(self._packets) > self._capacity:
                oldest = min(self._packets)
                self._packets.pop(oldest)
                self._resting.discard(oldest)
                self._next = min(self._packets)
                self.stats.dropped += 1

    def _is_over(self, number: int) -> bool:
        """Whether it was pulled, or something after it was. Before the first pull nothing is."""
        return self._taken is not None and number <= self._taken

    def _judge(self, lateness: float) -> None:
        """Follows the jitter. Sorting 200 numbers twice a second costs nothing."""
        self._lateness.append(lateness)
        if len(self._lateness) == 1 or lateness < self._promptest:
            self._promptest = lateness
        self._since_judged += 1
        if self._since_judged < 25:
            return
        self._since_judged = 0
        ranked = sorted(self._lateness)
        self._promptest = ranked[0]
        usual = ranked[int(JUDGED_SHARE * (len(ranked) - 1))] - ranked[0]
        self.target_s = min(max(usual + MARGIN_S, LEAST_TARGET_S), MOST_TARGET_S)

    def clear(self) -> None:
        """What waits is not played, and the next packet begins a stream."""
        self._reset()

    # ── the tick ─────────────────────────────────────────────────────────────────────────────────────

    def pull(self) -> Pulled:
        """The next packet's worth of sound, or what stands in for it."""
        now = self._clock()
        if self._next is None:
            return Pulled(PullKind.SILENT)
        if not self._packets:
            return self._starve()
        first = self._next if self._next in self._packets else min(self._packets)
        if not self._playing:
            if self._delay(first, now) < self.target_s:
                return Pulled(PullKind.SILENT)
            self._playing = True
            self._next, self._concealed = first, 0
        if first > self._next:
            missing = first - self._next
            due = self._delay(first, now) + missing * self._samples / self._rate_hz
            if due < self.target_s and self._concealed < MOST_CONCEALED:  # it may still come
                self._concealed += 1
                self.stats.concealed += 1
                return Pulled(PullKind.LATE, samples=self._samples)
            covered = min(self._concealed, missing)
            self._concealed = 0
            self._next += covered
            self.stats.lost += covered
            if covered < missing:
                return self._bridge(first, missing - covered)
        self._concealed = 0
        timestamp, payload = self._packets.pop(first)
        delay = now - timestamp / self._rate_hz - self._promptest
        self._taken, self._next = first, first + 1
        if first in self._resting:
            self._resting.discard(first)
            self._playing = False  # what comes next is waited for as at the beginning
            return Pulled(PullKind.REST, payload, 0)
        self.delay_s += (delay - self.delay_s) / SETTLED
        return self._play(payload, delay)

    def _starve(self) -> Pulled:
        if not self._playing:
            return Pulled(PullKind.SILENT)
        self._concealed += 1
        if self._concealed > MOST_CONCEALED:
            self._playing = False
            return Pulled(PullKind.SILENT)
        self.stats.concealed += 1
        return Pulled(PullKind.LATE, samples=self._samples)

    def _bridge(self, first: int, missing: int) -> Pulled:
        """Packets are lost for good, and `first` is here."""
        assert self._next is not None  # noqa: S101  # for mypy: `pull` has just compared it
        if missing > MOST_CONCEALED:  # a long gap is not worth playing through
            self.stats.lost += missing
            self._next = first
            return self.pull()
        self._next += 1
        self.stats.lost += 1
        if missing == 1:
            self.stats.recovered += 1
            return Pulled(PullKind.RECOVER, self._packets[first][1], self._samples)
        self.stats.concealed += 1
        return Pulled(PullKind.LATE, samples=self._samples)

    def _delay(self, number: int, now: float) -> float:
        """Seconds a packet has waited, had it come as promptly as the promptest."""
        return now - self._packets[number][0] / self._rate_hz - self._promptest

    def _play(self, payload: bytes, delay: float) -> Pulled:
        excess = delay - self.target_s
        if not self._packets or excess < self._samples / self._rate_hz + 0.002:
            self._excess = 0
            return _pulled((PullKind.PLAY, payload, self._samples, False, False))
        self._excess += 5 if excess > FAR_TOO_MUCH_S else 1
        return Pulled(
            PullKind.PLAY,
            payload,
            self._samples,
            spare=self._excess > PATIENCE,
            must_drop=self._excess > END_OF_PATIENCE,
        )

    def dropped(self) -> None:
        """The line left out the spare sound it had pulled."""
        self.stats.dropped += 1
        self._excess = 0
