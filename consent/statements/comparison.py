"""Was a statement said? What a recogniser heard, held against what was to be read aloud.

Critical parts must be heard exactly, in the rest a recogniser may slip. Words beside the statement are more
than a slip: a few of them are for people to hear, more of them are refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final

from consent.statements.heard_place import NEVER, HeardPlace, Weigh
from consent.statements.lexicon import LEXICA
from consent.statements.spoken_words import fold, tokens
from consent.statements.statement import Part, Statement

SLIPS: Final = 0.20
"""Share of the uncritical words that may be heard wrong."""
LEFT_OUT: Final = 0.5
"""A sentence of which more than this share was not heard was left out, however well the rest was read."""
ADDED: Final = 4
"""As many words together that the statement does not have are a sentence of somebody's own."""

LONGEST: Final = 3
"""A text so many times as long as the statement is not compared at all."""
ALIKE: Final = 0.5
"""Another word may be the wanted one, misheard, with letters so much alike: "askme" and "acme" are at .67."""
UNSURE: Final = (0.6, 0.9)
"""A recogniser that is less sure of an alike word than this does not know; the second for names of persons
and companies, of which it knows few, and writes others that it knows."""


@dataclass(frozen=True, slots=True)
class Near:
    """How much worse than what was heard the wanted words may fit the sound, for people to be asked.

    Differences of natural logarithms.
    """

    words: float
    digits: float
    """where digits differ, of which a recogniser's own text says little: only the sound tells them apart"""
    drawn: float
    """for words of chance"""


NEAR: Final = Near(14.0, 1.5, 10.5)
"""Each the middle of the bounds that do best on the tuning half of `benchmarks.statement_words --fit`."""


@dataclass(frozen=True, slots=True)
class HeardText:
    """What a recogniser heard."""

    text: str
    words: tuple[tuple[str, float], ...] = ()
    """its words with how sure the recogniser is of each, in [0, 1]; who says nothing is sure"""
    pieces: tuple[int, ...] = ()
    """how many of the words stand in each piece of the sound, in order; empty: all are in one"""


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


def match(statement: Statement, heard: HeardText, weigh: Weigh | None = None, near: Near = NEAR) -> Heard:
    """Whether a text says the statement: its critical parts word for word, the rest nearly so.

    `weigh` says of the sound how well texts fit it. It is asked about critical parts that were not heard, and
    would refuse the statement; its answer can only send them to people. What fits the sound at most `near`
    worse than what was heard there becomes a doubt. A statement that passes, passes by what was freely heard.
    """
    if len(heard.text) > LONGEST * len(statement.text):
        return Heard(False, "it has far more words than the statement", 1.0)
    comparison = _Comparison(statement, heard)
    if weigh is not None:
        comparison.weigh(weigh, near)
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
        self._text = statement.text
        self._parts = statement.parts
        self._wanted: list[str] = []
        self._own: list[range] = []
        for part in statement.parts:
            said = tokens(part.text, language)
            self._own.append(range(len(self._wanted), len(self._wanted) + len(said)))
            self._wanted += said
        self._chance = frozenset(fold(word) for word in LEXICA[language].words)
        hesitations = {fold(word) for word in LEXICA[language].hesitations} - set(self._wanted)
        self._heard = [word for word in tokens(heard.text, language) if word not in hesitations]
        self._told = heard
        self._sure: list[float] = [1.0] * len(self._heard)
        self._source: list[int | None] = [None] * len(self._heard)
        self._find_sources()
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
            self._mishear(own, self._parts[number])

    def _find_sources(self) -> None:
        """Which of the recogniser's words each heard one is of, and how sure it is of it.

        Of numbers that it wrote in several words it is quite sure, and they are of none.
        """
        told = [
            (word, at)
            for at, (said, _) in enumerate(self._told.words)
            for word in tokens(said, self._language)
        ]
        for at, other in align([word for word, _ in told], self._heard):
            if at is not None and other is not None and told[at][0] == self._heard[other]:
                self._source[other] = told[at][1]
                self._sure[other] = self._told.words[told[at][1]][1]

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

    def _mishear(self, own: range, part: Part) -> None:
        """Settles what was heard as something alike, and not surely.

        A digit is another one, or it is not; so is a word of chance that was heard in another's place.
        """
        others = self._chance if part.drawn else frozenset()
        for at in own:
            if self._at[at] is not None or self._wanted[at].isdigit():
                continue
            wanted, heard = self._around(range(at, at + 1))
            said = [self._heard[other] for other in heard]
            if self._spelt(wanted) == "".join(said):
                self._settle(wanted, heard)
                continue
            alike = SequenceMatcher(None, self._spelt(wanted), "".join(said), autojunk=False).ratio()
            unsure = said and min(self._sure[other] for other in heard) < UNSURE[part.proper]
            if unsure and alike >= ALIKE and others.isdisjoint(said):
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

    def weigh(self, weigh: Weigh, near: Near) -> None:
        """Settles as misheard what fits the sound nearly as well as what was heard in its place."""
        for part, wanted, heard, place, text in self._places():
            as_heard, as_wanted = place.fits([place.heard, text], weigh)
            digits = [
                [word for word in words if word.isdigit()]
                for words in (self._wanted[wanted.start : wanted.stop], self._heard[heard.start : heard.stop])
            ]
            most = near.digits if digits[0] != digits[1] else near.drawn if part.drawn else near.words
            if as_wanted > NEVER and as_wanted >= as_heard - most:
                self._misheard.append((place.heard, text))
                self._settle(wanted, heard)

    def _places(self) -> Iterator[tuple[Part, range, range, HeardPlace, str]]:
        """Critical parts that were not heard: (part, wanted words, heard words, their place, wanted text).

        Digits of chance are not among them, nor words of chance in whose place another of them was heard.
        """
        for number, own in self._critical.items():
            if not (self._missed(own) or any(at in self._added for at in own[1:])):
                continue
            spans = [range(at, at + 1) for at in own if self._at[at] is None]
            for span in spans if self._parts[number].drawn else [own]:
                if all(self._at[at] is not None for at in span) and self._parts[number].drawn:
                    continue  # settled with the word before it
                wanted, heard = self._around(span)
                text = self._written(wanted)
                place = self._place(heard)
                if text and place is not None and not self._is_drawn(wanted, heard):
                    yield self._parts[number], wanted, heard, place, text

    def _is_drawn(self, wanted: range, heard: range) -> bool:
        """Whether the words are digits of chance, or another word of chance was heard."""
        drawn = {
            self._wanted[at]
            for part, own in zip(self._parts, self._own, strict=True)
            for at in own
            if part.drawn and at in wanted
        }
        said = self._heard[heard.start : heard.stop]
        return any(map(str.isdigit, drawn)) or bool(drawn and not self._chance.isdisjoint(said))

    def _place(self, heard: range) -> HeardPlace | None:
        words = tuple(word for word, _ in self._told.words)
        before = self._source[heard.start - 1] if heard.start else -1
        after = self._source[heard.stop] if heard.stop < len(self._heard) else len(words)
        if before is None or after is None or before >= after:
            return None
        ends = list(itertools.accumulate(self._told.pieces or (len(words),)))
        pieces = tuple(itertools.starmap(range, itertools.pairwise([0, *ends])))
        return HeardPlace(words, pieces, before + 1, after)

    def _written(self, wanted: range) -> str:
        """The statement's own text of the wanted words; empty where they do not begin and end with words."""
        at, out = 0, []
        for word in self._text.split():
            count = len(tokens(word, self._language))
            if wanted.start <= at < wanted.stop:
                out.append(word)
            at += count
            if at >= wanted.stop:
                break
        text = " ".join(out)
        return text if tokens(text, self._language) == self._wanted[wanted.start : wanted.stop] else ""

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
        for words in self._added_together():
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

    def _added_together(self) -> Iterator[list[str]]:
        """Added words, as one where fewer than `ADDED` wanted words stand between: these may be theirs.

        Whoever puts in words that the statement has too is heard as adding the words around them, and as
        saying those of the statement twice.
        """
        together: list[str] = []
        last = 0
        for at, words in sorted(self._added.items()):
            if at >= last + ADDED and together:
                yield together
                together = []
            together = [*together, *words]
            last = at
        if together:
            yield together

    def _beside(self, own: range) -> list[str]:
        return [*self._added.get(own.start, ()), *self._added.get(own.stop, ())]

    def _is_more_of(self, own: range, added: str) -> bool:
        """Whether the word could be one more of the list: a digit, a word of chance, one said twice."""
        wanted = self._wanted[own.start : own.stop]
        return (
            added in wanted
            or (added.isdigit() and all(word.isdigit() for word in wanted))
            or (added in self._chance and self._chance.issuperset(wanted))
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
