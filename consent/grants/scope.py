"""What a grant is for: exactly one voice, purpose, dialplan, language and call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

STOCK: Final = "heart"
"""The stock voice, which belongs to no person."""


@dataclass(frozen=True, slots=True)
class Scope:
    """One use of one voice, and the only door to it. Whoever changes any part of it needs another grant.

    `voice` is the name it was registered under, `dialplan` a route's name, `language` a tag (BCP 47).
    """

    voice: str
    purpose: str
    dialplan: str
    language: str
    call_id: str
