"""What a recording that is laid on a key's line says: whether its data are ours, and whose.

A score is `sum(chip * tile) / sqrt(sum(tile^2))` with secret chips of +-1: for sound that does not know the
key a weighted sum of fair coins, whose tail Hoeffding's inequality bounds, `P(score > z) <= exp(-z^2 / 2)`,
whatever the sound is. The best of N scores has `p_value = N * exp(-z^2 / 2)` as an upper bound.

Chips of the data are independent of those that a place was found by, so for a score of data alone N counts
only alignments, retimings, laps, rows and every payload that could have been decoded, not the places
searched; this is how a call is named and verified. What is ours, whichever call's, may also be said by what
found the place and the data together, and then N counts the places too.

That bounds what is said of sound that is not ours. In sound that is ours the decoder may still find another
call than the right one, where few of the bits came through: every 256th payload fits the row by chance. So a
call is named by what was decoded only if no other that fits is nearly as likely, and the bits agree with it
so well as with wrong ones they do not, or if somebody who knows other chips confirms it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from math import exp, inf, log, sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from watermark import align, carrier, code, rows
from watermark.align import Aligned
from watermark.carrier import CODED_BITS, DATA, HOPS_HZ, LAPS, LINE_HOPS, ROWS
from watermark.keys import MarkKey
from watermark.rows import Calls
from watermark.whiten import NARROW_HZ, Floats

DETECTED: Final = 1e-6
"""A recording whose p-value is below this is ours."""
FREE_BITS: Final = code.PAYLOAD_BITS - code.KNOWN_BITS
NAMED: Final = 1e-3
"""A payload is named when its data alone has a p-value below this."""
LISTED: Final = 16
"""Payloads that the decoder lists, the first whose row fits is taken; of many calls, those judged."""
AGREEING: Final = (0.82, 0.86)
"""What of the soft bits' sum a decoded payload must keep to be named: the likeliest one, and one that the
decoder lists behind it, of which there are more to fit the row. At any noise a call is then named wrongly
less than once in 500 (`tests/watermark/test_judge.py`); without this, 6 times in 100."""
APART: Final = 0.05
"""By so much of that sum a payload must lie before all others that fit the row."""
STEADY: Final = 5
CUT: Final = 1
"""Alignments of each kind whose data is looked at."""
ALIGNMENTS: Final = STEADY + CUT
TIMED: Final = 6
"""Candidate rows whose timing is corrected."""
DECODED: Final = 2
"""Rows among those that are decoded."""
PILOT_SHARES: Final = (0.5, 0.75)
"""Weights of the pilot's score beside the data's, whose squares add up to 1: the first as most codecs leave
them, the second for those that keep low frequencies better."""
CARRIER: Final = "carrier"
_LN2: Final = log(2.0)
_LN_DETECTED: Final = log(DETECTED)
_LN_NAMED: Final = log(NAMED)


@dataclass(frozen=True, slots=True)
class Detection:
    """What was found. `p_value`: upper bound of the chance that unmarked sound scores so high, all searches
    included. `payload`: the 64 bits, or None. `key_id`: the key that found it. `starts_s`: the recording's
    first marked hop, in seconds of the recording; `call_s`: the same moment in seconds of the call.
    `skew_ppm`: how much slower than the call the recording runs. `layer`: what found it, `carrier`,
    `envelope`, or `both` together. `scores`: the score of each second of the recording alone, about standard
    normal without a mark. `ln_p`: logarithm of the bound, not limited to 0. `confidence`: `1 - p_value`, 0
    when there is no payload."""

    detected: bool
    p_value: float
    score: float = 0.0
    payload: int | None = None
    key_id: str | None = None
    starts_s: float | None = None
    call_s: float | None = None
    skew_ppm: float = 0.0
    scores: tuple[float, ...] = field(default=(), repr=False)
    ln_p: float = field(default=inf, repr=False)
    layer: str | None = None

    @property
    def confidence(self) -> float:
        return 1.0 - self.p_value if self.payload is not None and self.detected else 0.0

    def as_json(self) -> dict[str, Any]:
        return {
            "detected": self.detected,
            "p_value": self.p_value,
            "payload": None if self.payload is None else f"{self.payload:016x}",
            "confidence": self.confidence,
            "score": round(self.score, 3),
            "key": self.key_id,
            "starts_s": self.starts_s,
            "call_s": self.call_s,
            "skew_ppm": round(self.skew_ppm, 1),
            "layer": self.layer,
            "scores": [round(score, 2) for score in self.scores],
        }


NOTHING: Final = Detection(False, 1.0)
Confirms = Callable[[Detection], bool]
"""Whether it is this detection's call, by chips that did not choose it."""


def nobody(_: Detection) -> bool:
    """Confirms nothing."""
    return False


def of_many(found: Detection, tried: float) -> Detection:
    """`found` as the best of so many."""
    ln_p = found.ln_p + log(tried)
    return replace(found, ln_p=ln_p, p_value=exp(min(ln_p, 0.0)), detected=ln_p < _LN_DETECTED)


def clearest(found: Iterable[Detection]) -> Detection:
    """The least likely by chance; of marks that are clear, one that names its call."""
    counted = list(found)
    names = [each for each in counted if each.detected and each.payload is not None]
    return min(names or counted, key=by_p)


def by_p(found: Detection) -> float:
    """What the best of several detections has least of."""
    return found.ln_p


def counted(key: MarkKey, payload: int, places: NDArray[np.int64], lap: int) -> NDArray[np.int64]:
    """The call's hops at these places of the line, on its `lap`-th lap; negative before the call."""
    first = int(places[0] - carrier.entry(key, payload)) % LINE_HOPS + lap * LINE_HOPS
    if first > LINE_HOPS - len(places) and lap == 0:
        first -= LINE_HOPS
    return first + np.arange(len(places), dtype=np.int64)


def by_second(
    products: NDArray[np.float32], energy: NDArray[np.float32], at_s: NDArray[np.float64], seconds: int
) -> tuple[float, ...]:
    second = np.clip(at_s.astype(np.int64), 0, max(0, seconds - 1))
    total = np.bincount(second, products, minlength=seconds)
    scale = np.sqrt(np.bincount(second, energy, minlength=seconds))
    return tuple(float(t / s) if s > 0 else 0.0 for t, s in zip(total, scale, strict=True))


def bound(ln_tried: float, score: float) -> float:
    """Logarithm of an upper bound of the chance that the best of so many tries scores so high."""
    return ln_tried - max(score, 0.0) ** 2 / 2


def _judged(
    found: Aligned,
    data: NDArray[np.complex64],
    key: MarkKey,
    payload: int | None,
    lap: int,
    white: Floats,
    ln_tried: float,
    alignments: int,
    joint: bool = False,
) -> Detection:
    """The detection that these data chips `(H, 52)`, one of `ln_tried`, make at this alignment; `joint`: with
    the pilot's help, whose `ln_tried` counts every alignment that there could be."""
    chips = np.zeros_like(found.tiles)
    chips[:, DATA] = data
    fitted = align.retimed(found, chips)
    tiles = fitted.tiles[:, DATA]
    products = (tiles * np.conj(data)).real.sum(axis=1)
    energy = np.square(np.abs(tiles)).sum(axis=1)
    total = float(energy.sum())
    score = float(products.sum()) / sqrt(total) if total > 0 else 0.0
    ln_tried += log(align.RETIMINGS)
    ln_p = bound(ln_tried + log(alignments), score)
    if joint:
        if ln_p > _LN_NAMED:
            payload = None
        both = max(share * found.pilot + sqrt(1 - share**2) * score for share in PILOT_SHARES)
        with_pilot = bound(ln_tried + found.ln_tried + log(len(PILOT_SHARES)), both)
        ln_p = log(3) + min(ln_p, with_pilot, bound(found.ln_tried, found.pilot))
    call_s = None
    if payload is not None:
        call_s = float(counted(key, payload, found.places, lap)[0]) / HOPS_HZ
    return Detection(
        ln_p < _LN_DETECTED,
        exp(min(ln_p, 0.0)),
        score,
        payload,
        key.id,
        float(found.at_s[0]),
        call_s,
        fitted.skew * 1e6,
        by_second(products, energy, fitted.at_s, -(-len(white) // NARROW_HZ)),
        ln_p,
        CARRIER,
    )


def verified(
    aligned: Iterable[Aligned],
    key: MarkKey,
    calls: Calls,
    white: Floats,
    laps: Sequence[int],
    alignments: int = ALIGNMENTS,
) -> Detection:
    """Which of the calls it is: those whose bits fit best are judged, all of them count as tried, at so many
    alignments as there could have been."""
    best = NOTHING
    tried = log(len(calls.payloads) * len(laps))
    for found in aligned:
        for at, lap in rows.fitting(key, found, calls, laps, LISTED):
            payload = calls.payloads[at]
            counter = counted(key, payload, found.places, lap)
            data = carrier.call_chips(key, payload, calls.coded[at], counter)[:, DATA]
            judged = _judged(found, data, key, payload, lap, white, tried, alignments)
            best = min(best, judged, key=by_p)
        if best.detected:
            break
    return best


@dataclass(slots=True)
class _Guess:
    """Data chips `bare` `(H, 52)` of a row, laid on an alignment; `timed`: that alignment where their bits
    have most energy."""

    found: Aligned
    row: int
    bare: NDArray[np.complex64]
    timed: Aligned
    energy: float

    @classmethod
    def of(cls, found: Aligned, key: MarkKey, row: int) -> _Guess:
        bare = carrier.data_chips(key, row, found.places)
        return cls(found, row, bare, *align.retimed_by_bits(found, bare))


def named(
    aligned: Iterable[Aligned],
    key: MarkKey,
    white: Floats,
    alignments: int = ALIGNMENTS,
    confirms: Confirms = nobody,
) -> Detection:
    """What the likeliest rows say: of the clearest pilot's alignment, or else of all others, so many in
    all. `confirms` is asked about a call of which the bits alone are not enough."""
    best = NOTHING
    others = iter(aligned)
    for some, part, timed, decoded in ((islice(others, 1), 1, 2, 1), (others, rows.PART, TIMED, DECODED)):
        likely = [(energy, found, row) for found in some for row, energy in rows.likely(key, found, part)]
        likely.sort(key=lambda each: each[0], reverse=True)
        guesses = [_Guess.of(found, key, row) for _, found, row in likely[:timed]]
        guesses.sort(key=lambda guess: guess.energy, reverse=True)
        for guess in guesses[:decoded]:
            best = min(best, _decoded(guess, key, white, alignments, confirms), key=by_p)
            if best.payload is not None and best.detected:
                return best
    return best


def _decoded(guess: _Guess, key: MarkKey, white: Floats, alignments: int, confirms: Confirms) -> Detection:
    """The payload that the guessed data chips carry, if they do."""
    bits = carrier.bit_of_tile(guess.found.places)
    products = (guess.timed.tiles[:, DATA] * np.conj(guess.bare)).real
    soft = np.bincount(bits.ravel(), products.ravel(), CODED_BITS).astype(np.float32)
    said: list[Detection] = []
    for known, count, free_bits in ((key.gateway, LISTED, FREE_BITS), (None, 1, code.PAYLOAD_BITS)):
        listed = code.decode(soft, known, count)
        laps = {payload: rows.lap(key, payload, guess.row) for payload in listed}
        fitting = [each for each in listed if laps[each] is not None]
        for payload in fitting or listed[:1]:
            lap = laps[payload]
            data = guess.bare * code.encode(payload)[bits]
            tried = free_bits * _LN2 + log(ROWS if lap is None else LAPS)
            whose = None if lap is None else payload
            judged = _judged(guess.found, data, key, whose, lap or 0, white, tried, alignments, joint=True)
            if judged.payload is not None and not (
                agrees(soft, listed, fitting, payload) or confirms(judged)
            ):
                judged = replace(judged, payload=None, call_s=None)
            said.append(judged)
    best = min(said, key=by_p)
    names = [each for each in said if each.payload is not None]
    if not names:
        return best
    # which payload it is and whether it is ours are asked apart: all of them count as tried
    return replace(min(names, key=by_p), ln_p=best.ln_p, p_value=best.p_value, detected=best.detected)


def agrees(soft: NDArray[np.float32], listed: Sequence[int], fitting: Sequence[int], payload: int) -> bool:
    """Whether soft bits `(128,)` name this one of the payloads that the decoder `listed` for them, of which
    some are `fitting` the row."""
    all_of_them = max(float(np.abs(soft).sum()), 1e-30)
    kept = float(code.encode(payload) @ soft) / all_of_them
    others = [float(code.encode(each) @ soft) / all_of_them for each in fitting if each != payload]
    return kept >= AGREEING[0 if payload == listed[0] else 1] and kept - max(others, default=0.0) >= APART
