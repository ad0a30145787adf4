"""How loud both sides of each call are, step by step, and what is the matter: the calls' sound tracks.

The 20 ms pass adds what it heard and sent; every `STEP_S` the meter closes a step of all calls at once, and
every `ROW_STEPS` it hands a call the row to be kept (`gateway.store.sound_track`). Steps are of the clock:
what comes late stands in the step in which the hall took it.

Hot path: numpy over all calls at once; no awaits, no locks, no logs.
"""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gateway.hall.calls.seat import Seated
from gateway.hall.media.audio import Floats, Rows
from gateway.hall.parts.clocks import Clocks
from gateway.store.sound_track import (
    FLAGS,
    LONGEST_S,
    NOTHING,
    ROW_STEPS,
    SILENCE,
    STEP_BYTES,
    STEP_S,
    end_row,
    steps_row,
)
from watermark.pcm import FULL_SCALE

SPEECH: Final = FLAGS["speech"]
PLAYING: Final = FLAGS["playing"]
DUCKED: Final = FLAGS["ducked"]
HELD: Final = FLAGS["held"]
MUTED: Final = FLAGS["muted"]
NOT_MARKED: Final = FLAGS["not_marked"]
UNDERRUN: Final = FLAGS["underrun"]

LONGEST_GAP: Final = ROW_STEPS
"""After so many steps without a pass a row begins anew: nothing of that time need be written."""
_LEAST: Final = 10 ** (-SILENCE / 10)


class _Side:
    """What one side sent in the step that is open."""

    def __init__(self, capacity: int) -> None:
        self._power: Floats = np.zeros(capacity, np.float32)
        """the frames' mean squares, added up; full scale is 1"""
        self._frames: Floats = np.zeros(capacity, np.float32)

    def add(self, rows: Rows, power: NDArray[np.floating[Any]]) -> None:
        """20 ms of each call in `rows`, no call twice."""
        self._power[rows] += power
        self._frames[rows] += 1.0

    def take(self, rows: Rows) -> NDArray[np.uint8]:
        """The step's levels as a track keeps them; the next step begins with nothing."""
        frames = self._frames[rows]
        mean = self._power[rows] / np.maximum(frames, 1.0)
        levels = np.rint(-10.0 * np.log10(np.maximum(mean, _LEAST)))
        self._power[rows] = self._frames[rows] = 0.0
        return np.where(frames > 0.0, np.clip(levels, 0.0, SILENCE), NOTHING).astype(np.uint8)

    def forget(self, row: int) -> None:
        self._power[row] = self._frames[row] = 0.0


class SoundMeter:
    """One hall's. A call's row is its own, as in every stage."""

    def __init__(self, capacity: int, clocks: Clocks = time) -> None:
        self._clocks = clocks
        self._caller = _Side(capacity)
        self._voice = _Side(capacity)
        self._flags: NDArray[np.uint8] = np.zeros(capacity, np.uint8)
        """of the step that is open"""
        self._steps: NDArray[np.uint8] = np.zeros((capacity, ROW_STEPS, STEP_BYTES), np.uint8)
        """of the rows that are not full"""
        self._filled: NDArray[np.intp] = np.zeros(capacity, np.intp)
        self._left: NDArray[np.intp] = np.zeros(capacity, np.intp)
        """steps that may still be kept of a call"""
        self._calls: dict[int, Seated] = {}
        """those with a track, by row"""
        self._sent_to: set[int] = set()
        """rows of calls whose callers heard us at some time: from then on they are held, or hear us"""
        self._rows: Rows = np.zeros(0, np.intp)
        self._number = 0
        """of the step that is open"""
        self._over_at = 0.0
        """when it is over, monotonic"""

    # ── who is measured ──────────────────────────────────────────────────────────────────────────────

    def admit(self, row: int, age_s: float) -> None:
        """A call that is `age_s` old has this row from now on."""
        self._left[row] = max(0, round((LONGEST_S - age_s) / STEP_S))
        self._sent_to.discard(row)

    def begin(self, call: Seated) -> None:
        """A line has the call. Its track goes on with the next step."""
        row = call.seat.row
        self.turn(self._clocks.monotonic())  # steps that were over before are not this call's
        self._write(row)
        self._forget(row)
        if self._left[row] > 0:
            self._calls[row] = call
            self._seated()

    def end(self, row: int) -> None:
        """The call is over: what was not written yet is."""
        self._write(row)
        if self._calls.pop(row, None) is not None:
            self._seated()

    def _seated(self) -> None:
        self._rows = np.array(list(self._calls), np.intp)

    # ── the hot path ─────────────────────────────────────────────────────────────────────────────────

    def hear(self, rows: Rows, sound: Floats) -> None:
        """Callers' 20 ms as they came, float32 `(B, n)`."""
        self._caller.add(rows, np.einsum("ij,ij->i", sound, sound) / sound.shape[1])

    def send(self, rows: Rows, pcm: NDArray[np.int16], ducked: NDArray[np.bool_]) -> None:
        """What their lines were given of our voice, int16 `(B, n)`; `ducked`: whose is softer than it was
        said."""
        sound = pcm.astype(np.float32)
        power = np.einsum("ij,ij->i", sound, sound) / np.float32(sound.shape[1] * FULL_SCALE**2)
        self._voice.add(rows, power)
        self._flags[rows] |= np.where(ducked, np.uint8(PLAYING | DUCKED), np.uint8(PLAYING))

    def flag(self, row: int, flag: int) -> None:
        """Something was the matter with a call in this step."""
        self._flags[row] |= flag

    def turn(self, now: float) -> None:
        """A pass begins, at `now` (monotonic): closes the steps that are over."""
        if now < self._over_at:
            return
        over = int((now - self._over_at) / STEP_S) + 1
        if over > LONGEST_GAP:
            for row in self._calls:
                self._write(row)
                self._forget(row)
            self._over_at = now + STEP_S
            return
        for _ in range(over):
            self._close()

    def _forget(self, row: int) -> None:
        """Nothing of the open step is kept."""
        self._caller.forget(row)
        self._voice.forget(row)
        self._flags[row] = 0

    def _close(self) -> None:
        """The open step is over."""
        self._number += 1
        rows = self._rows
        if len(rows):
            for row, call in self._calls.items():
                self._look(row, call)
            at = self._filled[rows]
            self._steps[rows, at, 0] = self._caller.take(rows)
            self._steps[rows, at, 1] = self._voice.take(rows)
            self._steps[rows, at, 2] = self._flags[rows]
            self._flags[rows] = 0
            self._filled[rows] = at + 1
            self._left[rows] -= 1
        self._over_at += STEP_S
        if len(rows):  # calls write in turn, by their rows: never all of them in one pass
            due = (self._number + rows) % ROW_STEPS == 0
            for row in rows[due].tolist():
                self._write(row)
            for row in rows[self._left[rows] <= 0].tolist():
                self._write(row)
                self._keep(self._calls.pop(row), end_row(self._wall(self._over_at - STEP_S)))
                self._seated()

    def _look(self, row: int, call: Seated) -> None:
        """What a call knows of itself goes into its open step."""
        if call.licence.muted is not None:
            self._flags[row] = (int(self._flags[row]) | MUTED) & ~PLAYING
        if call.seat.sending:
            self._sent_to.add(row)
        elif row in self._sent_to:
            self._flags[row] |= HELD

    def _write(self, row: int) -> None:
        """Hands the call the steps that are over."""
        filled, call = int(self._filled[row]), self._calls.get(row)
        self._filled[row] = 0
        if filled and call is not None:
            began_at = self._wall(self._over_at - STEP_S * (1 + filled))
            self._keep(call, steps_row(began_at, self._steps[row, :filled].tobytes()))

    def _keep(self, call: Seated, row: str) -> None:
        try:
            call.keep_sound(row)
        except Exception:
            call.broke("sound")

    def _wall(self, at: float) -> float:
        """Seconds since the epoch of a time of the monotonic clock."""
        return self._clocks.time() - self._clocks.monotonic() + at
