"""The stock voice as a clip, for an engine that speaks as whoever it has heard."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.embedded.mouth import Mouth

WORDS: Final = (
    "The sun came up over the harbour, and the first boats were already on their way home. Somebody laughed, "
    "a bell rang twice, and on the other side of the water a train began to move."
)


async def render() -> NDArray[np.float32]:
    """The stock voice saying `WORDS`: float32, 24 kHz mono."""
    mouth = Mouth()
    try:
        return np.concatenate([pcm async for _, pcm in mouth.speak(WORDS)])
    finally:
        mouth.close()
