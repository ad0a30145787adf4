"""A message of a call on its way between somebody and us, as people may see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

US: Final = "us"
CALLER: Final = "caller"
PROTOCOLS: Final = frozenset({"udp", "tcp", "tls", "ws", "wss", "http"})

Standing = Literal["new", "old", "refused"]
"""Of a call whose messages are seen: it began here; it began before this process did; it was not taken."""


@dataclass(frozen=True, slots=True)
class WireMessage:
    """`text` and `first` are blanked and clipped by whoever makes this (`gateway.edge.grammar.blanking`)."""

    at: float
    """when it came or went; seconds since the epoch"""
    sender: str
    receiver: str
    """`US`, `CALLER`, a trunk's name, or the user of a telephone"""
    protocol: str
    """one of `PROTOCOLS`"""
    first: str
    """its first line"""
    text: str
    """all of it, the first line too"""
    host: str = ""
    port: int = 0
    """the other side's address"""
    left_out: int = 0
    """messages of its call right before it that nobody looked at: there were too many"""
