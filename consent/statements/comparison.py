"""Was a statement said? What a recogniser heard, held against what was to be read aloud.

Critical parts must be heard exactly, in the rest a recogniser may slip. Words beside the statement are more
than a slip: a few of them are for people to hear, more of them are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
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
ALIKE: Final = 0.5
"""Of letters, from where on another word may be the wanted one, misheard. "askme" for "acme" has .67."""
UNSURE: Final = (0.6, 0.9)
"""A recogniser that is less sure of an alike word than this does not know; the second for names of persons
and companies, of which it knows few, and writes others that it knows."""


@dataclass(frozen=True, slots=True)
class HeardText:
    """What a recogniser heard."""

    text: str
    words: tuple[tuple[str, float], ...] = ()
    """its words with how sure the recogniser is of each, in [0, 1]; who says nothing is sure"""


@dataclass(frozen=True, slots=True)
class Heard:
    """How a transcript fits a statement."""

    said: bool
    why: str
    """what was not said, in the operator's words; empty when all was"""
    slips: float
    """share of the uncritical words that were not heard"""
    doubt: str = ""
    """what people must hear, though nothing refuses it; empty when there is nothing"""


def match(statement: Statement, heard: HeardText) -> Heard:
    """Whether a text says the statement: its critical parts word for word, the rest nearly so."""
    if len(heard.text) > LONGEST * len(statement.text):
        return Heard(False, "it has far more words than the statement", 1.0)
    comparison = _Comparison(statement, heard)
    why = next(comparison.refusals(), "")
    slips = comparison.slips
    return Heard(not why, why, 1.0 if why else slips, "" if why else "; ".join(comparison.doubts()))


class _Comparison:
    """`_at` says which heard words each wanted one is, and None where it was not heard.

    `_added` has the heard words that nobody wanted, by the wanted word that they stand before; `_misheard`
    what may have been the wanted words.
    """

    def __init__(self, statement: Statement, heard: HeardText) -> None:
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
        self._heard = [word for word in tokens(heard.text, language) if word not in hesitations]
        self._sure = self._sureness(heard, language)
        self._at: list[range | None] = [None] * len(self._wanted)
        self._instead: dict[int, str] = {}
        self._added: dict[int, list[str]] = {}
        self._misheard: list[tuple[str, str]] = []
        before = 0
        for at, other in align(self._wanted, self._heard):
            if at is None:
                self._added.setdefault(before, []).append(self._heard[other or 0])
                continue
            before = at + 1
            if other is not None and self._wanted[at] == self._heard[other]:
                self._at[at] = range(other, other + 1)
            elif other is not None:
                self._instead[at] = self._heard[other]
        for number, own in self._critical.items():
            self._join(own)
            self._mishear(own, UNSURE[self._parts[number].proper])

    def _sureness(self, heard: HeardText, language: str) -> list[float]:
        """How sure the recogniser is of each heard word; of numbers that it wrote in several words, quite."""
        told = [(word, sure) for said, sure in heard.words for word in tokens(said, language)]
        out = [1.0] * len(self._heard)
        for at, other in align([word for word, _ in told], self._heard):
            if at is not None and other is not None and told[at][0] == self._heard[other]:
                out[other] = told[at][1]
        return out

    @property
    def _critical(self) -> dict[int, range]:
        return {number: self._own[number] for number, part in enumerate(self._parts) if part.critical}

    @property
    def _loose(self) -> dict[int, range]:
        return {number: self._own[number] for number, part in enumerate(self._parts) if not part.critical}

    def _join(self, own: range) -> None:
        """Takes a critical part as heard whose letters were, if with other spaces ("sun set")."""
        wanted, heard = self._around(own)
        if wanted == own and self._spelt(wanted) == "".join(self._heard[at] for at in heard):
            self._settle(wanted, heard)

    def _mishear(self, own: range, unsure: float) -> None:
        """Settles what was heard as something alike, and not surely. A digit is another one, or it is not."""
        for at in own:
            if self._at[at] is not None or self._wanted[at].isdigit():
                continue
            wanted, heard = self._around(range(at, at + 1))
            said = [self._heard[other] for other in heard]
            if self._spelt(wanted) == "".join(said):
                self._settle(wanted, heard)
                continue
            alike = SequenceMatcher(None, self._spelt(wanted), "".join(said), autojunk=False).ratio()
            if said and alike >= ALIKE and min(self._sure[other] for other in heard) < unsure:
                self._misheard.append((" ".join(said), " ".join(self._wanted[one] for one in wanted)))
                self._settle(wanted, heard)

    def _around(self, own: range) -> tuple[range, range]:
        """What was wanted, and what was heard instead, between the nearest words that were heard."""
        first, last = own.start, own.stop
        while first > 0 and self._at[first - 1] is None:
            first -= 1
        while last < len(self._wanted) and self._at[last] is None:
            last += 1
        before = self._at[first - 1] if first else None
        after = self._at[last] if last < len(self._wanted) else None
        return range(first, last), range(
            0 if before is None else before.stop, len(self._heard) if after is None else after.start
        )

    def _spelt(self, wanted: range) -> str:
        return "".join(self._wanted[at] for at in wanted)

    def _settle(self, wanted: range, heard: range) -> None:
        for at in wanted:
            self._at[at] = heard
            self._instead.pop(at, None)
        for at in range(wanted.start, wanted.stop + 1):
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
        """What people must hear, though nothing refuses it."""
        for other, wanted in self._misheard:
            yield f"{wanted!r}, which was heard as {other!r}"
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
