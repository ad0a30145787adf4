"""Provisional answers to an INVITE of ours that their sender wants acknowledged (RFC 3262 §4)."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from gateway.edge.grammar.message import to_tag
from gateway.edge.grammar.sip_message import Response

MOST_DIALOGS: Final = 8
"""That one INVITE may open early; answers of more get no PRACK."""
_LARGEST: Final = 2**31 - 1


class ProvisionalKind(Enum):
    """What a provisional answer is."""

    PLAIN = auto()
    """nobody wants it acknowledged"""
    RELIABLE = auto()
    """the next one of its sender's: it gets a PRACK"""
    REPEATED = auto()
    """known, or one before it is missing, or it cannot be read: nothing is done"""


class ReliableAnswers:
    """Those to one INVITE, by each dialog that it may open."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        """the number of the last one, by the sender's tag"""

    def take(self, answer: Response) -> ProvisionalKind:
        """A provisional answer came."""
        if answer.code == 100 or "100rel" not in answer.require:
            return ProvisionalKind.PLAIN
        number, tag = _number(answer), to_tag(answer)
        last = self._last.get(tag)
        known = last is not None or len(self._last) < MOST_DIALOGS
        if not number or not tag or not known or (last is not None and number != last + 1):
            return ProvisionalKind.REPEATED
        self._last[tag] = number
        return ProvisionalKind.RELIABLE


def _number(answer: Response) -> int:
    """0 where there is none."""
    said = (answer.headers.get("RSeq") or "").strip()
    number = int(said) if said.isascii() and said.isdigit() and len(said) <= 10 else 0
    return number if number <= _LARGEST else 0
