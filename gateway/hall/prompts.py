"""Sentences rendered in advance, for when there is no engine to speak them: the farewell, the filler, "busy".

Kept as plain sound; each call marks them with its own payload when it plays them, like everything else.
"""

from __future__ import annotations

import numpy as np

from gateway.hall.audio import Floats


class Prompts:
    """Text -> float32 24 kHz sound, in the stock voice."""

    def __init__(self) -> None:
        self._sound: dict[str, Floats] = {}

    def missing(self, texts: list[str]) -> list[str]:
        return [text for text in dict.fromkeys(texts) if text and text not in self._sound]

    def keep(self, text: str, pieces: list[Floats]) -> None:
        self._sound[text] = np.concatenate(pieces)

    def sound(self, text: str) -> Floats | None:
        """None when it was never rendered."""
        return self._sound.get(text)
