"""The owner's PIN: kept only as a sealed scrypt hash, tried only so often.

A try is counted before it is compared, so that many calls at once get no more tries than one. It is a row of
the ledger that counts it: a table beside the ledger could be emptied by whoever can write SQL. Since locks
grow to a day, a guesser adds few rows. Locking keeps guessers out, and with them the owner for that time: an
operator can revoke meanwhile.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from itertools import pairwise
from typing import Final

from consent.errors import PinRefused, RegistrationError
from consent.ledger.writing import Writing

LENGTH: Final = (6, 12)
TRIES: Final = 5
"""Wrong ones in a row before the voice's PIN is locked."""
LOCK_S: Final = 900.0
"""The first lock; each further wrong try doubles it, to a day at most."""
LONGEST_LOCK_S: Final = 86_400.0
SALT: Final = 16
NOBODYS: Final = bytes(SALT + 32)
"""A hash that no PIN has, compared where there is none, so that it takes as long."""


def check_form(pin: str) -> None:
    """Raises `RegistrationError` for a PIN that a telephone cannot send or anybody would guess."""
    if not (pin.isascii() and pin.isdigit() and LENGTH[0] <= len(pin) <= LENGTH[1]):
        raise RegistrationError("pin", f"a PIN has {LENGTH[0]} to {LENGTH[1]} digits")
    steps = {int(b) - int(a) for a, b in pairwise(pin)}
    if len(steps) == 1 and steps <= {0, 1, -1}:
        raise RegistrationError("pin", "this PIN is too easy to guess")


def hash_pin(pin: str) -> bytes:
    """Salt and scrypt hash (RFC 7914), 48 bytes."""
    salt = os.urandom(SALT)
    return salt + _scrypt(pin, salt)


def _scrypt(pin: str, salt: bytes) -> bytes:
    return hashlib.scrypt(pin.encode(), salt=salt, n=1 << 14, r=8, p=1, dklen=32)


def matches(pin: str, kept: bytes) -> bool:
    """Whether a PIN has this hash; it takes as long either way."""
    return hmac.compare_digest(_scrypt(pin[: LENGTH[1] + 1], kept[:SALT]), kept[SALT:])


def count_try(writing: Writing, voice_id: str, now: float) -> float:
    """Counts one try, as a ledger row, until `clear` says that it was right; returns the lock that it begins.

    The lock is in seconds, 0 for none. Raises `PinRefused` while locked: then nothing is to be compared.
    """
    voice = writing.standing.voices[voice_id]
    left_s = voice.pin_locked_ms / 1000 - now
    if left_s > 0:
        raise PinRefused(f"too many wrong PINs; try again in {left_s / 60:.0f} min", left_s)
    tries = voice.pin_tries + 1
    lock_s = min(LONGEST_LOCK_S, LOCK_S * 2.0 ** min(20, tries - TRIES)) if tries >= TRIES else 0.0
    if lock_s:
        writing.append("pin.locked", voice_id, {"tries": tries, "for_s": lock_s})
    else:
        writing.append("pin.tried", voice_id, {"tries": tries})
    return lock_s


def clear(writing: Writing, voice_id: str) -> None:
    """The PIN was right: tries begin anew."""
    writing.append("pin.opened", voice_id, {})
