"""Whether a plan's recordings can carry the mark: a trial, before any call depends on it.

A hall looks for the mark in what it sent, and silences a call in which it is not found. Sustained tones leave
it no place: a recording of them would end each call that hears it for ten seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from gateway.dialplan import Dialplan, Playback, Route
from gateway.dialplan.played_file import HOUSE_HZ, read_played
from gateway.dialplan.verbs import recording_of
from gateway.errors import DialplanError, PlayedFileError
from watermark.keys import BOTH_LAYERS, MarkKey
from watermark.mark import MarkerBank
from watermark.pcm import Floats
from watermark.selfcheck import WINDOW_S, SelfCheck

FRAME: Final = HOUSE_HZ // 50
PLACES: Final = 3
"""Of a long recording: its beginning, its middle and its end."""
SOON_S: Final = 5.0
"""A shorter one, played once, is over before it can be all that the hall hears in a window."""
LEAST_CARRIER: Final = 9.0
LEAST_ENVELOPE: Final = 7.0
"""Scores of the mark's two layers. A hall asks for 5.3 and 4.5 in each ten seconds, and they vary by 1 from
window to window: these are met a thousand times in a row."""
TRIAL: Final = MarkKey("trial", 0, bytes(range(32)), BOTH_LAYERS)
PAYLOAD: Final = 0x1234_5678_9ABC


def check_marks(plan: Dialplan) -> None:
    """Raises `DialplanError` for a recording in which the mark would not be found."""
    tried: set[tuple[str, bool, bool]] = set()
    for route, verb in _played(plan):
        key = verb.file, verb.normalise, verb.loop
        if key in tried:
            continue
        tried.add(key)
        where = f"{route.file}:{route.line}: route {route.name!r}: {verb.file!r} cannot be played"
        try:
            sound = read_played(plan.folder, verb.file).at_house_rate(normalise=verb.normalise)
        except PlayedFileError as error:
            raise DialplanError(f"{where}: {error}") from None
        if (verb.loop or len(sound) >= SOON_S * HOUSE_HZ) and not all(map(_carries, _windows(sound))):
            raise DialplanError(
                f"{where}: the mark would not be found in it, and the call would fall silent: sustained "
                "tones leave it no place; use another recording (speech, or music of more than a few tones)"
            )


def _played(plan: Dialplan) -> Iterator[tuple[Route, Playback]]:
    for route in plan.routes:
        for verb in map(recording_of, route.do):
            if verb is not None:
                yield route, verb


def _windows(sound: Floats) -> Iterator[Floats]:
    """What a hall would look into, float32 24 kHz; more than it needs, for pauses do not count."""
    size = round(1.5 * WINDOW_S * HOUSE_HZ)
    if len(sound) <= size:
        yield np.tile(sound, -(-2 * size // len(sound)))
        return
    for place in range(PLACES):
        begin = (len(sound) - size) * place // (PLACES - 1)
        yield sound[begin : begin + size]


def _carries(sound: Floats) -> bool:
    """Whether the mark is found, surely, in the first window of `sound`; yes where there is no window."""
    bank, check = MarkerBank(TRIAL), SelfCheck(TRIAL, PAYLOAD)
    slot = bank.open(PAYLOAD)
    slots = np.array([slot], np.intp)
    for at in range(0, len(sound) - FRAME + 1, FRAME):
        hop = bank.position(slot)
        (marked,) = bank.mark(slots, sound[None, at : at + FRAME])
        if isinstance(marked, Exception):
            return False
        if check.heard(hop, marked.samples):
            carried, swung = check.take().scores()
            return carried >= LEAST_CARRIER and swung >= LEAST_ENVELOPE
    return True
