"""Finding where a recording lies on a key's line by the envelope layer's even bands, and which call it is of
by its odd ones.

At a place of the line and a tempo, the chips of the cells that the recording would hold are correlated with
what the network thinks of them: `z = sum(c u) / sqrt(sum(u^2))`. Whatever the network thinks, chips that it
cannot know are fair coins, so by Hoeffding `P(z > t) <= exp(-t^2 / 2)`, and of the best of N places and
tempi N times that. All places of the line (or of the part that is asked for) and all tempi count, whether
or not a place is a possible one.

Cells lie 6 frames apart. So the recording's frames at one of 6 phases are correlated with the line at one
value a cell, and six such correlations, by FFT, are all places to 10 ms.

Near tempi, which clocks and networks make, have most of the probability that is shared out among tries; far
ones, of sound that somebody played faster or slower, have to be clearer by some 3 %.

The search knows the line's chips only. The call's are independent of them: at a place that the search, the
registry or who asks has found, `call_scores` is one try for each call and place that is looked at, however
many places there were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import log, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watermark.envelope.cells import (
    BANDS,
    CALL_BANDS,
    CELL_HOPS,
    CELLS_A_BLOCK,
    HALF_BANDS,
    HALF_CELL_HOPS,
    LINE_BANDS,
    LINE_BLOCKS,
    LINE_CELLS,
    Bytes,
    Cells,
    Payloads,
)

Floats = NDArray[np.float32]
Complexes = NDArray[np.complex64]
Indices = NDArray[np.int64]

LINE_HOPS: Final = LINE_CELLS * CELL_HOPS
STEP: Final = 1e-3
"""Between tempi: over 10 s half a step is half a frame."""
NEAR: Final = 6
FAR: Final = 34
"""Steps to either side of the tempo 0 that are tried: .6 % and 3.4 %."""
NEAR_SHARE: Final = 0.8
"""The near tempi's share of the probability of a false alarm."""
WINDOW: Final = 3_000
"""Frames of the recording that are sought on the line; a longer recording's clearest 30 s are, and the rest
is looked at where they are found."""
KEPT: Final = 24
"""Places of one tempo that are kept, at most."""
BATCH: Final = 4
"""Tempi that are correlated at once."""
APART: Final = CELL_HOPS
"""Places that are closer than this, in hops at the recording's middle, are one."""
FINER: Final = 8
"""A longer recording's tempo is told in steps that are so much finer, from where its clearest part was
found."""
STRAY: Final = 3
"""Hops to either side by which that part may have been misplaced."""
CALLS: Final = 2_048
"""Calls whose chips are drawn at once."""
_SIGNS: Final = 1 - 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32)
"""The chips of each byte."""


@dataclass(frozen=True, slots=True)
class LinePlace:
    """A recording's first frame is at `hop` of the line's lap `lap`; it is faster than the call by the
    share `tempo`.

    `z`: how clear its chips are there. `ln_p`: the logarithm of the bound on the probability that anything
    as clear is found somewhere, anyhow, in sound that does not depend on the key; all tries are counted in
    it.
    """

    hop: int
    tempo: float
    lap: int
    z: float
    ln_p: float

    def line_hop(self, frame: float) -> float:
        """Where on the line the recording's frame `frame` is."""
        return self.hop + frame * (1 + self.tempo)


@dataclass(frozen=True, slots=True)
class Tempi:
    """Tempi that are tried: `near` and `far` steps of `step` to either side; 0 is always among the near
    ones."""

    near: int = NEAR
    far: int = FAR
    step: float = STEP

    def all(self) -> list[int]:
        """Every tempo in steps, the nearest to 0 first."""
        return sorted(range(-self.far, self.far + 1), key=abs)

    def ln_tries(self, steps: int) -> float:
        """The logarithm of how many tries a tempo counts for, so that the bounds of all add up to one."""
        near = 2 * min(self.near, self.far) + 1
        far = 2 * self.far + 1 - near
        share = NEAR_SHARE if far else 1.0
        return log(near / share) if abs(steps) <= self.near else log(far / (1 - share))


ANY: Final = Tempi()
STEADY: Final = Tempi(NEAR, NEAR)
"""No far tempi: a fifth of the cost."""


def search(
    soft: Floats,
    cells: Cells,
    first: int = 0,
    hops: int = LINE_HOPS,
    tempi: Tempi = ANY,
    laps: Sequence[int] = (0,),
    count: int = 20,
) -> list[LinePlace]:
    """The likeliest places of a recording on the line, least `ln_p` first, at most `count`.

    `soft`: what `chip_network.soft` gives, `(8, frames)`. `first`, `hops`: where on the line its first
    frame may be, in hops of 10 ms; without them, anywhere.
    """
    frames = soft.shape[1]
    if not soft[LINE_BANDS].any():
        return []
    begin, end = _clearest(soft)
    slack = math.ceil(
        begin * tempi.far * tempi.step
    )  # where the window may be, of a recording that begins there
    wanted = np.arange(
        (first + begin - slack) // CELL_HOPS, (first + begin + hops + slack - 1) // CELL_HOPS + 1
    )
    wanted = np.unique(wanted[:LINE_CELLS] % LINE_CELLS)
    ln_places = log(len(laps) * len(wanted) * CELL_HOPS)
    found = [
        place for lap in laps for place in _found(soft[:, begin:end], cells, lap, wanted, tempi, ln_places)
    ]
    best = _distinct(found, end - begin, count)
    if end - begin == frames:
        return best
    finer = Tempi(tempi.near, tempi.far, tempi.step / FINER)
    return _distinct([_whole(soft, cells, place, begin, ln_places, finer) for place in best], frames, count)


def score(soft: Floats, cells: Cells, place: float, tempo: float = 0.0, lap: int = 0) -> float:
    """z of the line's half of a recording whose first frame is at hop `place` of the line, and which is
    faster by `tempo`; 0 where no chip is heard."""
    line = _passed(soft, place, tempo)
    chips = cells.lap(lap)[line % LINE_CELLS]
    heard = heard_cells(soft, line * CELL_HOPS - place, tempo)[LINE_BANDS]
    energy = float(np.square(heard).sum())
    return float((heard * chips.T).sum()) / sqrt(energy) if energy > 0.0 else 0.0


def call_scores(soft: Floats, cells: Cells, payloads: Payloads, place: LinePlace) -> Floats:
    """z of the call's half at this place, for each of these calls: float32 `(P,)`; 0 where no chip is
    heard."""
    line = _passed(soft, place.hop, place.tempo)
    blocks = np.arange(line[0] // CELLS_A_BLOCK, line[-1] // CELLS_A_BLOCK + 1)
    whole = np.arange(blocks[0] * CELLS_A_BLOCK, (blocks[-1] + 1) * CELLS_A_BLOCK)
    heard = heard_cells(soft, whole.astype(np.float64) * CELL_HOPS - place.hop, place.tempo)[CALL_BANDS]
    energy = float(np.square(heard).sum())
    scores = np.zeros(len(payloads), np.float32)
    if energy == 0.0:
        return scores
    bits = heard.T.reshape(-1, 8) / sqrt(energy)
    there = np.flatnonzero(bits.any(axis=1))
    said = np.ascontiguousarray(bits[there] @ _SIGNS.T, np.float32)  # of each byte, for all that it may be
    counted = place.lap * LINE_BLOCKS + blocks % LINE_BLOCKS
    at = np.arange(len(there)) * 256
    for first in range(0, len(payloads), CALLS):
        drawn: Bytes = cells.drawn(payloads[first : first + CALLS], counted)[:, there]
        scores[first : first + CALLS] = np.take(said, drawn + at).sum(axis=1)
    return scores


def _passed(soft: Floats, place: float, tempo: float) -> Indices:
    """The cells of the line that a recording at this place touches; those beyond the line's end go on."""
    end = place + soft.shape[1] * (1 + tempo)
    return np.arange(int(place // CELL_HOPS), int(end // CELL_HOPS) + 2)


def heard_cells(soft: Floats, begins: NDArray[np.floating], tempo: float) -> Floats:
    """What was heard of the cells that begin `begins` hops after the recording did: `(8, cells)`, 0 beyond
    its ends."""
    frames = soft.shape[1]
    out = np.zeros((BANDS, len(begins)), np.float32)
    for odd in range(2):
        at = np.rint((begins + HALF_CELL_HOPS * (1 + odd)) / (1 + tempo)).astype(np.int64)
        inside = (at >= 0) & (at < frames)
        out[odd::2, inside] = soft[odd::2, at[inside]]
    return out


def _clearest(soft: Floats) -> tuple[int, int]:
    """The window of the recording of which the network says most: its first frame, and the one behind its
    last."""
    frames = soft.shape[1]
    if frames <= WINDOW:
        return 0, frames
    said = np.concatenate(([0.0], np.cumsum(np.square(soft).sum(axis=0, dtype=np.float64))))
    begin = int((said[WINDOW:] - said[:-WINDOW]).argmax())
    return begin, begin + WINDOW


class LineSpectra:
    """A lap's chips as spectra of chunks that overlap by a quarter, `(size // 2 + 1, chunks, 4)`: 1.5 MB."""

    def __init__(self, chips: NDArray[np.int8], size: int) -> None:
        self.size, self.stride = size, size * 3 // 4
        chunks = -(-LINE_CELLS // self.stride)
        whole = np.take(chips, np.arange(chunks * self.stride + size), axis=0, mode="wrap").astype(np.float32)
        cut = np.lib.stride_tricks.sliding_window_view(whole, size, axis=0)[:: self.stride][:chunks]
        spectra = np.fft.rfft(cut, axis=2)
        self.spectra: Complexes = np.ascontiguousarray(spectra.transpose(2, 0, 1), np.complex64)


@lru_cache(maxsize=8)
def _line(chips: bytes, size: int) -> LineSpectra:
    return LineSpectra(np.frombuffer(chips, np.int8).reshape(LINE_CELLS, HALF_BANDS), size)


def _found(
    soft: Floats, cells: Cells, lap: int, wanted: Indices, tempi: Tempi, ln_places: float
) -> list[LinePlace]:
    """The places on these cells of the line, which rise, that are as clear as some `KEPT` of each tempo are
    by chance; a hump is one place for each of the hops that it takes."""
    longest = soft.shape[1] * (1 + tempi.far * tempi.step) / CELL_HOPS + 2
    size = max(256, 1 << math.ceil(log(4 * longest, 2)))
    line = _line(cells.lap(lap).tobytes(), size)
    chunks = np.unique(wanted // line.stride)
    spectra = line.spectra[:, chunks]
    at = (chunks[:, None] * line.stride + np.arange(line.stride)).ravel()
    missing = ~np.isin(at, wanted, assume_unique=True)
    bar = sqrt(2 * max(0.0, ln_places - log(10 * KEPT)))
    every = tempi.all()
    found: list[LinePlace] = []
    for group in (every[begin : begin + BATCH] for begin in range(0, len(every), BATCH)):
        heard = np.concatenate([_phases(soft, steps * tempi.step, size // 4) for steps in group])
        energy = np.sqrt(np.square(heard).sum(axis=(1, 2)))
        heard /= np.maximum(energy, 1e-20)[:, None, None]
        theirs = np.conj(np.fft.rfft(heard, size, axis=2)).transpose(2, 1, 0)  # (bins, 4, phases)
        alike = (spectra @ np.ascontiguousarray(theirs)).transpose(2, 1, 0)  # (phases, chunks, bins)
        z = np.fft.irfft(alike, size, axis=2)[:, :, : line.stride].reshape(len(heard), -1)
        z[:, missing] = 0.0
        for row, column in zip(*np.nonzero(z > bar), strict=True):
            steps, phase, clear = group[row // CELL_HOPS], int(row) % CELL_HOPS, float(z[row, column])
            ln_p = min(0.0, ln_places + tempi.ln_tries(steps) - clear * clear / 2)
            hop = int(at[column]) * CELL_HOPS + phase
            found.append(LinePlace(hop % LINE_HOPS, steps * tempi.step, lap, clear, ln_p))
    return found


def _phases(soft: Floats, tempo: float, many: int) -> Floats:
    """What was heard of `many` cells if the recording begins 0 to 5 hops behind a cell: `(6, 4, many)`."""
    begins = CELL_HOPS * np.arange(many, dtype=np.float64)
    return np.stack([heard_cells(soft, begins - phase, tempo)[LINE_BANDS] for phase in range(CELL_HOPS)])


def _whole(
    soft: Floats, cells: Cells, place: LinePlace, begin: int, ln_places: float, tempi: Tempi
) -> LinePlace:
    """The place of a whole recording whose window from `begin` on is at `place`, where it is clearest."""
    coarse = round(place.tempo / tempi.step)
    middle = place.line_hop(WINDOW / 2)
    best = (0.0, place.hop, coarse)
    for steps in range(coarse - FINER, coarse + FINER + 1):
        hop = round(middle - (begin + WINDOW / 2) * (1 + steps * tempi.step))
        for at in range(hop - STRAY, hop + STRAY + 1):
            best = max(best, (score(soft, cells, at, steps * tempi.step, place.lap), at, steps))
    clear, hop, steps = best
    spread = 2 * STRAY + 1  # of hops that the whole recording may begin at, for each that the window may
    tries = ln_places + log(spread * (2 * FINER + 1)) + tempi.ln_tries(coarse // FINER)
    return LinePlace(
        hop % LINE_HOPS, steps * tempi.step, place.lap, clear, min(0.0, tries - clear * clear / 2)
    )


def _distinct(found: list[LinePlace], frames: int, count: int) -> list[LinePlace]:
    """The best of these places, of those that are nearly the same at the recording's middle the best one."""
    best: list[LinePlace] = []
    for place in sorted(found, key=lambda each: (each.ln_p, -each.z)):
        middle = place.line_hop(frames / 2)
        beside = [each.line_hop(frames / 2) for each in best if each.lap == place.lap]
        if all(APART <= (middle - other) % LINE_HOPS <= LINE_HOPS - APART for other in beside):
            best.append(place)
            if len(best) == count:
                break
    return best
