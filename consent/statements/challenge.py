"""Challenges: a statement with random words and digits, to be read aloud soon and only once.

The challenge is signed, so neither its words nor its time can be changed in the database. It is used up in
the same transaction that keeps the registration.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select, update

from consent.archive.keys import SigningKey
from consent.archive.tables import CHALLENGES
from consent.errors import ChallengeError, GrantRefused
from consent.grants.grant import LEEWAY_S, GrantVerifier, sign
from consent.statements.lexicon import LEXICA
from consent.statements.statement import Statement, Terms, render

TYP: Final = "consent-challenge+jws"
LIFE_S: Final = 30 * 60.0
WORD_COUNT: Final = 4
DIGIT_COUNT: Final = 4
FORGET_S: Final = 30 * 24 * 3600.0
"""Used and expired challenges are remembered so long by their numbers, to say which of the two they are."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge. Times are seconds since the epoch."""

    challenge_id: str
    """ten digits: it can be dialled"""
    terms: Terms
    statement: Statement
    words: tuple[str, ...]
    digits: tuple[int, ...]
    issued_at: float
    expires_at: float
    registrar: str
    """who issued it: an operator, or `gateway`"""
    by_phone: bool
    """may be answered in a call"""


def issue(
    connection: Connection, signer: SigningKey, terms: Terms, *, registrar: str, by_phone: bool, now: float,
    life_s: float = LIFE_S,
) -> Challenge:  # fmt: skip
    """A fresh challenge, kept. Raises `RegistrationError` for terms that cannot be meant."""
    terms.check(datetime.fromtimestamp(now, UTC).date())
    choice = secrets.SystemRandom()
    claims: dict[str, Any] = {
        "jti": str(choice.randrange(10**9, 10**10)),
        "terms": terms.to_json(),
        "words": choice.sample(LEXICA[terms.spoken].words, WORD_COUNT),
        "digits": [choice.randrange(10) for _ in range(DIGIT_COUNT)],
        "registrar": registrar,
        "by_phone": by_phone,
        "iat": now,
        "exp": now + life_s,
    }
    row = {
        "challenge_id": claims["jti"],
        "token": sign(claims, signer.private, signer.kid, TYP),
        "expires_at": claims["exp"],
    }
    connection.execute(insert(CHALLENGES).values(row))
    return _challenge(claims)


def read(connection: Connection, verifier: GrantVerifier, challenge_id: str, now: float) -> Challenge:
    """A challenge that may still be used. Raises `ChallengeError` saying why not."""
    row = connection.execute(select(CHALLENGES).where(CHALLENGES.c.challenge_id == challenge_id[:32])).first()
    if row is None:
        raise ChallengeError(f"no challenge {challenge_id!r} was issued here")
    if row.used_at is not None:
        raise ChallengeError(f"the challenge {challenge_id} was used already; issue a new one")
    if row.token is None:  # `forget` has taken its words
        raise ChallengeError(f"the challenge {challenge_id} expired; issue a new one")
    try:
        challenge = _challenge(verifier.claims(row.token, TYP))
    except GrantRefused:
        raise ChallengeError(f"the challenge {challenge_id} was tampered with; issue a new one") from None
    if challenge.challenge_id != row.challenge_id:
        raise ChallengeError(f"the challenge {challenge_id} was tampered with; issue a new one")
    if now > challenge.expires_at:
        over_min = (now - challenge.expires_at) / 60
        raise ChallengeError(f"the challenge {challenge_id} expired {over_min:.0f} min ago; issue a new one")
    if now < challenge.issued_at - LEEWAY_S:
        raise ChallengeError(f"the challenge {challenge_id} is from the future: check the clock")
    return challenge


def use(connection: Connection, challenge_id: str, now: float) -> None:
    """Uses a challenge up; the first transaction wins. Raises `ChallengeError`."""
    changed = connection.execute(
        update(CHALLENGES)
        .where((CHALLENGES.c.challenge_id == challenge_id) & CHALLENGES.c.used_at.is_(None))
        .values(used_at=now, token=None)
    )
    if changed.rowcount != 1:
        raise ChallengeError(f"the challenge {challenge_id} was used already; issue a new one")


def of_person(connection: Connection, verifier: GrantVerifier, name: str) -> list[str]:
    """The ids of unused challenges for a person of this name, which they hold in the clear."""
    found = connection.execute(
        select(CHALLENGES.c.challenge_id, CHALLENGES.c.token).where(CHALLENGES.c.token.is_not(None))
    )
    mine = []
    for challenge_id, token in found:
        try:
            terms = verifier.claims(token, TYP)["terms"]
        except GrantRefused:
            continue  # not ours: it opens nothing, and `read` says so
        if str(terms["name"]).casefold() == name.casefold():
            mine.append(str(challenge_id))
    return mine


def remove(connection: Connection, challenge_ids: Sequence[str]) -> None:
    """Deletes challenges, used or not."""
    connection.execute(delete(CHALLENGES).where(CHALLENGES.c.challenge_id.in_(challenge_ids)))


def forget(connection: Connection, now: float) -> int:
    """Deletes what is long over, and the words and names of what is over; returns how many were deleted."""
    over = CHALLENGES.c.expires_at < now - LEEWAY_S
    connection.execute(update(CHALLENGES).where(over & CHALLENGES.c.token.is_not(None)).values(token=None))
    return connection.execute(delete(CHALLENGES).where(CHALLENGES.c.expires_at < now - FORGET_S)).rowcount


def _challenge(claims: dict[str, Any]) -> Challenge:
    terms = Terms.from_json(claims["terms"])
    words, digits = tuple(claims["words"]), tuple(claims["digits"])
    return Challenge(
        claims["jti"], terms, render(terms, words, digits), words, digits,
        float(claims["iat"]), float(claims["exp"]), claims["registrar"], bool(claims["by_phone"]),
    )  # fmt: skip
