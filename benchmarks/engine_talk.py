"""Conversations by the dice, for the simulator and for the engine itself: the same seed talks the same.

A caller says something, the line's endpointer takes a while to notice the end, the engine answers, the caller
thinks, and so on; some answers are interrupted. On average a turn takes 10 s, so that of all calls a tenth
starts a reply each second and about half are being answered at any time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

ENDPOINT_S: Final = 0.35
SPEECH_S: Final = (1.0, 5.0)
REPLY_S: Final = (2.0, 8.0)
PAUSE_S: Final = (1.2, 3.1)
INTERRUPTED: Final = 0.15


@dataclass(frozen=True, slots=True)
class Exchange:
    """`barge_s`: of the answer, after which the caller speaks again; None: it is heard out."""

    speech_s: float
    reply_s: float
    barge_s: float | None
    pause_s: float


def talk(seed: int) -> Iterator[Exchange]:
    """One caller's, for ever."""
    chance = random.Random(seed)
    while True:
        reply_s = chance.uniform(*REPLY_S)
        barge_s = chance.uniform(0.3, reply_s) if chance.random() < INTERRUPTED else None
        yield Exchange(chance.uniform(*SPEECH_S), reply_s, barge_s, chance.uniform(*PAUSE_S))


def first_pause_s(seed: int) -> float:
    """When a caller who was there already speaks next."""
    return random.Random(-seed).uniform(0.0, 10.0)
