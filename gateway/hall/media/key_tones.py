"""Keys as sound (DTMF, ITU-T Q.23): two tones at once, found for many calls by one matrix product.

It is for calls whose phone agreed on no telephone-event; the others never come here. What counts as a key is
Q.24's: 40 ms of tones and 40 ms between two presses, frequencies within 1.5 %, the high tone up to 8 dB below
and 4 dB above the low one, noise 20 dB below. Windows of 20 ms, 10 ms apart, must say the same key three
times, and two of them must hold hardly anything else: speech never does (0 of 131 minutes of human prompts).

Hot path: no allocation beyond numpy's temporaries, no locks, no logs.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.hall.media.audio import VAD_HZ, Floats, Rows

KEYS: Final = "123A456B789C*0#D"
"""By low tone, then by high tone."""
LOW_HZ: Final = (697.0, 770.0, 852.0, 941.0)
HIGH_HZ: Final = (1209.0, 1336.0, 1477.0, 1633.0)

WINDOW: Final = 160
HOP: Final = 80
DETUNED: Final = (-0.035, -0.012, 0.0, 0.012, 0.035)
"""Where each tone is looked for, as shares of its frequency; what fits the outer ones best is no key's."""
LEAST_POWER: Final = 10**-4.2
"""Mean square of a window that may be a key: -42 dB below full scale."""
LOW_ABOVE: Final = 10.0
HIGH_ABOVE: Final = 10**0.65
"""Ratios of power that one tone may have over the other: Q.24's 8 and 4 dB, and 2 dB that windows err by."""
PURE: Final = 0.6
"""Least share of a window's power in its two tones, also where the window is not full of them."""
PURER: Final = 0.8
"""The same of a window that lies within the press."""
SAME: Final = 3
PURE_OF_SAME: Final = 2
"""Windows that begin a press; pure ones among them."""
GAP: Final = 4
"""Windows without the key after which it counts again; 20 ms of silence make three."""
LATE: Final = 6
"""Frames that did not come after which a key is over. Fewer were late or lost within a press: a phone that
leaves silence out goes on sending for longer than that."""

Small = NDArray[np.int8]
NO_KEY: Final = -1


def _bank() -> Floats:
    """Float32 `(WINDOW, 2 * tones)`: cosines, then sines, of each tone at each detuning."""
    hz = (np.array(LOW_HZ + HIGH_HZ)[:, None] * (1 + np.array(DETUNED))).reshape(-1)
    phase = 2 * np.pi / VAD_HZ * np.arange(WINDOW)[:, None] * hz[None, :]
    return np.concatenate((np.cos(phase), np.sin(phase)), axis=1).astype(np.float32)


class KeyTones:
    """For up to `capacity` calls, each with its state in its row."""

    def __init__(self, capacity: int) -> None:
        self._bank = _bank()
        self._past: Floats = np.zeros((capacity, HOP), np.float32)
        self._candidate: Small = np.full(capacity, NO_KEY, np.int8)
        self._same: Small = np.zeros(capacity, np.int8)
        self._pure: Small = np.zeros(capacity, np.int8)
        self._pressed: Small = np.full(capacity, NO_KEY, np.int8)
        self._missed: Small = np.zeros(capacity, np.int8)
        self._late: Small = np.zeros(capacity, np.int8)

    def reset(self, row: int) -> None:
        self._past[row] = 0.0
        self._candidate[row] = self._pressed[row] = NO_KEY
        self._same[row] = self._pure[row] = self._missed[row] = self._late[row] = 0

    def miss(self, row: int) -> None:
        """20 ms of the call in `row` did not come. What comes next goes on where the last sound ended, if it
        was only late."""
        late = min(int(self._late[row]) + 1, LATE)
        if late == LATE:
            self.reset(row)
        self._missed[row] = 0
        self._late[row] = late

    def hear(self, rows: Rows, block: Floats) -> list[tuple[int, str]]:
        """Takes `block`, float32 `(B, 160)` at 8 kHz; returns (index in `rows`, key) for each press that
        begins."""
        sound = np.concatenate((self._past[rows], block), axis=1)
        self._past[rows] = sound[:, WINDOW:]
        self._late[rows] = 0
        begun: list[tuple[int, str]] = []
        for at in (0, HOP):
            key, share = self._judge(sound[:, at : at + WINDOW])
            found = np.flatnonzero(self._follow(rows, key, share))
            begun += [(int(index), KEYS[key[index]]) for index in found]
        return begun

    def sounding(self, rows: Rows) -> NDArray[np.bool_]:
        """In which of these calls a key sounds now."""
        return np.asarray(self._pressed[rows] != NO_KEY)

    def _judge(self, windows: Floats) -> tuple[Small, Floats]:
        """The key that each window sounds like, or `NO_KEY`, and the share of its power in two tones."""
        at = np.arange(len(windows))
        parts = windows @ self._bank
        tones = parts.shape[1] // 2
        power = (parts[:, :tones] ** 2 + parts[:, tones:] ** 2) * (2 / WINDOW)
        power = power.reshape(len(windows), len(LOW_HZ) + len(HIGH_HZ), len(DETUNED))
        best, detuned = power.max(axis=2), power.argmax(axis=2)
        low = best[:, : len(LOW_HZ)].argmax(axis=1)
        high = best[:, len(LOW_HZ) :].argmax(axis=1) + len(LOW_HZ)
        low_power, high_power = best[at, low], best[at, high]
        whole = np.einsum("ij,ij->i", windows, windows)
        share = (low_power + high_power) / np.maximum(whole, 1e-9)
        outer = len(DETUNED) - 1
        in_tune = (detuned[at, low] % outer != 0) & (detuned[at, high] % outer != 0)
        is_key = (
            in_tune
            & (share >= PURE)
            & (whole >= LEAST_POWER * WINDOW)
            & (low_power <= LOW_ABOVE * high_power)
            & (high_power <= HIGH_ABOVE * low_power)
        )
        key = np.where(is_key, low * len(HIGH_HZ) + high - len(LOW_HZ), NO_KEY)
        return key.astype(np.int8), share

    def _follow(self, rows: Rows, key: Small, share: Floats) -> NDArray[np.bool_]:
        """Takes one window of each call; True where a press begins with it."""
        goes_on = (key != NO_KEY) & (key == self._candidate[rows])
        same = np.where(goes_on, np.minimum(self._same[rows], 100), 0) + (key != NO_KEY)
        pure = np.where(goes_on, np.minimum(self._pure[rows], 100), 0) + ((key != NO_KEY) & (share >= PURER))
        held = (key != NO_KEY) & (key == self._pressed[rows])
        missed = np.where(held, 0, np.minimum(self._missed[rows] + 1, GAP))
        pressed = np.where(missed >= GAP, NO_KEY, self._pressed[rows])
        begins = (same >= SAME) & (pure >= PURE_OF_SAME) & (key != pressed)
        self._candidate[rows] = key
        self._same[rows], self._pure[rows] = same, pure
        self._missed[rows] = np.where(begins, 0, missed)
        self._pressed[rows] = np.where(begins, key, pressed)
        began: NDArray[np.bool_] = begins
        return began
