"""What the envelope says of calls at places of its line, and the types that a search for a recording's place
hands about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, exp, inf, log, sqrt
from typing import Final

import numpy as np

from watermark.carrier import HOPS_HZ
from watermark.drift import Start
from watermark.envelope import chip_network, search
from watermark.envelope.cells import CELL_HOPS, Cells
from watermark.envelope.search import LINE_HOPS, LinePlace
from watermark.judge import DETECTED, LISTED, NAMED, NOTHING, Detection, bound, by_p
from watermark.keys import MarkKey
from watermark.whiten import NARROW_HZ, Floats, whiten

ENVELOPE: Final = "envelope"
GUESSED: Final = 3
"""Calls, of those that fit best along a pilot's course, whose own courses are followed there; and those of
which the envelope says most."""
STEADY: Final = 0.004
"""A tempo beyond this may have been made by playing the sound faster, or with its pitch kept: both are
tried."""
_LN_DETECTED: Final = log(DETECTED)
_LN_NAMED: Final = log(NAMED)


@dataclass(frozen=True, eq=False)
class Heard:
    """A recording at 8 kHz, and as either layer hears it."""

    sound: Floats
    white: Floats

    @cached_property
    def soft(self) -> Floats:
        """What the envelope's network says of each band and frame, `(8, frames)`. Raises `WeightsError`."""
        said: Floats = chip_network.soft(self.sound)
        return said

    def read(self, tempo: float) -> list[tuple[Floats, float]]:
        """The whitened sound, and what remains of a tempo, for each way in which the tempo may have come
        about."""
        if abs(tempo) <= STEADY:
            return [(self.white, tempo)]
        import soxr  # not in the hall, whose clock is its own

        even = soxr.resample(self.sound, NARROW_HZ, NARROW_HZ * (1 + tempo), quality="HQ")
        return [(self.white, tempo), (whiten(np.asarray(even, np.float32)), 0.0)]


@dataclass(frozen=True, slots=True, eq=False)
class Whereabout:
    """A recording, whitened, may begin at this hop of its call, or of the carrier's line. `z` of the envelope
    there, one of `ln_tried` places and tempi; of a call, of both halves, and `ln_call` is the bound of the
    call's half alone."""

    white: Floats
    start: Start
    z: float = 0.0
    ln_tried: float = inf
    ln_call: float = inf


@dataclass(frozen=True, slots=True)
class CallGuess:
    """What the envelope says of one call at one place: the recording begins at `hop` of that call. `z` of
    both halves, one of `ln_tried` places, tempi and calls; `ln_call`, the bound of the call's half alone."""

    payload: int
    place: LinePlace
    hop: float
    z: float
    ln_tried: float
    ln_call: float

    def heard(self, heard: Heard) -> list[tuple[int, Whereabout]]:
        """The call, and where the carrier is looked for: there, for each way in which its tempo may have come
        about."""
        return [
            (self.payload, Whereabout(white, Start(self.hop, rest), self.z, self.ln_tried, self.ln_call))
            for white, rest in heard.read(self.place.tempo)
        ]


def ln_tries_at(heard: Heard, place: LinePlace, hops: int, laps: int) -> float:
    """Logarithm of the number of places and tempi, of which there are more at most: `place.ln_p` is cut at
    0."""
    tempi = search.ANY
    frames = heard.soft.shape[1]
    around = hops + 2 * ceil(frames * tempi.far * tempi.step) + 2 * CELL_HOPS
    tried = log(laps * min(around, LINE_HOPS)) + tempi.ln_tries(round(place.tempo / tempi.step))
    return max(tried, place.ln_p + place.z**2 / 2)


def calls_at(
    heard: Heard, cells: Cells, payloads: Sequence[int], places: Sequence[LinePlace], ln_tried: list[float]
) -> list[CallGuess]:
    """What the envelope says of these calls at these places, the clearest first: of all, or of very many of
    those of which it says most at each place. `ln_tried`: the places and tempi of each place."""
    calls = np.array(payloads, np.uint64)
    ln_own = log(len(calls) * len(places))
    told: list[CallGuess] = []
    for place, tried in zip(places, ln_tried, strict=True):
        scores = search.call_scores(heard.soft, cells, calls, place)
        most = np.argsort(scores)[::-1][: GUESSED if len(calls) > LISTED else None]
        middle = heard.soft.shape[1] / 2
        for which in most.tolist():
            hop = place.line_hop(middle) - cells.entry(payloads[which]) * CELL_HOPS
            begins = hop % LINE_HOPS + place.lap * LINE_HOPS - (place.line_hop(middle) - place.hop)
            own = float(scores[which])
            both = (place.z + own) / sqrt(2)
            told.append(
                CallGuess(payloads[which], place, begins, both, tried + log(len(calls)), bound(ln_own, own))
            )
    return sorted(told, key=lambda each: each.ln_tried - each.z * abs(each.z) / 2)


def by_cells(key: MarkKey, told: Iterable[CallGuess]) -> Detection:
    """The best of what the envelope says of calls: by the call's half, alone or, where that is below `NAMED`,
    with the line's."""
    best = NOTHING
    for each in told:
        named = each.ln_call < _LN_NAMED
        both = bound(each.ln_tried, each.z)
        ln_p = log(2) + (min(each.ln_call, both) if named else each.ln_call)
        found = Detection(
            ln_p < _LN_DETECTED,
            exp(min(ln_p, 0.0)),
            each.z,
            each.payload if named else None,
            key.id,
            0.0,
            each.hop / HOPS_HZ if named else None,
            -each.place.tempo * 1e6,
            ln_p=ln_p,
            layer=ENVELOPE,
        )
        best = min(best, found, key=by_p)
    return best
