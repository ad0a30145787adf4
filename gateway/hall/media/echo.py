"""Takes our own voice out of what a caller's line sends back.

A telephone with a loudspeaker and no echo canceller sends us what we say, late and through its room, and we
would take that for a caller who interrupts. Each call has an `EchoGuard`. It costs next to nothing until
something that sounds like speech comes in while we talk: then it looks for what was played in what was heard,
by cross-correlation. Two looks that find it at the same lag (or one that finds it beyond doubt) are an echo,
and from then on the call's sound goes through WebRTC's canceller (AEC3, `pywebrtc-audio`) on its way to turns
and engine. The canceller is given what the line really played, shifted by the lag that was found, since it
looks no further back than half a second.

`EchoStage` does this for the calls of one line rate. The wheel holds the interpreter's lock while it cancels,
so that threads would not help; it works after the 20 ms pass instead, when the lines have their answers.

Hot path: no locks, no logs; it allocates the frames that it hands on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pywebrtc_audio import EchoCanceller

from gateway.hall.media.audio import FRAME_S, HOUSE_HZ, VAD_HZ, Floats, Rows
from gateway.hall.media.played_sound import FARTHEST_S, FOLLOW_S, Pcm, PlayedSound
from gateway.rtp.media.rate_changer import RateChanger
from watermark.pcm import float_from_bytes, float_from_int16

ECHO_HZ: Final = 16_000
"""The lowest rate that the canceller takes."""
PIECE: Final = ECHO_HZ // 100
"""Samples that it takes at once (10 ms)."""
CANCELLER_DELAY: Final = 128
"""Samples by which what it returns is late (8 ms)."""
CANCELLERS: Final = 48
"""Calls of one hall that have their echo taken out. Each costs .0075 of a core while we talk to it."""

LOOK_HZ: Final = 8_000
LOOK_S: Final = 0.16
"""How much of the caller's sound a look takes, and the least time between two: they share nothing."""
PRE_EMPHASIS: Final = 0.9
WHITENING: Final = 0.5
"""Spectra are divided by this power of their magnitude: speech is like other speech, its colour taken away
it is not."""
LEAST_SHARE: Final = 0.02
"""Stretches of our sound with less than this share of the loudest's energy count as so loud: what is nearly
silent is like anything."""
SAME_LAG: Final = round(0.0025 * LOOK_HZ)
"""Looks that differ by less (2.5 ms) have found the same way."""
BEYOND_DOUBT: Final = 0.5
TWO_ALIKE: Final = 0.55
"""What the likeness must be of one look, and in sum of two that found the same way; three that did need none.
An echo in a common room shows within two looks (.90 to .98 of them), a stranger's voice in one of 175."""
REMEMBERED: Final = 6
"""Looks that are compared, and looks that one utterance of the caller's is worth."""
PAUSE_S: Final = 0.5
"""So long without speech ends such an utterance."""

HANG_S: Final = 0.5
"""The canceller runs so long after our last sound came back."""
AHEAD_S: Final = 0.1
"""What is left of the lag for the canceller to find: the echo may come so much earlier all at once."""
REACH_S: Final = (0.04, 0.35)
"""What is left of it may become so little or so much, before the reference is shifted anew."""
NEAR_LAG: Final = round(0.01 * LOOK_HZ)
"""Lags within 10 ms are one way through one room."""
UNHEARD: Final = 10.0 ** (-70 / 20)
"""A caller's sound below this (rms) holds no echo that anybody would take for speech."""
AUDIBLE: Final = 10.0 ** (-40 / 20)
"""Of our sound at least this (rms) tells whether it comes back."""
PATIENCE: Final = 5
"""Looks in a row without an echo, `FOLLOW_S` apart, after which there never was one …"""
TRUST: Final = 20
"""… and after which there is none any more, where it was seen a second time."""


def thinned(sound: Floats, rate_hz: int) -> Floats:
    """Sound of a line at `LOOK_HZ`, for looking only: both sides are thinned alike."""
    step = rate_hz // LOOK_HZ
    return sound if step == 1 else sound.reshape(-1, step).mean(axis=1)


def likeness(near: Floats, far: Floats) -> tuple[float, int]:
    """How much of `far`, which ends when `near` does, is in `near`: the greatest normalised cross-correlation
    over all lags that `far` is longer by, in [0, 1], and its lag in samples. Both at `LOOK_HZ`."""
    window, lags = len(near), len(far) - len(near)
    size = -(-len(far) // 640) * 640  # a length that an FFT likes
    played = _white(np.fft.rfft(_emphasised(far), size))
    heard = _white(np.fft.rfft(_emphasised(near), size))
    shared = np.abs(np.fft.irfft(played * np.conj(heard), size)[: lags + 1])
    loud = np.fft.irfft(played, size)[: len(far)] ** 2
    energy = np.concatenate((np.zeros(1), np.cumsum(loud)))
    stretches = energy[window:] - energy[:-window]
    own = 2.0 * float(np.sum(np.abs(heard) ** 2)) / size
    floor = LEAST_SHARE * float(stretches.max())
    if floor <= 0.0 or own <= 0.0:
        return 0.0, 0
    alike = shared / np.sqrt(np.maximum(stretches, floor) * own)
    best = int(alike.argmax())
    return min(1.0, float(alike[best])), lags - best


def _rms(sound: Floats) -> float:
    return float(np.sqrt(np.mean(sound.astype(np.float64) ** 2)))


def _emphasised(sound: Floats) -> NDArray[np.float64]:
    out = sound.astype(np.float64)
    out[1:] -= PRE_EMPHASIS * out[:-1].copy()
    return out


def _white(spectrum: NDArray[np.complex128]) -> NDArray[np.complex128]:
    return np.asarray(spectrum / (np.abs(spectrum) + 1e-6) ** WHITENING)


class Cancellers:
    """So many calls of a hall can have their echo taken out at once."""

    def __init__(self, most: int = CANCELLERS) -> None:
        self._free = most

    def take(self) -> EchoCanceller | None:
        """A new one; None when all are taken."""
        if not self._free:
            return None
        self._free -= 1
        return EchoCanceller(ECHO_HZ)

    def give_back(self) -> None:
        """One is not used any more."""
        self._free += 1


class EchoGuard:
    """One call's: whether its line sends us our own voice, and how late."""

    def __init__(self, cancellers: Cancellers) -> None:
        self.on = False
        """The call's sound goes through an `EchoStage`."""
        self.ours = PlayedSound(LOOK_HZ, 0)
        self._cancellers = cancellers
        self._canceller: EchoCanceller | None = None
        self._rate_hz = LOOK_HZ
        self._heard: deque[bytes | memoryview] = deque(maxlen=round(FOLLOW_S / FRAME_S))
        self._before: Floats = np.zeros(PIECE, np.float32)
        """the caller's last 10 ms at `ECHO_HZ`"""
        self._running = False
        self._ways: deque[tuple[float, int]] = deque(maxlen=REMEMBERED)
        """what the last looks found: likeness and lag"""
        self._lag = 0
        """of the echo, at `LOOK_HZ`"""
        self._shift = 0
        """of the reference, in samples of the line"""
        self._looked = 0
        """ticks since the last look"""
        self._looks = 0
        """at the present utterance of the caller's"""
        self._unlike = 0
        """looks in a row without an echo"""
        self._patience = PATIENCE
        """so many may be"""

    def reset(self, rate_hz: int, played: int) -> None:
        """The call is on another line: nothing is known of its way. `played`: see `PlayedSound`."""
        self._stop()
        self.ours = PlayedSound(rate_hz, played)
        self._rate_hz = rate_hz
        self._heard.clear()
        self._ways.clear()
        self._looked = self._looks = 0

    def close(self) -> None:
        """The call is over."""
        self._stop()

    def _stop(self) -> None:
        if self._canceller is not None:
            self._canceller = None
            self._cancellers.give_back()
        self.on = self._running = False

    def tick(self, played: int, pcm: bytes | memoryview) -> None:
        """A tick's sound from the caller, int16, and the line's count of what it played."""
        self.ours.tick(played)
        self._heard.append(pcm)
        self._looked += 1

    def heard_last(self, ticks: int) -> Floats:
        """The caller's sound of so many ticks before this one, float32 `(ticks, frame)` at the line's rate;
        zeros before the first."""
        heard = list(self._heard)[-1 - ticks : -1]
        sound = np.zeros((ticks, self.ours.frame), np.float32)
        if heard:
            sound[ticks - len(heard) :] = float_from_bytes(b"".join(heard)).reshape(len(heard), -1)
        return sound

    # ── is there an echo? ────────────────────────────────────────────────────────────────────────────

    def curious(self) -> bool:
        """Something sounds like speech: whether it is worth a look."""
        if self.ours.still * FRAME_S > FARTHEST_S or self._looked * FRAME_S < LOOK_S - 1e-9:
            return False
        if self._looked * FRAME_S > PAUSE_S:
            self._looks = 0
        return self._looks < REMEMBERED and len(self._heard) * FRAME_S >= LOOK_S - 1e-9

    def look(self) -> bool:
        """Looks for what was played in what was heard; True when it is there: the guard is on from now."""
        self._looks += 1
        alike, lag = likeness(*self._both(LOOK_S))
        before = [other for other, at in self._ways if abs(lag - at) <= SAME_LAG]
        self._ways.append((alike, lag))
        found = alike >= BEYOND_DOUBT or len(before) > 1 or alike + max(before, default=-1.0) >= TWO_ALIKE
        if found:
            self._start(lag)
        return found

    def _both(self, seconds: float) -> tuple[Floats, Floats]:
        """The last `seconds` of the caller, and what was played from `FARTHEST_S` before; at `LOOK_HZ`."""
        self._looked = 0
        ticks = round(seconds / FRAME_S)
        heard = b"".join(self._heard[at] for at in range(len(self._heard) - ticks, len(self._heard)))
        far = self.ours.last(ticks + round(FARTHEST_S / FRAME_S))
        return thinned(float_from_bytes(heard), self._rate_hz), thinned(far, self._rate_hz)

    def _start(self, lag: int) -> None:
        self._stop()
        self._canceller = self._cancellers.take()
        self.on = True
        self._unlike, self._patience = 0, PATIENCE
        self._before = np.zeros(PIECE, np.float32)
        self._aim(lag)

    def _aim(self, lag: int) -> None:
        self._lag = lag
        ahead = max(0, lag - round(AHEAD_S * LOOK_HZ))
        self._shift = ahead * self._rate_hz // LOOK_HZ

    # ── there is ─────────────────────────────────────────────────────────────────────────────────────

    @property
    def delay_s(self) -> float:
        """How late the echo is, from the leg's sound being played to its coming back."""
        return self._lag / LOOK_HZ

    @property
    def reference(self) -> Pcm:
        """What was played when this tick's echo began its way, less `AHEAD_S`; int16 at the line's rate."""
        return self.ours.delayed(self._shift)

    @property
    def _comes_back(self) -> bool:
        """What we said may still be coming back."""
        return self.ours.still * FRAME_S <= self._shift / self._rate_hz + HANG_S

    def deaf(self, *, late: bool) -> bool:
        """There is an echo and nothing that takes it out, no canceller or (`late`) no time for it: who speaks
        while we talk cannot be known."""
        return self.on and (late or self._canceller is None) and self._comes_back

    def clean(self, near: Floats, far: Floats, *, speaking: bool, late: bool = False) -> Floats:
        """The caller's 20 ms without our voice, both float32 `(320,)` at `ECHO_HZ`, `CANCELLER_DELAY` late.

        Out of our talk the sound passes as it is, as late; but not within the caller's turn (`speaking`).
        When the hall is `late` it passes as it is, too.
        """
        canceller = self._canceller
        running = self._comes_back or (self._running and speaking)
        if running and canceller is not None and not late:
            if not self._running:
                canceller.process(self._before, np.zeros(PIECE, np.float32))  # so that its delay holds this
            parts = [
                canceller.process(near[at : at + PIECE], far[at : at + PIECE])
                for at in range(0, len(near), PIECE)
            ]
            out: Floats = np.concatenate(parts)
        else:
            out = np.concatenate((self._before[PIECE - CANCELLER_DELAY :], near[:-CANCELLER_DELAY]))
        self._running = running
        self._before = near[-PIECE:]
        return out

    def due(self) -> bool:
        """It is time to look whether the echo is still there, and still as late."""
        return (
            self._looked * FRAME_S >= FOLLOW_S - 1e-9
            and self._comes_back
            and len(self._heard) * FRAME_S >= FOLLOW_S - 1e-9
        )

    def follow(self) -> None:
        """Looks again: follows an echo whose way has changed, and is off when there is none any more."""
        near, far = self._both(FOLLOW_S)
        end = len(far) - self._lag
        if _rms(far[end - len(near) : end]) < AUDIBLE:
            return
        if _rms(near) < UNHEARD:
            self._miss()
            return
        alike, lag = likeness(near, far)
        if abs(lag - self._lag) <= NEAR_LAG:
            self._unlike, self._patience = 0, TRUST
            self._lag = lag
            left_s = lag / LOOK_HZ - self._shift / self._rate_hz
            if left_s > REACH_S[1] or (self._shift and left_s < REACH_S[0]):  # the clocks drift apart
                self._aim(lag)
        elif any(abs(lag - at) <= SAME_LAG for _, at in tuple(self._ways)[-2:]):
            self._unlike = 0
            self._aim(lag)
        else:
            self._miss()
        self._ways.append((alike, lag))

    def _miss(self) -> None:
        self._unlike += 1
        if self._unlike >= self._patience:
            self._ways.clear()
            self._stop()


class EchoStage:
    """Takes the echo out for the calls of one line rate; a call's row is its own, as in every stage."""

    def __init__(self, rate_hz: int, capacity: int) -> None:
        same = rate_hz == ECHO_HZ
        self._near = None if same else RateChanger(rate_hz, ECHO_HZ, capacity)
        self._far = None if same else RateChanger(rate_hz, ECHO_HZ, capacity)
        self._to_house = RateChanger(ECHO_HZ, HOUSE_HZ, capacity)
        self._to_vad = RateChanger(ECHO_HZ, VAD_HZ, capacity)

    def reset(self, row: int) -> None:
        for stage in (self._near, self._far, self._to_house, self._to_vad):
            if stage is not None:
                stage.reset(row)

    def clean(
        self,
        rows: Rows,
        heard: Floats,
        guards: Sequence[EchoGuard],
        speaking: Sequence[bool],
        *,
        late: bool = False,
    ) -> tuple[Floats, Floats]:
        """`heard` float32 `(B, rate_hz * 0.02)` of the calls in `rows`, which are in their turns or not ->
        their sound at `HOUSE_HZ` and at `VAD_HZ`."""
        near, far = heard, float_from_int16(np.stack([guard.reference for guard in guards]))
        if self._near is not None and self._far is not None:
            near, far = self._near.change(rows, near), self._far.change(rows, far)
        clean = np.stack(
            [
                guard.clean(n, f, speaking=s, late=late)
                for guard, n, f, s in zip(guards, near, far, speaking, strict=True)
            ]
        )
        return self._to_house.change(rows, clean), self._to_vad.change(rows, clean)
