"""Digits in what was said: as figures ("4111"), as words ("four one one one", "forty-one eleven", "double oh
seven"), in the five languages that callers are told things in.

Words are compared folded: lower case, without accents, "ß" as "ss".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Final

Phrase = tuple[str, ...]

_COUNTED: Final = frozenset(
    [
        "first", "next", "last", "final", "other", "remaining", "ersten", "nachsten", "letzten", "anderen",
        "premiers", "prochains", "suivants", "derniers", "autres", "primeros", "siguientes", "ultimos",
        "otros", "primi", "prime", "prossime", "seguenti", "ultime", "ultimi", "altre", "altri",
    ]
)  # fmt: skip
"""After these a number may say how many digits follow: "the next four are"."""
_TOKEN: Final = re.compile(r"\d+|[^\W\d_]+(?:['’][^\W\d_]+)*")
_WITHIN: Final = re.compile(r"[ \t\u00a0]+|-|\u2011|")
"""What may stand between the words of one number: "forty-one"."""
REPEATED: Final = ("2", "3", "4", "5", "6")
"""Times that a plural stands for: "four ones"."""
_SET_APART: Final = re.compile(
    r"""
    (?<![\d:.]) \d{1,2} : [0-5]\d (?: : [0-5]\d )? (?![\d:])                      # 10:30
    | [$€£¥₹] \s? \d+ (?: [.,] \d+ )*                                               # $1,200.50
    | \d+ (?: [.,] \d+ )* \s? [$€£¥₹%]                                              # 12 %
    | (?<!\d) (?: 0?[1-9] | [12]\d | 3[01] ) (?P<by>[./]) (?: 0?[1-9] | 1[0-2] ) (?P=by) (?:19|20)\d\d (?!\d)
    | (?<!\d) (?: 0?[1-9] | 1[0-2] ) / (?: 0?[1-9] | [12]\d | 3[01] ) / (?:19|20)\d\d (?!\d)
    | (?<!\d) (?:19|20)\d\d - (?: 0[1-9] | 1[0-2] ) - (?: 0[1-9] | [12]\d | 3[01] ) (?!\d)
    | (?<!\d) \d{1,3} (?: st | nd | rd | th | er | º | ª | ° ) \b                   # 3rd
    | (?<!\d) \d{1,2} \s? (?: [ap] \.? m \b \.? | h \b | uhr \b )                   # 5 p.m.
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Times, prices, shares, dates and ordinals as recognisers write them."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A word or a number of a text, where it stands there."""

    start: int
    end: int
    word: str
    """folded; empty for what is set apart as a time, a price or a date"""
    digits: str = ""
    """what it says as digits; empty: none"""
    sure: bool = True
    """it can be nothing but digits: not "one" or "un", which say other things too"""


@dataclass(frozen=True, slots=True)
class DigitWords:
    """One language's."""

    numbers: Mapping[Phrase, str]
    """0 to 99, each with its digits"""
    times: Mapping[str, int]
    """words that repeat the digit after them: "double" """
    plurals: Mapping[str, str]
    """words that the number before them repeats: "three sevens" """
    unsure: frozenset[str]
    """numbers that are other words, too"""
    alike: Mapping[str, str]
    """words that sound like digits, and are taken for them between digits only"""
    scales: Mapping[str, int]
    """"hundred", where such numbers are read"""


def folded(word: str) -> str:
    """The word as the tables have it."""
    plain = unicodedata.normalize("NFKD", word.casefold().replace("’", "'"))
    return "".join(sign for sign in plain if not unicodedata.combining(sign))


def _spelled(words: str) -> list[str]:
    return words.split()


def _from_zero(words: str) -> dict[Phrase, str]:
    """Numbers from 0 on; a word's other spellings stand behind a stroke."""
    return {(one,): str(value) for value, some in enumerate(words.split()) for one in some.split("|")}


def _with_units(
    numbers: dict[Phrase, str], tens: Mapping[str, int], joints: tuple[Phrase, ...], *, besides: int = 0
) -> None:
    """Adds "forty" and "forty one": a ten, a joint, and what is added to it (1 to 9; to 19 for tens in
    `besides`' way of counting)."""
    units = [(phrase, int(digits)) for phrase, digits in numbers.items() if 0 < int(digits) < 20]
    for ten, value in tens.items():
        base = tuple(ten.split())
        numbers[base] = str(value)
        most = 19 if value in (60, 80) and besides else 9
        for unit, more in units:
            if more <= most:
                for joint in joints:
                    numbers[(*base, *joint, *unit)] = str(value + more)


def _english() -> DigitWords:
    numbers = _from_zero(
        "zero|oh|o|nought|naught one two three four five six seven eight nine|niner ten eleven twelve "
        "thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
    )
    tens = _spelled("twenty thirty forty|fourty fifty sixty seventy eighty ninety")
    _with_units(numbers, {ten: 20 + 10 * k for k, some in enumerate(tens) for ten in some.split("|")}, ((),))
    plurals = _spelled("zeros|zeroes|ohs ones twos threes fours fives sixes sevens eights nines")
    return DigitWords(
        numbers,
        {"double": 2, "triple": 3, "treble": 3, "quadruple": 4},
        {word: str(value) for value, some in enumerate(plurals) for word in some.split("|")},
        frozenset({"one", "oh", "o"}),
        {"for": "4", "to": "2", "too": "2", "ate": "8", "won": "1"},
        {"hundred": 100, "thousand": 1000},
    )


def _german() -> DigitWords:
    numbers = _from_zero(
        "null eins|ein|eine zwei|zwo drei vier funf|fuenf sechs sieben acht neun zehn elf zwolf|zwoelf "
        "dreizehn vierzehn funfzehn|fuenfzehn sechzehn siebzehn achtzehn neunzehn"
    )
    tens = _spelled("zwanzig dreissig vierzig funfzig|fuenfzig sechzig siebzig achtzig neunzig")
    units = _spelled("ein zwei drei vier funf|fuenf sechs sieben acht neun")
    for k, some in enumerate(tens, 2):
        for ten in some.split("|"):
            numbers[(ten,)] = str(10 * k)
            for value, ones in enumerate(units, 1):
                for one in ones.split("|"):
                    numbers[(f"{one}und{ten}",)] = numbers[(one, "und", ten)] = str(10 * k + value)
    times = {"doppel": 2, "doppelte": 2, "zweimal": 2, "dreimal": 3, "viermal": 4}
    return DigitWords(numbers, times, {}, frozenset({"ein", "eine"}), {}, {})


def _french() -> DigitWords:
    numbers = _from_zero(
        "zero un|une deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize"
    )
    for unit, value in (("sept", 17), ("huit", 18), ("neuf", 19)):
        numbers["dix", unit] = str(value)
    tens = {"vingt": 20, "trente": 30, "quarante": 40, "cinquante": 50, "soixante": 60, "septante": 70}
    tens |= {"huitante": 80, "octante": 80, "nonante": 90, "quatre vingt": 80, "quatre vingts": 80}
    _with_units(numbers, tens, ((), ("et",)), besides=1)
    return DigitWords(numbers, {"double": 2, "triple": 3}, {}, frozenset({"un", "une"}), {}, {})


def _spanish() -> DigitWords:
    numbers = _from_zero(
        "cero uno|un|una dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince "
        "dieciseis diecisiete dieciocho diecinueve veinte veintiuno|veintiun|veintiuna veintidos veintitres "
        "veinticuatro veinticinco veintiseis veintisiete veintiocho veintinueve"
    )
    tens = _spelled("treinta cuarenta cincuenta sesenta setenta ochenta noventa")
    _with_units(numbers, {ten: 30 + 10 * k for k, ten in enumerate(tens)}, (("y",), ()))
    return DigitWords(numbers, {"doble": 2, "triple": 3}, {}, frozenset({"un", "una", "uno"}), {}, {})


def _italian() -> DigitWords:
    numbers = _from_zero(
        "zero uno|un|una due tre quattro cinque sei sette otto nove dieci undici dodici tredici quattordici "
        "quindici sedici diciassette diciotto diciannove"
    )
    units = _spelled("uno due tre quattro cinque sei sette otto nove")
    tens = _spelled("venti trenta quaranta cinquanta sessanta settanta ottanta novanta")
    for k, ten in enumerate(tens, 2):
        numbers[(ten,)] = str(10 * k)
        for value, unit in enumerate(units, 1):
            stem = ten[:-1] if unit in ("uno", "otto") else ten
            numbers[(stem + unit,)] = numbers[ten, unit] = str(10 * k + value)
    return DigitWords(
        numbers, {"doppio": 2, "doppia": 2, "triplo": 3}, {}, frozenset({"un", "una", "uno", "sei"}), {}, {}
    )


_LANGUAGES: Final = {"en": _english, "de": _german, "fr": _french, "es": _spanish, "it": _italian}


@cache
def digit_words(language: str) -> DigitWords:
    """A language's table (ISO 639-1, or a tag that begins so); English where there is none."""
    return _LANGUAGES.get(language[:2].lower(), _english)()


def read_digits(text: str, language: str) -> list[Piece]:
    """The words and numbers of `text`, in order."""
    apart = [found.span() for found in _SET_APART.finditer(text)]
    tokens = []
    for found in _TOKEN.finditer(text):
        start, end = found.span()
        word = "" if any(a <= start and end <= b for a, b in apart) else folded(found[0])
        tokens.append(Piece(start, end, word))
    return _Reader(text, tokens, digit_words(language)).read()


class _Reader:
    """Goes over the tokens of one text."""

    def __init__(self, text: str, tokens: list[Piece], words: DigitWords) -> None:
        self._text = text
        self._tokens = tokens
        self._words = words
        self._longest = max(map(len, words.numbers))

    def read(self) -> list[Piece]:
        pieces: list[Piece] = []
        at = 0
        while at < len(self._tokens):
            piece, at = self._number(at) or (self._tokens[at], at + 1)
            pieces.append(piece)
        return self._doubted(pieces)

    def _number(self, at: int) -> tuple[Piece, int] | None:
        """The number that begins at a token, and the token after it."""
        times = self._words.times.get(self._tokens[at].word, 0)
        if times and at + 1 < len(self._tokens):
            repeated = self._plain(at + 2 if self._tokens[at + 1].word in ("die", "the", "le") else at + 1)
            if repeated is not None and len(repeated[0].digits) == 1:
                return self._piece(at, repeated[1], repeated[0].digits * times)
        found = self._plain(at)
        if found is None:
            return None
        piece, after = found
        if after < len(self._tokens) and piece.digits in REPEATED:
            unit = self._words.plurals.get(self._tokens[after].word, "")
            if unit:
                return self._piece(at, after + 1, unit * int(piece.digits))
        return self._large(at, piece, after)

    def _plain(self, at: int) -> tuple[Piece, int] | None:
        """Figures, or the longest of the language's numbers."""
        if at >= len(self._tokens):
            return None
        token = self._tokens[at]
        if token.word.isdecimal():
            digits = "".join(str(unicodedata.digit(sign)) for sign in token.word)
            return Piece(token.start, token.end, token.word, digits), at + 1
        for length in range(min(self._longest, len(self._tokens) - at), 0, -1):
            phrase = tuple(token.word for token in self._tokens[at : at + length])
            digits = self._words.numbers.get(phrase, "")
            if digits and self._close(at, at + length):
                return self._piece(at, at + length, digits, sure=phrase[0] not in self._words.unsure)
        return None

    def _large(self, at: int, piece: Piece, after: int) -> tuple[Piece, int]:
        """A number with its hundreds and thousands: "four thousand one hundred and eleven"."""
        scales = self._words.scales
        total, part, scaled = 0, int(piece.digits), False
        while after < len(self._tokens) and self._close(after - 1, after + 1):
            scale = scales.get(self._tokens[after].word, 0)
            joint = 1 if scaled and self._tokens[after].word == "and" else 0
            more = self._plain(after + joint) if scaled and part % 100 == 0 else None
            if scale and 0 < part < scale:
                total, part = (total + part * scale, 0) if scale == 1000 else (total, part * scale)
                after += 1
            elif more is not None and more[0].digits[0] != "0" and len(more[0].digits) < 3:
                part, after = part + int(more[0].digits), more[1]
            else:
                break
            scaled = True
        return self._piece(at, after, str(total + part)) if scaled else (piece, after)

    def _close(self, at: int, after: int) -> bool:
        """Nothing but blanks and hyphens stands between these tokens."""
        tokens = self._tokens[at:after]
        between = [self._text[a.end : b.start] for a, b in pairwise(tokens)]
        return all(_WITHIN.fullmatch(gap) for gap in between)

    def _piece(self, at: int, after: int, digits: str, *, sure: bool = True) -> tuple[Piece, int]:
        tokens = self._tokens[at:after]
        word = " ".join(token.word for token in tokens)
        return Piece(tokens[0].start, tokens[-1].end, word, digits, sure), after

    def _doubted(self, pieces: list[Piece]) -> list[Piece]:
        """What may be a digit or another word: "four one for two", "the last four"."""
        told = list(pieces)
        for at, (before, piece) in enumerate(pairwise(pieces), 1):
            digits = self._words.alike.get(piece.word, "")
            if digits and before.digits and at + 1 < len(pieces) and pieces[at + 1].digits:
                told[at] = replace(piece, digits=digits, sure=False)
            elif before.word in _COUNTED and len(piece.digits) == 1:
                told[at] = replace(piece, sure=False)
        return told
