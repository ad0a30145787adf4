"""A voice as others ask for it, and what an engine needs to speak as it."""

from __future__ import annotations

from dataclasses import dataclass

from consent.checks.sound import Floats


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice that may be asked for. `state` is `active`, or why it may not be used."""

    name: str
    voice_hash: str
    stock: bool
    state: str = "active"


@dataclass(frozen=True, slots=True)
class VoiceReference:
    """What an engine needs to speak as a voice; `pcm` float32 24 kHz, None for a stock voice without a clip.

    `consent.grants.grant.hash_voice(pcm.tobytes(), text)` is `voice_hash` wherever there is a clip.
    """

    voice: str
    voice_hash: str
    pcm: Floats | None
    text: str
    stock: bool
