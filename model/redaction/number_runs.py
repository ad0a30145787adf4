"""Digits that belong together: said one after another, with nothing between but pauses and hesitations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from model.redaction.account_numbers import CARD_DIGITS, holds_card, is_issued_card
from model.redaction.number_subjects import NumberSubject, nearest_subject
from model.redaction.spoken_digits import Piece


def _words(several: str) -> frozenset[str]:
    return frozenset(several.split())


LINKS: Final = _words(
    "um uh er erm ah eh hm hmm mm mhm uhm okay ok "
    "and then next dash hyphen minus space slash so well yes yeah right wait sorry let me see again like "
    "und dann strich bindestrich also ja gut moment ahm oh "
    "et puis tiret alors oui euh donc attendez "
    "y luego guion entonces si pues este bueno espere "
    "e poi trattino allora ecco aspetti"
)
"""Words that stand between the digits of one number. ("oh" is a zero in English before it comes to this.)"""
_STOP: Final = re.compile(r"[,;.!?]|\b(?:and|or|und|oder|et|ou|y|o|e)\b", re.IGNORECASE)
_PLUS: Final = re.compile(r"(?:\+|\bplus)\s*$", re.IGNORECASE)
_MEASURES: Final = _words(
    "dollar dollars euro euros pound pounds cent cents pence bucks percent degrees "
    "second seconds minute minutes hour hours day days week weeks month months year years o'clock am pm "
    "people persons times miles kilometers kilometres meters metres kilos grams "
    "prozent grad sekunden minute minuten stunde stunden tag tage tagen woche wochen monat monate jahr jahre "
    "jahren uhr personen leute mal "
    "pourcent heure heures jour jours semaine semaines mois an ans personnes fois "
    "por ciento hora horas minutos dia dias semana semanas mes meses ano anos personas veces "
    "percento ora ore minuti giorno giorni settimana settimane mese mesi anno anni persone volte"
)
TELEPHONES: Final = range(7, 13)
"""Digits of a telephone number without its country."""
MOST_ABROAD: Final = 15
"""Digits of one with its country (ITU-T E.164)."""
SHORT: Final = 6
"""Digits of what may be a quantity."""
_THOUSANDS: Final = re.compile(r"\d{1,3}(?:[.,]\d{3})+")


@dataclass(frozen=True, slots=True, eq=False)
class NumberRun:
    """One of a text's. `pieces` hold digits, all of them, in order."""

    pieces: tuple[Piece, ...]
    digits: str
    subject: NumberSubject | None
    """what the words around it say that it is"""
    abroad: bool
    """it begins as telephone numbers with a country do: "+", "00" """
    measured: bool
    """a quantity: "20 minutes" """
    segments: tuple[int, ...]
    """how many digits stand between its commas"""

    @property
    def start(self) -> int:
        """Where it begins in its text."""
        return self.pieces[0].start

    @property
    def end(self) -> int:
        """Where it ends in its text."""
        return self.pieces[-1].end

    @property
    def is_aside(self) -> bool:
        """One word that may be a digit, alone among others: "that one"."""
        return len(self.pieces) == 1 and not self.pieces[0].sure

    @property
    def is_too_long(self) -> bool:
        """As long as a card's number, and nothing else that is as long."""
        if len(self.digits) < CARD_DIGITS.start:
            return False
        if is_issued_card(self.digits):
            return True
        return not (self._is_telephone or self._is_several_telephones or self._is_list)

    @property
    def holds_card(self) -> bool:
        """Whether a card's check digit fits."""
        return holds_card(self.digits)

    @property
    def _is_telephone(self) -> bool:
        most = MOST_ABROAD + (2 if self.digits.startswith("00") else 0)
        told = self.subject is NumberSubject.TELEPHONE and self.digits.startswith("0")
        return (self.abroad or told) and len(self.digits) <= most

    @property
    def _is_several_telephones(self) -> bool:
        if len(self.segments) > 1 and all(size in TELEPHONES for size in self.segments):
            return True
        for size in TELEPHONES:  # one that is said twice
            times, rest = divmod(len(self.digits), size)
            if not rest and times > 1 and self.digits == self.digits[:size] * times and size != 8:
                return True
        return False

    @property
    def _is_list(self) -> bool:
        values = [int(piece.digits) for piece in self.pieces]
        if all(len(piece.digits) == 4 and 1900 <= int(piece.digits) < 2100 for piece in self.pieces):
            return True
        rises = all(a < b for a, b in pairwise(values))
        return rises and all(len(piece.digits) < 3 for piece in self.pieces)


def number_runs(text: str, pieces: Sequence[Piece]) -> list[NumberRun]:
    """The runs of `text`, of which `pieces` are what `read_digits` read."""
    runs: list[NumberRun] = []
    open_: list[int] = []
    for at, piece in enumerate(pieces):
        if piece.digits:
            open_.append(at)
        elif piece.word not in LINKS:
            _close(text, pieces, open_, runs)
    _close(text, pieces, open_, runs)
    return runs


def _close(text: str, pieces: Sequence[Piece], open_: list[int], runs: list[NumberRun]) -> None:
    if not open_:
        return
    own = tuple(pieces[at] for at in open_)
    first, last = open_[0], open_[-1]
    digits = "".join(piece.digits for piece in own)
    before, after = [one.word for one in pieces[:first]][::-1], [one.word for one in pieces[last + 1 :]]
    follows = text[own[-1].end : pieces[last + 1].start] if after else "."
    stops = [_STOP.search(text[a.end : b.start]) is not None for a, b in pairwise(own)]
    segments = [0]
    for piece, stop in zip(own, [False, *stops], strict=True):
        if stop:
            segments.append(0)
        segments[-1] += len(piece.digits)
    runs.append(
        NumberRun(
            own,
            digits,
            nearest_subject(before, after),
            _PLUS.search(text[: own[0].start]) is not None or digits.startswith("00"),
            len(digits) <= SHORT and _is_quantity(text, own, after[0] if not follows.strip() else ""),
            tuple(segments),
        )
    )
    open_.clear()


def _is_quantity(text: str, own: Sequence[Piece], following: str) -> bool:
    """Whether a short number is an amount: "20 minutes", "25,000", "five hundred"."""
    if following in _MEASURES or _THOUSANDS.fullmatch(text[own[0].start : own[-1].end]):
        return True
    return len(own) == 1 and " " in own[0].word and own[0].digits.endswith("00")
