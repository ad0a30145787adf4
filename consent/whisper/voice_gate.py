"""Whether anybody speaks: Silero's network (`consent.silero`), asked no longer than it takes to be sure.

Whisper writes words for noise, music and tones. Whoever speaks opens this gate within half a second, so that
it costs little there; where nobody speaks it hears all of the sound.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np

from consent.silero.network import open_network
from consent.whisper.features import RATE_HZ, Floats

WINDOW: Final = 512
CONTEXT: Final = 64
LIKELY: Final = 0.5
ENOUGH: Final = 5
"""Windows of 32 ms that are likely speech, and somebody speaks: over G.711 one of 302 pieces of noise, tones
and music has as many, and one of 505 human words and sentences has not."""

_network = lru_cache(maxsize=1)(lambda: open_network(RATE_HZ))


def somebody_speaks(pcm_16k: Floats) -> bool:
    """Whether float32 `(n,)` at 16 kHz holds speech. May be asked by several threads at once."""
    network = _network()
    state = np.zeros((2, 1, 128), np.float32)
    context = np.zeros(CONTEXT, np.float32)
    likely = 0
    for at in range(0, len(pcm_16k) - WINDOW + 1, WINDOW):
        window = pcm_16k[at : at + WINDOW]
        heard = np.concatenate((context, window))[None]
        answer, state = network.judge(heard, state)
        likely += float(answer[0]) > LIKELY
        if likely >= ENOUGH:
            return True
        context = window[-CONTEXT:]
    return False
