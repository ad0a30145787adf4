"""The place among heard words where others were wanted, and how well texts fit the sound there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

Weigh = Callable[[int, Sequence[str]], Sequence[float]]
"""(a piece of the sound, texts) -> how likely each text is as that piece's words (natural logarithms)."""

NEVER: Final = float("-inf")


@dataclass(frozen=True, slots=True)
class HeardPlace:
    """Where in the heard words a text would stand.

    The sound was heard in pieces, and words are weighed with those of their piece around them. Where a place
    reaches over the border of two pieces its text is split at every space, and the best way counts.
    """

    words: tuple[str, ...]
    """all that were heard, as the recogniser wrote them"""
    pieces: tuple[range, ...]
    """which of the words each piece has, in order"""
    first: int
    last: int
    """the words from `first` to before `last` are put in question; none where they are the same"""

    @property
    def heard(self) -> str:
        """What stands there."""
        return " ".join(self.words[self.first : self.last])

    def fits(self, texts: Sequence[str], weigh: Weigh) -> list[float]:
        """How likely the sound's words are with each text here; `NEVER` where nobody can be asked."""
        touched = [
            number
            for number, own in enumerate(self.pieces)
            if own and own.start <= self.last and own.stop >= self.first
        ]
        if not touched or len(touched) > 2:
            return [NEVER] * len(texts)
        ways = [self._ways(text, touched) for text in texts]
        found: list[dict[str, float]] = []
        for side, number in enumerate(touched):
            asked = sorted({way[side] for one in ways for way in one})
            found.append(dict(zip(asked, weigh(number, asked), strict=True)))
        return [max(sum(found[side][half] for side, half in enumerate(way)) for way in one) for one in ways]

    def _ways(self, text: str, touched: Sequence[int]) -> list[tuple[str, ...]]:
        """The pieces' whole texts, in each way to divide the one between them."""
        first, last = self.pieces[touched[0]], self.pieces[touched[-1]]
        before, after = self.words[first.start : self.first], self.words[self.last : last.stop]
        between = text.split()
        if len(touched) == 1:
            return [(" ".join([*before, *between, *after]),)]
        return [
            (
                " ".join([*before, *between[:at]]),
                " ".join([*between[at:], *after]),
            )
            for at in range(len(between) + 1)
        ]
