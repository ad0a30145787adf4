"""One press, one key: some phones send a press as RTP event, as tones and as INFO at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from gateway.ipc.line_messages import KeyWay

ONE_PRESS_S: Final = 5.0
"""How long after a press by one way the same press may come by another: an INFO is often sent when the key is
let go. Nobody presses a key now by one way and now by another."""


@dataclass(slots=True)
class _Press:
    digit: str
    at: float
    ways: set[KeyWay] = field(default_factory=set)


class Keypad:
    """One caller's. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._presses: list[_Press] = []
        """the last ones, the oldest first"""

    def is_new(self, digit: str, way: KeyWay, now: float) -> bool:
        """Whether this key is a press of its own, and not one that came already by another way."""
        self._presses = [press for press in self._presses if now - press.at < ONE_PRESS_S]
        for press in self._presses:
            if press.digit == digit and way not in press.ways:
                press.ways.add(way)
                return False
        self._presses.append(_Press(digit, now, {way}))
        return True
