"""What a number is said to be, by the words beside it: of an account, a secret, a telephone, something else.

Words are folded (`model.redaction.spoken_digits`), in the five languages together: none of them means one
thing here and another there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Final


class NumberSubject(Enum):
    """What a number may be."""

    ACCOUNT = "account"
    """of a card or an account: not kept from `LEAST_DIGITS` on"""
    CODE = "code"
    """a card's or a person's secret: not kept"""
    SOME_CODE = "some code"
    """a door's, a voucher's; a card's where one was just named: not kept then"""
    TELEPHONE = "telephone"
    OTHER = "other"
    """an order, a ticket, a postcode: it stays"""


LEAST_DIGITS: Final = {NumberSubject.ACCOUNT: 5, NumberSubject.CODE: 3, NumberSubject.SOME_CODE: 3}
"""Digits from which on a number of that kind is not kept; four tell one account from another, and no more."""
SECRETS: Final = (NumberSubject.CODE, NumberSubject.SOME_CODE)
REACH: Final = 7
"""Words before a number that may say what it is."""
REACH_BACK: Final = 5
"""Words after it that may: "12345678 is my account number"."""


def _words(several: str) -> frozenset[str]:
    return frozenset(several.split())


_WORDS: Final = {
    NumberSubject.ACCOUNT: _words(
        "account accounts acct card cards credit debit visa mastercard maestro amex iban routing sort bank "
        "ssn "
        "konto blz bankleitzahl bank bankverbindung "
        "compte comptes carte cartes rib banque bancaire "
        "cuenta tarjeta clabe banco bancaria "
        "conto carta banca bancomat"
    ),
    NumberSubject.CODE: _words(
        "cvv cvv2 cvc cvc2 csc pin passcode password "
        "prufziffer prufnummer sicherheitscode kennwort geheimzahl "
        "cryptogramme secret "
        "clave contrasena "
        "segreto"
    ),
    NumberSubject.SOME_CODE: _words("code codes kode codigo codice"),
    NumberSubject.TELEPHONE: _words(
        "phone telephone mobile cell cellphone call reach fax tel dial ring extension whatsapp "
        "telefon telefonnummer handy handynummer rufnummer mobilnummer durchwahl "
        "telephone portable appeler joindre fixe "
        "telefono movil celular llamar fijo "
        "cellulare chiamare chiamarmi fisso"
    ),
    NumberSubject.OTHER: _words(
        "order orders booking reservation reference ticket invoice tracking parcel case customer member "
        "membership policy flight train bus room house street zip zipcode postcode postal year born birthday "
        "birth serial part model charge charged paid pay cost costs price balance owe transfer transferred "
        "amount sum "
        "bestellung bestellnummer auftrag auftragsnummer buchung rechnung rechnungsnummer kundennummer "
        "vorgang postleitzahl plz geboren geburtstag hausnummer zimmer "
        "commande reservation dossier facture client postal ne naissance chambre "
        "pedido reserva factura cliente nacimiento habitacion "
        "ordine prenotazione fattura cliente cap nascita camera"
    ),
}
_STEMS: Final = ("konto", "karte", "iban")
"""German joins words: "Kreditkartennummer" is a card's."""
_SECURITY: Final = frozenset({"security", "securite", "seguridad", "sicurezza"})
_ITS_CODE: Final = frozenset({"code", "number", "numero", "codigo", "codice"})
"""A "security code" is a secret; a "security guard" is not."""


def is_hidden(subject: NumberSubject | None, digits: int, *, card_named: bool) -> bool:
    """Whether a number of that kind, with so many digits, is not kept. `card_named`: a card's was said."""
    if subject not in LEAST_DIGITS or (subject is NumberSubject.SOME_CODE and not card_named):
        return False
    return digits >= LEAST_DIGITS[subject]


def subject_of(word: str) -> NumberSubject | None:
    """What a number beside this word may be."""
    for subject, words in _WORDS.items():
        if word in words:
            return subject
    return NumberSubject.ACCOUNT if any(stem in word for stem in _STEMS) else None


def nearest_subject(before: Sequence[str], after: Sequence[str]) -> NumberSubject | None:
    """What the words around a number say that it is; `before` in the order from the number on, backwards."""
    for subject in _subjects(before[:REACH]):
        return subject
    for subject in _subjects(after[:REACH_BACK]):
        if subject in LEAST_DIGITS:
            return subject
    return None


def asked_subject(question: Sequence[str]) -> NumberSubject | None:
    """What number a question asks for, as far as it is not kept: an account's or a secret."""
    subjects = list(_subjects(question))
    return next((subject for subject in LEAST_DIGITS if subject in subjects), None)


def _subjects(words: Sequence[str]) -> Iterator[NumberSubject]:
    for at, word in enumerate(words):
        beside = words[max(0, at - 3) : at + 4]
        if word in _ITS_CODE and "sort" in beside:
            yield NumberSubject.ACCOUNT
        elif (word in _SECURITY and not _ITS_CODE.isdisjoint(beside)) or (
            word in _ITS_CODE and not _SECURITY.isdisjoint(beside)
        ):
            yield NumberSubject.CODE
        elif (subject := subject_of(word)) is not None:
            yield subject
