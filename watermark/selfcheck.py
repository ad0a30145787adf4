"""Whether what a call was sent can be traced: the mark, looked for behind a modelled telephone line.

The hall hands over every frame that it sends, with the hop at which it lies in the call; voiced ones are
kept. When 10 s of them have come together, they go to 8 kHz and through mu-law, and the call's chips are
looked for at the very place where they must be, so there is no search. `heard` only copies; `verdict` is
meant for a thread.

With a key of version 2 both layers must be there. The carrier proves the mark; of the envelope layer a little
less is asked, so that no voice falls silent by chance.
"""

from __future__ import annotations

from math import exp
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watermark import align, carrier, code, sound
from watermark.carrier import DATA, HOPS_HZ
from watermark.detect import DETECTED, Detection
from watermark.envelope import chip_network
from watermark.envelope.cells import CELL_HOPS, HALF_CELL_HOPS, Cells
from watermark.frames import RATE_HZ
from watermark.keys import MarkKey
from watermark.whiten import NARROW_HZ, whiten

Floats = NDArray[np.float32]

VOICED: Final = 0.003
"""Frames with a lower rms (-50 dB) are pauses and do not count."""
WINDOW_S: Final = 10.0
SHORTEST_RUN: Final = 4
"""Hops of unbroken voice that are worth looking at."""
ENVELOPE_SCORE_PER_DB: Final = 3.0
"""The least score of the envelope layer, for each dB of its depth: speech without the layer has 4.5 three
times in a million, and the voices to whom a layer of 1.5 dB does least have 11.5, +-1."""
GAP_HOPS: Final = 30
"""Silence between runs, as the envelope layer's detector hears them."""
_HOP: Final = RATE_HZ // HOPS_HZ
_NARROW_HOP: Final = NARROW_HZ // HOPS_HZ


class SelfCheck:
    """What one call was sent since the last verdict."""

    def __init__(self, key: MarkKey, payload: int) -> None:
        self._key = key
        self._payload = payload
        self._coded = code.encode(payload)
        self._hops: list[int] = []
        self._frames: list[Floats] = []
        self._kept = 0

    def heard(self, hop: int, samples: Floats) -> bool:
        """`samples` float32 24 kHz in whole hops, sent from the call's `hop` on. True when a verdict is
        due."""
        if float(np.dot(samples, samples)) > VOICED * VOICED * len(samples):
            self._hops.append(hop)
            self._frames.append(samples)
            self._kept += len(samples)
        return self._kept >= WINDOW_S * RATE_HZ

    def take(self) -> Window:
        """The window that is due; the next one begins empty."""
        window = Window(self._key, self._payload, self._coded, self._hops, self._frames)
        self._hops, self._frames, self._kept = [], [], 0
        return window


class Window:
    """Voiced sound of one call, to be judged once, on any thread."""

    def __init__(
        self, key: MarkKey, payload: int, coded: Floats, hops: list[int], frames: list[Floats]
    ) -> None:
        self._key = key
        self._payload = payload
        self._coded = coded
        self._hops = hops
        self._frames = frames

    def verdict(self) -> Detection:
        """Whether the mark is there; `detected` False means that the voice must be muted, and p-value and
        score are then those of the layer that is not there."""
        carried, swung = self.scores()
        swings = not self._key.has_envelope or swung >= ENVELOPE_SCORE_PER_DB * self._key.envelope_db
        score = carried if swings else swung
        p_value = exp(-(max(score, 0.0) ** 2) / 2)
        return Detection(swings and p_value < DETECTED, p_value, score, self._payload, self._key.id)

    def scores(self) -> tuple[float, float]:
        """Scores of the carrier, and of the envelope layer if the key has one; 0 where nothing is heard."""
        runs = [
            (first, narrow)
            for first, run in self._runs()
            if len(narrow := sound.through_mu_law(_narrow(run))) >= SHORTEST_RUN * _NARROW_HOP
        ]
        if not runs:
            return 0.0, 0.0
        return self._carrier(runs), self._envelope(runs) if self._key.has_envelope else 0.0

    def _carrier(self, runs: list[tuple[int, Floats]]) -> float:
        starts, counters = [], []
        at = 0
        for first, narrow in runs:
            # the last frame would reach beyond the run
            inside = np.arange(len(narrow) // _NARROW_HOP - 1, dtype=np.int64)
            starts.append(at + inside * _NARROW_HOP)
            counters.append(first + inside)
            at += len(narrow)
        whitened = whiten(np.concatenate([narrow for _, narrow in runs]))
        tiles = align.frames(whitened, np.concatenate(starts))[:, DATA]
        chips = carrier.call_chips(self._key, self._payload, self._coded, np.concatenate(counters))
        products = (tiles * np.conj(chips[:, DATA])).real
        energy = float(np.square(np.abs(tiles)).sum())
        return float(products.sum()) / energy**0.5 if energy > 0 else 0.0

    def _envelope(self, runs: list[tuple[int, Floats]]) -> float:
        gap = np.zeros(GAP_HOPS * _NARROW_HOP, np.float32)
        heard = chip_network.soft(np.concatenate([part for _, narrow in runs for part in (narrow, gap)]))
        at = np.zeros(heard.shape[1], np.int64)  # each frame's hop of the call; 0 where there is none
        begin = 0
        for first, narrow in runs:
            hops = len(narrow) // _NARROW_HOP
            at[begin : begin + hops] = first + np.arange(hops)
            begin += hops + GAP_HOPS
        products = energy = 0.0
        cells = Cells(self._key.secret)
        for odd in range(2):
            # cells are centred HALF_CELL_HOPS after they begin, odd bands' later by as much
            begins = at - HALF_CELL_HOPS * (1 + odd)
            inside = (at > 0) & (begins % CELL_HOPS == 0)
            chips = cells.call(self._payload, begins[inside] // CELL_HOPS)[:, odd::2].T
            said = heard[odd::2, inside]
            products += float((said * chips).sum())
            energy += float(np.square(said).sum())
        return products / energy**0.5 if energy > 0 else 0.0

    def _runs(self) -> list[tuple[int, Floats]]:
        """(first hop, sound) of frames that follow each other without a gap."""
        runs: list[tuple[int, Floats]] = []
        first, parts, due = 0, list[Floats](), -1
        for hop, frame in zip(self._hops, self._frames, strict=True):
            if hop != due and parts:
                runs.append((first, np.concatenate(parts)))
                parts = []
            if not parts:
                first = hop
            parts.append(frame)
            due = hop + len(frame) // _HOP
        if parts:
            runs.append((first, np.concatenate(parts)))
        return runs


def _narrow(sound_24k: Floats) -> Floats:
    """24 kHz -> 8 kHz, whole runs at once."""
    spectrum = np.fft.rfft(sound_24k)
    samples = len(sound_24k) * NARROW_HZ // RATE_HZ
    return np.fft.irfft(spectrum[: samples // 2 + 1], samples).astype(np.float32) * (NARROW_HZ / RATE_HZ)
