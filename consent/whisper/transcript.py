"""What was heard, and what the model itself thinks of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Refusal = Literal["", "silence", "no speech", "improbable", "loop", "taken back"]
"""Which gate refused: no voice in the sound; the model says that nobody spoke; the model hardly believes its
own words; the words repeat themselves; or nobody wanted to know any more."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """Words of one piece of sound."""

    text: str
    """empty when nothing was said or a gate refused"""
    language: str
    """ISO 639-1"""
    log_probability: float
    """mean per token, natural logarithm; 0 when the model was not asked"""
    no_speech: float
    """the model's probability that nobody spoke, in [0, 1]"""
    refused: Refusal = ""
    """empty when no gate did"""


@dataclass(frozen=True, slots=True)
class HeardPiece:
    """A piece of a longer sound, heard for whoever must not miss or mistake a word of it."""

    transcript: Transcript
    seconds: float
    spoken: float
    """the probability that its language is the transcript's, in [0, 1]"""
    words: tuple[tuple[str, float], ...] = ()
    """each word with how sure the model is of it, in [0, 1]"""
