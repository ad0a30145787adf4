"""A call's place in the 20 ms pass, and what the pass needs of a call.

What the pass keeps of a call is its `Seat`, which nobody else writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateway.hall.calls.call_ear import CallEar
from gateway.hall.media.audio import HOUSE_HZ
from gateway.hall.media.echo import EchoGuard
from gateway.hall.media.leg import DUCKED, FULL
from gateway.hall.media.rate import Rate
from gateway.hall.parts.licence import Licence
from gateway.hall.parts.playout import Playout
from gateway.ipc import tick
from gateway.ipc.line_messages import KeyWay
from watermark.detect import Detection
from watermark.selfcheck import SelfCheck


@dataclass(slots=True, eq=False)
class Seat:
    """A call's place in every batched stage, and what the pass counts there."""

    row: int
    mark_slot: int
    check: SelfCheck
    """keeps what was sent, so that its mark can be looked for"""
    echo: EchoGuard
    """knows whether the caller's line sends us our own voice"""
    rate: Rate | None = None
    """the stages of the call's line; None until a line has the call"""
    sending: bool = False
    """the line plays what it is sent to the caller: the call is answered and not held"""
    tail: bool = False
    """the marker still holds the end of what was said"""
    played_samples: int = 0
    """played by the line since the call was seated, at the line's rate"""
    played_seen: int | None = None
    """the line's counter at its last tick; None before the first"""
    underruns: int = 0
    spoken_samples: int = 0
    """marked and sent, 24 kHz"""
    alarmed: bool = False
    """a frame could not be marked, and the call was told"""
    ducked_at: float | None = None
    """since when our voice is softer, monotonic; None: it is not"""
    ducks: int = 0
    """how often it was"""

    def move(self, rate: Rate) -> None:
        """The call's sound comes on a line of that rate from now on."""
        self.rate = rate
        self.played_seen = None
        rate.reset(self.row)
        self.echo.reset(rate.rate_hz, self.played_samples)

    def duck(self, at: float) -> None:
        """Our voice is softer from the next frame on; `at`: now, monotonic."""
        self._aim(DUCKED)
        if self.ducked_at is None:
            self.ducked_at = at
            self.ducks += 1

    def come_back(self) -> float | None:
        """Our voice is as loud as it was made, from the next frame on. Returns since when it was softer,
        monotonic; None: it was not."""
        self._aim(FULL)
        since, self.ducked_at = self.ducked_at, None
        return since

    def _aim(self, gain: float) -> None:
        """The gain that the call's leg ramps to within its next frame."""
        if self.rate is not None:
            self.rate.legs.aim(self.row, gain)

    def tick(self, flags: int, played: int, pcm: bytes | memoryview, rate_hz: int) -> int | None:
        """A tick of the line came: the caller's 20 ms, and the line's counter (uint32, its own rate) of our
        samples that it played. Returns how many it played since the call was seated, at 24 kHz; None: no more
        than at the tick before."""
        self.sending = bool(flags & tick.SENDING)
        if flags & tick.UNDERRUN:
            self.underruns += 1
        heard = None if played == self.played_seen else self.count_played(played, rate_hz)
        self.echo.tick(self.played_samples, pcm)
        return heard

    def count_played(self, played: int, rate_hz: int) -> int:
        """Takes the line's counter alone; returns as `tick`, also when there is nothing new."""
        if self.played_seen is None:  # what it played before was of a hall that died
            self.played_seen = played
        self.played_samples += (played - self.played_seen) & 0xFFFFFFFF
        self.played_seen = played
        return self.played_samples * HOUSE_HZ // rate_hz

    def talk(self) -> None:
        """The marker is given sound to mark."""
        self.tail = True

    def pause(self) -> bool:
        """There is nothing to say; True when the marker holds the end of what was said, for once."""
        tail, self.tail = self.tail, False
        return tail

    def count_spoken(self, samples: int) -> None:
        """So many more were marked and sent, 24 kHz."""
        self.spoken_samples += samples

    def alarm(self) -> bool:
        """A frame could not be marked; True when that was the first one."""
        first, self.alarmed = not self.alarmed, True
        return first


class Seated(Protocol):
    """What the pass needs of a call."""

    @property
    def id(self) -> str: ...

    @property
    def seat(self) -> Seat: ...

    @property
    def ear(self) -> CallEar: ...

    @property
    def playout(self) -> Playout: ...

    @property
    def licence(self) -> Licence: ...

    def press(self, digit: str, way: KeyWay) -> None:
        """The caller pressed a key, and it came this way."""

    def alarm(self, error: Exception) -> None:
        """A frame could not be marked and went out as silence; told once a call."""

    def hear_echo(self, delay_s: float) -> None:
        """The call's line sends us our own voice; told whenever that is found, a few times a call at most."""

    def judge_mark(self, verdict: Detection) -> None:
        """Whether what the call was sent carries its mark: told of each window."""

    def keep_sound(self, row: str) -> None:
        """Some seconds of the call's sound track are over."""

    def broke(self, where: str) -> None:
        """An error of ours, inside an `except`."""
