"""Whether a recording carries our mark, and whose call it is.

Where it may lie on a key's line is sought in this order: by the carrier's pilot, with a steady clock or cut
by a jitter buffer (`sync`, `align`); by the envelope layer, over the whole line and all tempi
(`whereabouts`); and at those places, or where the caller says that it lies, by a course of the carrier whose
time wanders (`drift`). What is found there is judged in `judge`, where the bound on false alarms is
explained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain
from math import inf, log
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watermark import align, carrier, sync, whereabouts
from watermark.align import Aligned
from watermark.call_guesses import Heard
from watermark.carrier import HOPS_HZ, LAPS, LINE_HOPS
from watermark.errors import SoundError
from watermark.judge import (
    CUT,
    DETECTED,
    LISTED,
    NOTHING,
    STEADY,
    Confirms,
    Detection,
    bound,
    by_p,
    clearest,
    named,
    nobody,
    of_many,
    verified,
)
from watermark.keys import KeyRing, MarkKey
from watermark.rows import Calls
from watermark.sound import Recording
from watermark.sync import LINE, Place, Search
from watermark.whiten import NARROW_HZ, Floats, narrow, straight, whiten

__all__ = ["CUT", "DETECTED", "NOTHING", "STEADY", "Detection", "detect", "detect_narrow", "detect_recording"]

CHANNELS: Final = 4
BENDS: Final = (0.7, 1.4, 2.1, 2.8)
"""Phases of band filters that are undone, in radians at 500 Hz against 1 kHz: `whiten.straight`."""
BENT: Final = 2
"""Places at which `BENDS` are tried."""
CLEAR: Final = 0.05
"""They are tried when the pilot's own p-value is below this."""
SPEED_STEP: Final = 300e-6
SPEEDS: Final = np.arange(-34, 35) * SPEED_STEP
"""+-1 %, in steps that the search bridges."""
LONGEST_CALL_S: Final = (LAPS * LINE_HOPS - 1) / HOPS_HZ
"""4.4 hours: data chips are not known later."""
_LN_CLEAR: Final = log(CLEAR)


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
    for 10 s).

    Raises `SoundError` for what cannot be examined, `ValueError` for a payload of more than 64 bits and for a
    `call_s` that is not two times in their order.
    """
    held = keys.keys if isinstance(keys, KeyRing) else tuple(keys)
    return detect_narrow(narrow(pcm, rate_hz), held, payloads=payloads, call_s=call_s, speeds=speeds)


def detect_recording(
    recording: Recording, keys: KeyRing, *, payloads: Iterable[int] = (), speeds: bool = False
) -> Detection:
    """The clearest of its channels: mixing them would mix two calls and weaken both marks.

    Raises `SoundError`, also for more channels than `CHANNELS`.
    """
    wanted = tuple(payloads)
    channels = apart(recording)
    found = [detect(channel, recording.rate_hz, keys, payloads=wanted, speeds=speeds) for channel in channels]
    return min(found, key=lambda each: each.ln_p)


def apart(recording: Recording) -> list[Floats]:
    """Its channels, each once: one voice on both sides is searched once.

    Raises `SoundError` for more channels than `CHANNELS`.
    """
    count = len(recording.channels)
    if count > CHANNELS:
        raise SoundError(f"{count} channels: at most {CHANNELS} are examined, split it first")
    return [
        channel
        for at, channel in enumerate(recording.channels)
        if not any(np.array_equal(channel, other) for other in recording.channels[:at])
    ]


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
    if strange := [each for each in wanted if not 0 <= each < 1 << 64]:
        raise ValueError(f"payload {strange[0]}: a payload has 64 bits, 0 to 2^64 - 1")
    between_s = None if call_s is None else _in_a_call(call_s)
    heard = Heard(sound, whiten(sound))
    if not heard.white.any() or not keys:
        return NOTHING
    best = NOTHING
    for look in (_with_key, _at_speeds) if speeds else (_with_key,):
        for key in keys:
            best = clearest([best, *look(heard, key, wanted, between_s, len(keys))])
            if best.detected:
                return best
    return replace(best, payload=None, call_s=None)


def _in_a_call(call_s: tuple[float, float]) -> tuple[float, float]:
    """The same within the longest call whose chips are known. Raises `ValueError` for what no times are."""
    first, last = call_s
    if not -inf < first <= last < inf:
        raise ValueError(f"call_s {call_s}: give two times in seconds, the earlier one first")
    return min(first, LONGEST_CALL_S), min(last, LONGEST_CALL_S)


def _with_key(
    heard: Heard, key: MarkKey, payloads: tuple[int, ...], call_s: tuple[float, float] | None, tried: int
) -> list[Detection]:
    """By the carrier as it lies; where it names nothing, by the envelope and the carrier's courses: each as
    the best of `tried` keys and all other looks. Among very many calls the envelope is asked first, which
    costs less. With two layers the search and what is found at the envelope's places have half of all false
    alarms each; with either version the carrier's course where the caller knows the place adds a twentieth:
    it needs no envelope, which a thief may have undone."""
    others: list[Detection] = []
    many = len(payloads) > LISTED
    if key.has_envelope and many:
        others = [of_many(each, 2 * tried) for each in whereabouts.anywhere(heard, key, payloads, call_s)]
        if any(each.detected for each in others):
            return others
    confirms = partial(whereabouts.confirms, heard, key) if key.has_envelope else nobody
    sought = pilot_searches(heard.white, key, payloads, call_s, confirms)
    if key.has_envelope:
        found = of_many(by_carrier(sought, steady=bool(payloads)), 2 * tried)
        if found.detected and found.payload is not None:
            return [found]
        if not many:
            others = [of_many(each, 2 * tried) for each in whereabouts.anywhere(heard, key, payloads, call_s)]
        if not payloads or any(each.detected for each in others):
            return [found, *others]
    found = of_many(by_carrier(sought), 2 * tried if key.has_envelope else tried)
    if payloads and not found.detected and call_s is not None and whereabouts.is_known(call_s):
        others.append(of_many(whereabouts.known(heard, key, payloads, call_s), 20 * tried))
    return [found, *others]


Judge = Callable[[Iterable[Aligned]], Detection]


class SoughtPilot:
    """One search of the carrier's pilot, and who judges what lies at its places."""

    def __init__(self, white: Floats, key: MarkKey, search: Search, judge: Judge) -> None:
        self.white, self.key, self.search, self.judge = white, key, search, judge

    @cached_property
    def aligned(self) -> list[Aligned]:
        """The recording with a steady clock."""
        return _steady(self.white, self.key, self.search.steady)


def pilot_searches(
    white: Floats,
    key: MarkKey,
    payloads: tuple[int, ...],
    call_s: tuple[float, float] | None,
    confirms: Confirms = nobody,
) -> list[SoughtPilot]:
    """What is sought of the carrier: anything, one of these calls, or each of them where it may lie."""
    if not payloads:
        judge = partial(named, key=key, white=white, confirms=confirms)
        return [SoughtPilot(white, key, Search(white, key), judge)]
    laps = range(LAPS)
    searches: list[tuple[tuple[int, ...], Search]] = []
    if call_s is None:
        searches.append((payloads, Search(white, key)))
    else:
        laps = range(max(0, int(call_s[0] * HOPS_HZ)) // LINE_HOPS, int(call_s[1] * HOPS_HZ) // LINE_HOPS + 1)
        searches += [((each,), Search(white, key, *_window(key, each, call_s))) for each in payloads]
    return [
        SoughtPilot(
            white,
            key,
            search,
            partial(verified, key=key, calls=Calls.of(key, some), white=white, laps=laps),
        )
        for some, search in searches
    ]


def by_carrier(sought: list[SoughtPilot], steady: bool = False) -> Detection:
    """What the carrier says where its pilot lies; `steady`: only of a steady clock, which costs least."""
    found = [each.judge(each.aligned) if steady else _straightened(each) for each in sought]
    return of_many(min(found, key=by_p), len(found))


def _straightened(sought: SoughtPilot) -> Detection:
    """What is found in the recording as it is; or, where the pilot is clear and no payload is found, with the
    phase of some band filters undone. Those are charged so that all of them together add a twentieth to what
    false alarms there are."""
    white, key, search, judge = sought.white, sought.key, sought.search, sought.judge
    found = judge(chain(sought.aligned, _cut(white, key, search)))
    clear = min((bound(each.ln_tried, each.pilot) for each in sought.aligned), default=0.0) < _LN_CLEAR
    if not clear or (found.detected and found.payload is not None):
        return found
    for bend in BENDS:
        again = judge(_steady(straight(white, bend), key, search.steady[:BENT]))
        again = of_many(again, round(len(BENDS) / CLEAR))
        if again.detected and again.payload is not None:
            return again
    return found


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
    heard: Heard, key: MarkKey, payloads: tuple[int, ...], call_s: tuple[float, float] | None, tried: int
) -> list[Detection]:
    """At the one other speed at which the loudest 5.12 s of the recording lie best on the line."""
    import soxr  # not in the hall, whose clock is its own

    part = _loudest(heard.white, 8 * sync.PIECE * align.LAG)
    best_speed, best_score = 0.0, -1.0
    for speed in SPEEDS[SPEEDS != 0.0].tolist():
        changed = np.asarray(
            soxr.resample(part, NARROW_HZ, NARROW_HZ * (1 + speed), quality="MQ"), np.float32
        )
        score = sync.best_score(changed, key)
        if score > best_score:
            best_speed, best_score = speed, score
    changed = np.asarray(soxr.resample(heard.white, NARROW_HZ, NARROW_HZ * (1 + best_speed)), np.float32)
    found = of_many(by_carrier(pilot_searches(changed, key, payloads, call_s)), tried * len(SPEEDS))
    return [replace(found, skew_ppm=found.skew_ppm - best_speed * 1e6)]


def _loudest(white: Floats, samples: int) -> Floats:
    """The `samples` of most energy, in steps of half a second."""
    step = NARROW_HZ // 2
    begins = range(0, max(1, len(white) - samples + 1), step)
    energy = [float(np.square(white[begin : begin + samples]).sum()) for begin in begins]
    begin = begins[int(np.argmax(energy))]
    return white[begin : begin + samples]
