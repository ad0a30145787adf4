"""What makes a number one of a card or of an account: its length, its issuer, its check digits."""

from __future__ import annotations

from typing import Final

CARD_DIGITS: Final = range(13, 20)
"""ISO/IEC 7812-1 allows 19 at most; nobody issues fewer than 13."""
IBAN_DIGITS: Final = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24,
    "FI": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21,
    "HU": 28, "IE": 22, "IL": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LI": 21,
    "LT": 20, "LU": 20, "LV": 21, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30,
    "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24,
    "SE": 24, "SI": 19, "SK": 24, "SM": 27, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "XK": 20,
}  # fmt: skip
"""Signs of an IBAN by country (ISO 13616-1)."""


def passes_luhn(digits: str) -> bool:
    """The check digit of cards (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, sign in enumerate(reversed(digits)):
        value = int(sign) * (1 + place % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


def holds_card(digits: str) -> bool:
    """Whether some 13 to 19 of these digits, one after another, pass Luhn's check."""
    return any(
        passes_luhn(digits[at : at + length])
        for length in CARD_DIGITS
        for at in range(len(digits) - length + 1)
    )


def lengths_issued(beginning: str) -> tuple[int, ...]:
    """How many digits those cards have whose number begins with these four; none: nobody issues such."""
    two, three, four = int(beginning[:2]), int(beginning[:3]), int(beginning[:4])
    if two in (34, 37):
        return (15,)
    if 51 <= two <= 55 or 2221 <= four <= 2720 or 2200 <= four <= 2205 or 3528 <= four <= 3589:
        return (16,)
    if two in (36, 38, 39) or 300 <= three <= 305:
        return (14, 16)
    if beginning[0] == "4":
        return (16, 19)
    if beginning[0] == "6" or two == 50 or 56 <= two <= 58 or two == 81 or four == 9792:
        return (16, 17, 18, 19)
    return ()


def is_issued_card(digits: str) -> bool:
    """Whether these are all digits of a card that somebody issues."""
    return len(digits) in CARD_DIGITS and len(digits) in lengths_issued(digits[:4]) and passes_luhn(digits)


def is_iban(signs: str) -> bool:
    """Whether these capitals and digits are all of an IBAN (ISO 13616-1; ISO/IEC 7064, mod 97-10)."""
    if IBAN_DIGITS.get(signs[:2]) != len(signs) or not signs[2:4].isdecimal():
        return False
    return int("".join(str(int(sign, 36)) for sign in signs[4:] + signs[:4])) % 97 == 1
