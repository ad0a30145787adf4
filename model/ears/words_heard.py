"""What the ears heard."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Words:
    """Words of one piece of sound. `text` is empty when nobody spoke, or nobody could be understood."""

    text: str = field(repr=False)
    language: str
    """ISO 639-1"""
    confidence: float
    """in [0, 1]: exp of the mean log probability of what was written"""
    sounded_s: float
    """how long the sound was"""
    refused: str = ""
    """empty, or why there are no words: a gate of `consent.whisper`, or `busy`, `lost`, `failed`,
    `no weights`"""


NO_WORDS: Final = Words("", "", 0.0, 0.0)
