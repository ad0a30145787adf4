"""Whether a recording carries our mark, and whose call it is.

A score is `sum(chip * tile) / sqrt(sum(tile^2))` with secret chips of +-1: for sound that does not know the
key a weighted sum of fair coins, whose tail Hoeffding's inequality bounds, `P(score > z) <= exp(-z^2 / 2)`,
whatever the sound is. The best of N scores has `p_value = N * exp(-z^2 / 2)` as an upper bound.

The pilot finds where on the key's line a recording may lie. Data chips are independent of it, so for a
score of data alone N counts only alignments, retimings, laps, rows, speeds, keys, and every payload that
could have been decoded, not the places searched; this is how a call is named and verified, since the pilot
is common to all calls of a key. Blind, "is it ours?" may also be answered by pilot and data together, and
then N counts the places too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from math import exp, inf, log, sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from watermark import align, carrier, code, rows, sync
from watermark.align import Aligned
from watermark.carrier import CODED_BITS, DATA, HOPS_HZ, LAPS, LINE_HOPS, ROWS
from watermark.errors import SoundError
from watermark.keys import KeyRing, MarkKey
from watermark.rows import Calls
from watermark.sound import Recording
from watermark.sync import LINE, Place, Search
from watermark.whiten import NARROW_HZ, Floats, narrow, straight, whiten

CHANNELS: Final = 4
DETECTED: Final = 1e-6
"""A recording whose p-value is below this is ours."""
FREE_BITS: Final = code.PAYLOAD_BITS - code.KNOWN_BITS
NAMED: Final = 1e-3
"""A payload is named when its data alone has a p-value below this."""
LISTED: Final = 16
"""Payloads that the decoder lists, the first whose row fits is taken; of many calls, those judged."""
STEADY: Final = 5
CUT: Final = 1
"""Alignments of each kind whose data is looked at."""
TIMED: Final = 6
"""Candidate rows whose timing is corrected."""
DECODED: Final = 2
"""Rows among those that are decoded."""
BENDS: Final = (0.7, 1.4, 2.1, 2.8)
"""Phases of band filters that are undone, in radians at 500 Hz against 1 kHz: `whiten.straight`."""
BENT: Final = 2
"""Places at which `BENDS` are tried."""
CLEAR: Final = 0.05
"""They are tried when the pilot's own p-value is below this."""
PILOT_SHARES: Final = (0.5, 0.75)
"""Weights of the pilot's score beside the data's, whose squares add up to 1: the first as most codecs leave
them, the second for those that keep low frequencies better."""
SPEED_STEP: Final = 300e-6
SPEEDS: Final = np.arange(-34, 35) * SPEED_STEP
"""+-1 %, in steps that the search bridges."""
_LN2: Final = log(2.0)
_LN_DETECTED: Final = log(DETECTED)
_LN_NAMED: Final = log(NAMED)
_LN_CLEAR: Final = log(CLEAR)


@dataclass(frozen=True, slots=True)
class Detection:
    """What was found.

    `p_value`: upper bound of the chance that unmarked sound scores so high, all searches included.
    `payload`: the 64 bits, or None. `key_id`: the key that found it. `starts_s`: the recording's first marked
    hop, in seconds of the recording; `call_s`: the same moment in seconds of the call. `skew_ppm`: how much
    slower than the call the recording runs. `scores`: the score of each second of the recording alone, about
    standard normal without a mark. `ln_p`: logarithm of the bound, not limited to 0. `confidence`:
    `1 - p_value`, 0 when there is no payload.
    """

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
            "scores": [round(score, 2) for score in self.scores],
        }


NOTHING: Final = Detection(False, 1.0)


def detect(
    pcm: NDArray[np.floating],
    rate_hz: int,
    keys: KeyRing | Sequence[MarkKey],
    *,
    payloads: Iterable[int] = (),
    call_s: tuple[float, float] | None = None,
    speeds: bool = False,
) -> Detection:
    """Looks for the mark in mono sound `(n,)` at any rate from 8 kHz, 1 s to 10 min long.

    Without `payloads` blind: is it ours, and which call? With them it verifies: is it one of these calls, and
    `call_s` may bound where in the call the recording begins, which makes it cheaper and surer. `speeds` also
    looks at sound played up to 1 % too fast or too slow when nothing was found otherwise (some 10 s of CPU
    for 10 s). Raises `SoundError` for what cannot be examined.
    """
    held = keys.keys if isinstance(keys, KeyRing) else tuple(keys)
    return detect_narrow(narrow(pcm, rate_hz), held, payloads=payloads, call_s=call_s, speeds=speeds)


def detect_recording(
    recording: Recording, keys: KeyRing, *, payloads: Iterable[int] = (), speeds: bool = False
) -> Detection:
    """The clearest of its channels: mixing them would mix two calls and weaken both marks.

    Raises `SoundError`, also for more channels than `CHANNELS`.
    """
    count = len(recording.channels)
    if count > CHANNELS:
        raise SoundError(f"{count} channels: at most {CHANNELS} are examined, split it first")
    wanted = tuple(payloads)
    apart = [
        channel
        for at, channel in enumerate(recording.channels)
        if not any(np.array_equal(channel, other) for other in recording.channels[:at])
    ]  # one voice on both sides is searched once
    found = [detect(channel, recording.rate_hz, keys, payloads=wanted, speeds=speeds) for channel in apart]
    return min(found, key=lambda each: each.ln_p)


def detect_narrow(
    sound: Floats,
    keys: Sequence[MarkKey],
    *,
    payloads: Iterable[int] = (),
    call_s: tuple[float, float] | None = None,
    speeds: bool = False,
) -> Detection:
    """`detect` for sound that is at 8 kHz already."""
    wanted = tuple(payloads)
    white = whiten(sound)
    if not white.any() or not keys:
        return NOTHING
    best = NOTHING
    for look in (_with_key, _at_speeds) if speeds else (_with_key,):
        for key in keys:
            found = look(white, key, wanted, call_s)
            best = min(best, _of_many(found, len(keys)), key=_p)
            if best.detected:
                return best
    return replace(best, payload=None, call_s=None)


def _of_many(found: Detection, tried: int) -> Detection:
    """`found` as the best of so many."""
    ln_p = found.ln_p + log(tried)
    return replace(found, ln_p=ln_p, p_value=exp(min(ln_p, 0.0)), detected=ln_p < _LN_DETECTED)


def _with_key(
    white: Floats, key: MarkKey, payloads: tuple[int, ...], call_s: tuple[float, float] | None
) -> Detection:
    if not payloads:
        return _straightened(white, key, Search(white, key), lambda aligned: _blind(aligned, key, white))
    laps = range(LAPS)
    searches: list[tuple[tuple[int, ...], Search]] = []
    if call_s is None:
        searches.append((payloads, Search(white, key)))
    else:
        laps = range(max(0, int(call_s[0] * HOPS_HZ)) // LINE_HOPS, int(call_s[1] * HOPS_HZ) // LINE_HOPS + 1)
        searches += [((each,), Search(white, key, *_window(key, each, call_s))) for each in payloads]
    found = []
    for some, search in searches:
        judge = partial(_verify, key=key, calls=Calls.of(key, some), white=white, laps=laps)
        found.append(_straightened(white, key, search, judge))
    return _of_many(min(found, key=_p), len(searches))


def _straightened(
    white: Floats, key: MarkKey, search: Search, judge: Callable[[Iterable[Aligned]], Detection]
) -> Detection:
    """What `judge` finds in the recording as it is; or, where the pilot is clear and it finds no payload,
    with the phase of some band filters undone. Those are charged so that all of them together add a
    twentieth to what false alarms there are."""
    aligned = _steady(white, key, search.steady)
    found = judge(chain(aligned, _cut(white, key, search)))
    clear = min((_bound(each.ln_tried, each.pilot) for each in aligned), default=0.0) < _LN_CLEAR
    if not clear or (found.detected and found.payload is not None):
        return found
    for bend in BENDS:
        again = judge(_steady(straight(white, bend), key, search.steady[:BENT]))
        again = _of_many(again, round(len(BENDS) / CLEAR))
        if again.detected and again.payload is not None:
            return again
    return found


def _p(found: Detection) -> float:
    return found.ln_p


def _window(key: MarkKey, payload: int, call_s: tuple[float, float]) -> tuple[int, int]:
    """First lag and number of lags at which a recording may begin."""
    lags = max(1, round((call_s[1] - call_s[0]) * sync.BASE_HZ))
    first = carrier.entry(key, payload) * sync.HOP + round(call_s[0] * sync.BASE_HZ)
    return first % LINE, min(lags, LINE)


def _steady(white: Floats, key: MarkKey, places: list[Place]) -> list[Aligned]:
    """The recording laid on the likeliest places, the best pilots first."""
    fits = [found for place in places if (found := align.fit(white, key, place))]
    fits.sort(key=lambda found: found.score, reverse=True)
    return [align.steady(white, key, found) for found in fits[:STEADY]]


def _cut(white: Floats, key: MarkKey, search: Search) -> Iterator[Aligned]:
    """The same by paths that may jump; nothing is sought before the first is asked for."""
    paths = [path for place in search.cut if (path := align.cut(white, key, place))]
    paths.sort(key=lambda found: found.pilot, reverse=True)
    yield from paths[:CUT]


def _at_speeds(
    white: Floats, key: MarkKey, payloads: tuple[int, ...], call_s: tuple[float, float] | None
) -> Detection:
    """At the one other speed at which the loudest 5.12 s of the recording lie best on the line."""
    import soxr  # not in the hall, whose clock is its own

    part = _loudest(white, 8 * sync.PIECE * align.LAG)
    best_speed, best_score = 0.0, -1.0
    for speed in SPEEDS[SPEEDS != 0.0].tolist():
        changed = np.asarray(
            soxr.resample(part, NARROW_HZ, NARROW_HZ * (1 + speed), quality="MQ"), np.float32
        )
        score = sync.best_score(changed, key)
        if score > best_score:
            best_speed, best_score = speed, score
    changed = np.asarray(soxr.resample(white, NARROW_HZ, NARROW_HZ * (1 + best_speed)), np.float32)
    found = _of_many(_with_key(changed, key, payloads, call_s), len(SPEEDS))
    return replace(found, skew_ppm=found.skew_ppm - best_speed * 1e6)


def _loudest(white: Floats, samples: int) -> Floats:
    """The `samples` of most energy, in steps of half a second."""
    step = NARROW_HZ // 2
    begins = range(0, max(1, len(white) - samples + 1), step)
    energy = [float(np.square(white[begin : begin + samples]).sum()) for begin in begins]
    begin = begins[int(np.argmax(energy))]
    return white[begin : begin + samples]


def _counter(key: MarkKey, payload: int, places: NDArray[np.int64], lap: int) -> NDArray[np.int64]:
    """The call's hops at these places of the line, on its `lap`-th lap; negative before the call."""
    first = int(places[0] - carrier.entry(key, payload)) % LINE_HOPS + lap * LINE_HOPS
    if first > LINE_HOPS - len(places) and lap == 0:
        first -= LINE_HOPS
    return first + np.arange(len(places), dtype=np.int64)


def _scores(
    products: NDArray[np.float32], energy: NDArray[np.float32], at_s: NDArray[np.float64], seconds: int
) -> tuple[float, ...]:
    second = np.clip(at_s.astype(np.int64), 0, max(0, seconds - 1))
    total = np.bincount(second, products, minlength=seconds)
    scale = np.sqrt(np.bincount(second, energy, minlength=seconds))
    return tuple(float(t / s) if s > 0 else 0.0 for t, s in zip(total, scale, strict=True))


def _bound(ln_tried: float, score: float) -> float:
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
    ln_p = _bound(ln_tried + log(STEADY + CUT), score)
    if joint:
        if ln_p > _LN_NAMED:
            payload = None
        both = max(share * found.pilot + sqrt(1 - share**2) * score for share in PILOT_SHARES)
        with_pilot = _bound(ln_tried + found.ln_tried + log(len(PILOT_SHARES)), both)
        ln_p = log(3) + min(ln_p, with_pilot, _bound(found.ln_tried, found.pilot))
    call_s = None
    if payload is not None:
        call_s = float(_counter(key, payload, found.places, lap)[0]) / HOPS_HZ
    return Detection(
        ln_p < _LN_DETECTED,
        exp(min(ln_p, 0.0)),
        score,
        payload,
        key.id,
        float(found.at_s[0]),
        call_s,
        fitted.skew * 1e6,
        _scores(products, energy, fitted.at_s, -(-len(white) // NARROW_HZ)),
        ln_p,
    )


def _verify(
    aligned: Iterable[Aligned], key: MarkKey, calls: Calls, white: Floats, laps: Sequence[int]
) -> Detection:
    """Which of the calls it is: those whose bits fit best are judged, all of them count as tried."""
    best = NOTHING
    tried = log(len(calls.payloads) * len(laps))
    for found in aligned:
        for at, lap in rows.fitting(key, found, calls, laps, LISTED):
            payload = calls.payloads[at]
            counter = _counter(key, payload, found.places, lap)
            data = carrier.call_chips(key, payload, calls.coded[at], counter)[:, DATA]
            judged = _judged(found, data, key, payload, lap, white, tried)
            best = min(best, judged, key=_p)
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


def _blind(aligned: Iterable[Aligned], key: MarkKey, white: Floats) -> Detection:
    """What the likeliest rows say: of the clearest pilot's alignment, or else of all others."""
    best = NOTHING
    others = iter(aligned)
    for some, part, timed, decoded in ((islice(others, 1), 1, 2, 1), (others, rows.PART, TIMED, DECODED)):
        likely = [(energy, found, row) for found in some for row, energy in rows.likely(key, found, part)]
        likely.sort(key=lambda each: each[0], reverse=True)
        guesses = [_Guess.of(found, key, row) for _, found, row in likely[:timed]]
        guesses.sort(key=lambda guess: guess.energy, reverse=True)
        for guess in guesses[:decoded]:
            best = min(best, _decoded(guess, key, white), key=_p)
            if best.payload is not None and best.detected:
                return best
    return best


def _decoded(guess: _Guess, key: MarkKey, white: Floats) -> Detection:
    """The payload that the guessed data chips carry, if they do."""
    bits = carrier.bit_of_tile(guess.found.places)
    products = (guess.timed.tiles[:, DATA] * np.conj(guess.bare)).real
    soft = np.bincount(bits.ravel(), products.ravel(), CODED_BITS).astype(np.float32)
    best = NOTHING
    for known, count, free_bits in ((key.gateway, LISTED, FREE_BITS), (None, 1, code.PAYLOAD_BITS)):
        listed = code.decode(soft, known, count)
        laps = {payload: rows.lap(key, payload, guess.row) for payload in listed}
        payload = next((each for each in listed if laps[each] is not None), listed[0])
        lap = laps[payload]
        data = guess.bare * code.encode(payload)[bits]
        tried = free_bits * _LN2 + log(ROWS if lap is None else LAPS)
        named = None if lap is None else payload
        judged = _judged(guess.found, data, key, named, lap or 0, white, tried, joint=True)
        best = min(best, judged, key=_p)
    return best
