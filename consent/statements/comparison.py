"""Was a statement said? What a recogniser heard, held against what was to be read aloud.

Critical parts must be heard exactly, in the rest a recogniser may slip. Words beside the statement are more
than a slip: a few of them are for people to hear, more of them are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from consent.statements.lexicon import LEXICA
from consent.statements.spoken_words import fold, tokens
from consent.statements.statement import Statement

SLIPS: Final = 0.20
"""Share of the uncritical words that may be heard wrong."""
LEFT_OUT: Final = 0.5
"""A sentence of which more than this share was not heard was left out, however well the rest was read."""
ADDED: Final = 4
"""So many words in a row that the statement does not have are a sentence of somebody's own."""

LONGEST: Final = 3
"""A text so many times as long as the statement is not compared at all."""


@dataclass(frozen=True, slots=True)
class Heard:
    """How a transcript fits a statement."""

    said: bool
    why: str
    """what was not said, in the operator's words; empty when all was"""
    slips: float
    """share of the uncritical words that were not heard"""
    doubt: str = ""
    """all was said, and something more that people must hear; empty when there is nothing"""


def match(statement: Statement, transcript: str) -> Heard:
    """Whether a transcript says the statement: its critical parts word for word, the rest nearly so."""
    if len(transcript) > LONGEST * len(statement.text):
        return Heard(False, "it has far more words than the statement", 1.0)
    comparison = _Comparison(statement, transcript)
    why = next(comparison.refusals(), "")
    slips = comparison.slips
    return Heard(not why, why, 1.0 if why else slips, "" if why else "; ".join(comparison.doubts()))


class _Comparison:
    """`_at` says which heard word each wanted one is, and None where it was not heard.

    `_added` has the heard words that nobody wanted, by the wanted word that they stand before.
    """

    def __init__(self, statement: Statement, transcript: str) -> None:
        language = statement.language
        self._language = language
        self._parts = statement.parts
        self._wanted: list[str] = []
        self._own: list[range] = []
        for part in statement.parts:
            said = tokens(part.text, language)
            self._own.append(range(len(self._wanted), len(self._wanted) + len(said)))
            self._wanted += said
        hesitations = {fold(word) for word in LEXICA[language].hesitations} - set(self._wanted)
        self._heard = [word for word in tokens(transcript, language) if word not in hesitations]
        self._at: list[int | None] = [None] * len(self._wanted)
        self._instead: dict[int, str] = {}
        self._added: dict[int, list[str]] = {}
        before = 0
        for at, other in align(self._wanted, self._heard):
            if at is None:
                self._added.setdefault(before, []).append(self._heard[other or 0])
                continue
            before = at + 1
            if other is not None and self._wanted[at] == self._heard[other]:
                self._at[at] = other
            elif other is not None:
                self._instead[at] = self._heard[other]
        for own in self._critical.values():
            self._join(own)

    @property
    def _critical(self) -> dict[int, range]:
        return {number: self._own[number] for number, part in enumerate(self._parts) if part.critical}

    @property
    def _loose(self) -> dict[int, range]:
        return {number: self._own[number] for number, part in enumerate(self._parts) if not part.critical}

    def _join(self, own: range) -> None:
        """Takes a critical part as heard whose letters were, if with other spaces ("sun set")."""
        before = [at for at in self._at[: own.start] if at is not None]
        after = [at for at in self._at[own.stop :] if at is not None]
        span = range(before[-1] + 1 if before else 0, after[0] if after else len(self._heard))
        if "".join(self._wanted[at] for at in own) == "".join(self._heard[at] for at in span):
            for at in own:
                self._at[at] = span.start
                self._instead.pop(at, None)
            for at in range(own.start, own.stop + 1):
                self._added.pop(at, None)

    def _missed(self, own: range) -> list[str]:
        return [self._wanted[at] for at in own if self._at[at] is None]

    @property
    def slips(self) -> float:
        """Share of the uncritical words that were not heard, and of words too many."""
        missed = sum(len(self._missed(own)) for own in self._loose.values())
        return (missed + sum(map(len, self._added.values()))) / max(1, sum(map(len, self._loose.values())))

    def refusals(self) -> Iterator[str]:
        """Why the statement was not said, the gravest first."""
        denials = {fold(word) for word in LEXICA[self._language].denials}
        if turned := sorted(denials & set(self._heard) - set(self._wanted)):
            yield f"it holds {turned[0]!r}, which no statement does"
        for number, own in self._critical.items():
            text = self._parts[number].text
            if missing := self._missed(own):
                yield f"{text!r} was not heard: {' '.join(missing)!r} is missing"
            if any(at in self._added for at in own[1:]):
                yield f"{text!r} was not heard: there are words in between"
            for added in self._beside(own):
                if self._is_more_of(own, added):
                    yield f"{text!r} was not heard: there is {added!r} too"
        for words in self._added.values():
            if len(words) >= ADDED:
                yield f"the statement does not have {' '.join(words)!r}"
        if self.slips > SLIPS:
            yield f"{self.slips:.0%} of the other words differ"
        for number, own in self._loose.items():
            if len(self._missed(own)) > max(2, LEFT_OUT * len(own)):
                yield f"{self.slips:.0%} of the other words differ, most of {self._parts[number].text!r}"

    def doubts(self) -> Iterator[str]:
        """What people must hear, though all was said."""
        for at, words in self._added.items():
            if at == 0:
                yield f"{' '.join(words)!r} before the statement"
            elif at == len(self._wanted):
                yield f"{' '.join(words)!r} after the statement"
            elif any(at in (own.start, own.stop) for own in self._critical.values()):
                yield f"{' '.join(words)!r} beside words that must be exact"
        for at, other in self._instead.items():
            if self._wanted[at].isdigit() or other.isdigit():
                yield f"{other!r} in place of {self._wanted[at]!r}"

    def _beside(self, own: range) -> list[str]:
        return [*self._added.get(own.start, ()), *self._added.get(own.stop, ())]

    def _is_more_of(self, own: range, added: str) -> bool:
        """Whether the word could be one more of the list: a digit, a word of chance, one said twice."""
        wanted = self._wanted[own.start : own.stop]
        chance = {fold(word) for word in LEXICA[self._language].words}
        return (
            added in wanted
            or (added.isdigit() and all(word.isdigit() for word in wanted))
            or (added in chance and chance.issuperset(wanted))
        )


def align(wanted: list[str], heard: list[str]) -> list[tuple[int | None, int | None]]:
    """The cheapest way from one to the other (Levenshtein): pairs of positions, None where one has none."""
    rows, columns = len(wanted) + 1, len(heard) + 1
    cost = [[0] * columns for _ in range(rows)]
    for i in range(rows):
        for j in range(columns):
            if i == 0 or j == 0:
                cost[i][j] = i + j
            else:
                cost[i][j] = min(
                    cost[i - 1][j - 1] + (wanted[i - 1] != heard[j - 1]),
                    cost[i - 1][j] + 1,
                    cost[i][j - 1] + 1,
                )
    pairs: list[tuple[int | None, int | None]] = []
    i, j = rows - 1, columns - 1
    while i or j:
        if i and j and cost[i][j] == cost[i - 1][j - 1] + (wanted[i - 1] != heard[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif i and cost[i][j] == cost[i - 1][j] + 1:
            i -= 1
            pairs.append((i, None))
        else:
            j -= 1
            pairs.append((None, j))
    return pairs[::-1]
