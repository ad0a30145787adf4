"""Where a recording lies by the envelope layer or by who asks, and what both layers say there.

The envelope layer's line is sought over the whole line and all tempi, which costs little. At its best places,
or at the one that the caller knows, the envelope's other half is asked for each call that it may be
(`search.call_scores`), and, where that does not say it, the carrier is followed through whatever its time
does (`drift`). The clearest of what is then known counts:

* the **line's half** of the envelope alone, with all places and tempi tried, says that the recording is ours,
  not whose: calls that pass the same place of the line have the same chips there;
* the **call's half** alone, tried at so many places for so many calls, says whose it is, and so does the
  **carrier** alone. The places do not count that the line was sought at, for its chips are independent of the
  call's half's and of the data's;
* **together**, where the call's half or the carrier alone says whose it is with p < .001: both halves of the
  envelope, `(z_line + z_call) / sqrt(2)`, and that with the carrier, `(z_envelope + z_carrier) / sqrt(2)`,
  with everything counted that any of them was tried at. For each place, tempo, call and half of the data this
  is one weighted sum of independent fair coins, so Hoeffding's inequality holds for it.

Of very many calls the envelope guesses a few, and the carrier is asked for these: its chips have not chosen
them, so alone it has been tried no more often than that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from math import ceil, exp, inf, log, sqrt
from typing import Final

import numpy as np

from watermark import carrier, code, drift, rows
from watermark.align import Aligned
from watermark.call_guesses import (
    ENVELOPE,
    GUESSED,
    CallGuess,
    Heard,
    Whereabout,
    by_cells,
    calls_at,
    ln_tries_at,
)
from watermark.carrier import HOPS_HZ, LAPS
from watermark.drift import Start
from watermark.envelope import search
from watermark.envelope.cells import CELL_HOPS, Cells
from watermark.envelope.search import LINE_HOPS, LinePlace
from watermark.judge import (
    CARRIER,
    DETECTED,
    LISTED,
    NAMED,
    NOTHING,
    Detection,
    bound,
    by_p,
    by_second,
    clearest,
    named,
    of_many,
    verified,
)
from watermark.keys import MarkKey
from watermark.rows import Calls
from watermark.whiten import NARROW_HZ

BOTH: Final = "both"
LOOKS: Final = 2
"""The envelope's, and the carrier's at the envelope's places."""
PLACES: Final = 6
"""The envelope's places at which the carrier's pilot is followed, if the best is not clear."""
FOLLOWED: Final = 2
"""Those with the likeliest pilots at which data are judged."""
AS_CLEAR: Final = 3.0
"""Places whose bound is within this of a clear one's, in nats, are looked at too."""
KNOWN_S: Final = 0.5
"""A place that the caller knows better than this needs no search."""
_LN_DETECTED: Final = log(DETECTED)
_LN_NAMED: Final = log(NAMED)


def is_known(call_s: tuple[float, float]) -> bool:
    """Whether a recording that begins between these seconds of its call needs no search."""
    return call_s[1] - call_s[0] <= KNOWN_S + 1e-6  # two times of a long call, subtracted


def known(heard: Heard, key: MarkKey, payloads: Sequence[int], call_s: tuple[float, float]) -> Detection:
    """What the carrier says where the caller knows to `KNOWN_S` where the recording begins."""
    step_s = 2 * drift.REACH_S
    count = max(1, ceil((call_s[1] - call_s[0]) / step_s))
    middles = np.linspace(*call_s, 2 * count + 1)[1::2] if count > 1 else [sum(call_s) / 2]
    at = [Whereabout(heard.white, Start(float(middle) * HOPS_HZ)) for middle in middles]
    tries = [(payload, each) for payload in payloads for each in at]
    return _verified(key, tries, len(tries))


def anywhere(
    heard: Heard, key: MarkKey, payloads: Sequence[int], call_s: tuple[float, float] | None
) -> list[Detection]:
    """What the envelope says, and what the carrier says, alone or with it, wherever the recording may lie:
    each as the best of all that was tried for both. Where calls are asked for, only of these: the line's
    half alone is not heard, which all calls have in common; and the carrier is not followed where the
    envelope says which call it is. Raises `WeightsError`."""
    cells = Cells(key.secret)
    if call_s is not None and 0 < len(payloads) <= LISTED:
        each = [_in_call(heard, key, cells, payload, call_s) for payload in payloads]
        return [of_many(min(each, key=by_p), len(each))]
    places = search.search(heard.soft, cells, count=PLACES)
    if not places:
        return []
    near = _worth(places)
    if payloads:
        return _of_calls(heard, key, cells, payloads, near)
    on_line = [at for place in near for at in _on_line(heard, place)]
    carried = _by_pilot(heard, key, payloads, on_line if _clear(places) else on_line[:PLACES])
    return [of_many(one, LOOKS) for one in (_by_envelope(places[0], key), carried)]


def _clear(places: list[LinePlace]) -> bool:
    return places[0].ln_p < _LN_DETECTED


def _worth(places: list[LinePlace]) -> list[LinePlace]:
    """Those at which the carrier is looked for: few where the envelope is clear."""
    if not _clear(places):
        return places
    return [place for place in places if place.ln_p <= places[0].ln_p + AS_CLEAR]


def _by_envelope(place: LinePlace, key: MarkKey) -> Detection:
    return Detection(
        place.ln_p < _LN_DETECTED,
        exp(min(place.ln_p, 0.0)),
        place.z,
        key_id=key.id,
        starts_s=0.0,
        skew_ppm=-place.tempo * 1e6,
        ln_p=place.ln_p,
        layer=ENVELOPE,
    )


def _on_line(heard: Heard, place: LinePlace) -> list[Whereabout]:
    """Where on the carrier's line a recording lies that is at `place` of the envelope's: calls enter both at
    the same hop, but the lines are not equally long, and a clear one's call may have passed the shorter one's
    end."""
    ln_tried = ln_tries_at(heard, place, LINE_HOPS, 1)
    first = place.hop + place.lap * LINE_HOPS
    return [
        Whereabout(white, Start(first + passed, rest), place.z, ln_tried)
        for passed in ((0, LINE_HOPS) if place.ln_p < _LN_DETECTED else (0,))
        for white, rest in heard.read(place.tempo)
    ]


def _of_calls(
    heard: Heard, key: MarkKey, cells: Cells, payloads: Sequence[int], near: list[LinePlace]
) -> list[Detection]:
    """What the envelope, and if that is not clear the carrier too, says of these calls at places of the
    line."""
    told = calls_at(heard, cells, payloads, near, [ln_tries_at(heard, each, LINE_HOPS, 1) for each in near])
    said = of_many(by_cells(key, told), LOOKS)
    if said.detected:
        return [said]
    if len(payloads) <= FOLLOWED:
        return [said, of_many(_likeliest_verified(key, heard, told, near), LOOKS)]
    guesses = [at for each in told[:GUESSED] for at in each.heard(heard)]
    guessed = of_many(_verified(key, guesses, len(guesses)), 2 * LOOKS)
    if guessed.detected:
        return [said, guessed]
    on_line = [at for place in near for at in _on_line(heard, place)]
    carried = _by_pilot(heard, key, payloads, on_line if _clear(near) else on_line[:PLACES])
    return [said, guessed, of_many(carried, 2 * LOOKS)]


def _in_call(
    heard: Heard, key: MarkKey, cells: Cells, payload: int, call_s: tuple[float, float]
) -> Detection:
    """What is said of this call, which begins in the recording's time between these seconds."""
    near, told = _told_in_call(heard, cells, payload, call_s)
    if not near:
        return NOTHING
    said = of_many(by_cells(key, told), LOOKS)
    if said.detected:
        return said
    return min(said, of_many(_likeliest_verified(key, heard, told, near), LOOKS), key=by_p)


def _told_in_call(
    heard: Heard, cells: Cells, payload: int, call_s: tuple[float, float]
) -> tuple[list[LinePlace], list[CallGuess]]:
    """The likely places between these seconds of this call, and what the envelope says there."""
    first, last = (round(each * HOPS_HZ) for each in call_s)
    hops = min(max(1, last - first), LINE_HOPS)
    enters = cells.entry(payload) * CELL_HOPS
    laps = range(max(0, first) // LINE_HOPS, max(0, last) // LINE_HOPS + 1)
    places = search.search(heard.soft, cells, enters + first, hops, laps=laps, count=PLACES)
    near = _worth(places) if places else []
    tried = [ln_tries_at(heard, place, hops, len(laps)) for place in near]
    told = calls_at(heard, cells, [payload], near, tried) if near else []
    return near, [replace(each, hop=_around(each.place.hop - enters - first) + first) for each in told]


def confirms(heard: Heard, key: MarkKey, found: Detection) -> bool:
    """Whether the envelope's half of the call says that it is the detection's, where that has the recording
    begin. Raises `WeightsError`."""
    if found.payload is None or found.call_s is None or found.starts_s is None:
        return False
    begins_s = found.call_s - found.starts_s
    about_s = begins_s - KNOWN_S / 2, begins_s + KNOWN_S / 2
    _, told = _told_in_call(heard, Cells(key.secret), found.payload, about_s)
    return any(each.ln_call < _LN_NAMED for each in told)


def _around(hops: float) -> float:
    """The same place of the line, the way round that is shorter."""
    return (hops + LINE_HOPS // 2) % LINE_HOPS - LINE_HOPS // 2


def _likeliest_verified(
    key: MarkKey, heard: Heard, told: Iterable[CallGuess], near: list[LinePlace]
) -> Detection:
    """The best, by the carrier, of those calls and places at which the pilot's course is best."""
    tries = [at for each in sorted(told, key=lambda each: near.index(each.place)) for at in each.heard(heard)]
    likeliest = _likeliest(key, tries if _clear(near) else tries[:PLACES])
    return _verified(key, likeliest, max(1, len(likeliest)))


def _likeliest(key: MarkKey, tries: list[tuple[int, Whereabout]]) -> list[tuple[int, Whereabout]]:
    """Those at which the pilot's course is best, which no data have chosen."""
    if len(tries) <= FOLLOWED:
        return tries
    ranked = []
    for payload, at in tries:
        line = replace(at.start, hop=at.start.hop + carrier.entry(key, payload))
        found = drift.by_pilot(at.white, key, line)
        ranked.append((-inf if found is None else found.pilot / sqrt(len(found.places)), payload, at))
    ranked.sort(key=lambda each: each[0], reverse=True)
    return [(payload, at) for _, payload, at in ranked[:FOLLOWED]]


def _verified(
    key: MarkKey, tries: Sequence[tuple[int, Whereabout]], many: float, ln_payloads: float = 0.0
) -> Detection:
    """The best of these calls and places, of so `many`, by halves of the data, alone or, where these or the
    envelope's half that says which call it is are below `NAMED` alone, with the envelope. `ln_payloads`:
    logarithm of how many payloads there are for each that is tried."""
    best = NOTHING
    for payload, at in tries:
        hops, middle = at.start.hops(len(at.white), first=0)
        chips = carrier.call_chips(key, payload, code.encode(payload), hops) if len(hops) else None
        half = None if chips is None else drift.halves(at.white, chips, middle)
        if half is None:
            continue
        alone = bound(log(2 * many) + ln_payloads, half.score)
        both = bound(log(2) + ln_payloads + at.ln_tried, (half.score + at.z) / sqrt(2))
        named = (alone if at.ln_call == inf else log(2) + min(alone, at.ln_call)) < _LN_NAMED
        ln_p = log(2) + (min(alone, both) if named else alone)
        products = (half.tiles * np.conj(half.chips)).real.sum(axis=1)
        energy = np.square(np.abs(half.tiles)).sum(axis=1)
        found = Detection(
            ln_p < _LN_DETECTED,
            exp(min(ln_p, 0.0)),
            half.score,
            payload if named else None,
            key.id,
            float(
                np.median(half.at_s - np.arange(len(half.at_s)) / HOPS_HZ)
            ),  # its first block may be silence
            float(hops[0]) / HOPS_HZ if named else None,
            half.skew * 1e6,
            by_second(products, energy, half.at_s, ceil(len(at.white) / NARROW_HZ)),
            ln_p,
            BOTH if named and both < alone else CARRIER,
        )
        best = min(best, found, key=by_p)
    return best


def _by_pilot(heard: Heard, key: MarkKey, payloads: Sequence[int], on_line: list[Whereabout]) -> Detection:
    """Which call the carrier says that it is, of any or of these: along the courses of the likeliest pilots,
    or else along the courses of those calls that fit best there."""
    courses: list[tuple[float, Aligned, Whereabout]] = []
    for at in on_line:
        course = drift.by_pilot(at.white, key, at.start)
        if course is not None:
            seen = replace(course, pilot=at.z, ln_tried=at.ln_tried)
            courses.append((course.pilot / sqrt(len(course.places)), seen, at))
    courses.sort(key=lambda each: each[0], reverse=True)
    del courses[FOLLOWED:]
    if not courses:
        return NOTHING
    aligned = [each for _, each, _ in courses]
    white, many = courses[0][2].white, len(courses)
    if not payloads:
        return named(aligned, key, white, many, partial(confirms, heard, key))
    calls = Calls.of(key, payloads)
    found = verified(aligned, key, calls, white, range(LAPS), many)
    if found.ln_p < 2 * _LN_DETECTED:
        return of_many(found, 2)
    tries = [
        (payloads[which], _of_call(key, payloads[which], lap, at))
        for _, each, at in courses
        for which, lap in rows.fitting(key, each, calls, range(LAPS), GUESSED)
    ]
    followed = _verified(key, tries, many, log(len(payloads) * LAPS))
    return clearest(of_many(each, 2) for each in (found, followed))


def _of_call(key: MarkKey, payload: int, lap: int, at: Whereabout) -> Whereabout:
    """The same place in hops of this call, on a lap of the carrier's line."""
    hop = (at.start.hop - carrier.entry(key, payload)) % carrier.LINE_HOPS + lap * carrier.LINE_HOPS
    return replace(at, start=replace(at.start, hop=hop))
