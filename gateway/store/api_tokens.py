"""Tokens of the page and the API, in SQL beside the registry: what each is good for, until when, who made it.

A token reads vgt_ID_SECRET. The id finds its row and may be known to everybody; of the secret (256 bits by
chance) only the SHA-256 is kept. A row is never deleted: one that was revoked says by whom and when. The
methods block, as the registry's do.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, String, Table, func, insert, inspect, select, update
from sqlalchemy.exc import SQLAlchemyError

from consent.archive.database import first_line
from gateway.errors import VoicegateError
from gateway.store.call_tables import METADATA, Instant
from gateway.store.registry import Registry, RegistryError

FORM: Final = re.compile(r"vgt_([a-z2-7]{10})_([A-Za-z0-9_-]{43})", re.ASCII)
ID: Final = re.compile(r"[a-z2-7]{10}", re.ASCII)
_IN_IDS: Final = "abcdefghijklmnopqrstuvwxyz234567"
LONGEST_NAME: Final = 64
LONGEST_S: Final = 366 * 86_400.0
"""No token lives for longer than a year."""
MOST: Final = 1000
"""Tokens that hold at once."""
USE_NOTED_S: Final = 60.0
"""How exactly it is kept when a token was last used: a row is not written for each request."""

TOKENS: Final = Table(
    "api_tokens",
    METADATA,
    Column("token_id", String(16), primary_key=True),
    Column("name", String(LONGEST_NAME), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("role", String(32), nullable=False),
    Column("made_by", String(128), nullable=False),
    Column("made_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("revoked_by", String(128)),
    Column("revoked_at", Instant),
    Column("used_at", Instant),
    Column("used_from", String(128)),
)
_SHOWN: Final = [column for column in TOKENS.columns if column.name != "sha256"]


class TokenError(VoicegateError):
    """A token cannot be made or revoked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiToken:
    """What is known of a token, without its secret. Times are seconds since the epoch."""

    token_id: str
    name: str
    role: str
    made_by: str
    made_at: float
    expires_at: float
    revoked_by: str | None = None
    revoked_at: float | None = None
    used_at: float | None = None
    used_from: str | None = None

    def holds(self, now: float | None = None) -> bool:
        """Whether it was not revoked and has not expired."""
        return self.revoked_at is None and (time.time() if now is None else now) < self.expires_at

    @property
    def state(self) -> str:
        """`holds`, `revoked` or `expired`."""
        return "holds" if self.holds() else "revoked" if self.revoked_at is not None else "expired"

    def to_json(self) -> dict[str, Any]:
        """The fields by name, and its state."""
        return {**{name: getattr(self, name) for name in self.__dataclass_fields__}, "state": self.state}


class ApiTokens:
    """The table of one registry's database. `open` makes it; without it no token is known."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def open(self) -> None:
        """Makes the table when it is not there. Raises `RegistryError`."""
        try:
            TOKENS.create(self._registry.engine, checkfirst=True)
        except SQLAlchemyError as error:
            raise RegistryError(f"the table of tokens was not made: {first_line(error)}") from None

    def make(self, name: str, role: str, lives_s: float, made_by: str) -> tuple[ApiToken, str]:
        """A new token: what is known of it, and the secret text, which nobody can show again.

        Raises `TokenError` for a name or a life that cannot be, `RegistryError`.
        """
        if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
            raise TokenError(f"a token's name has 1 to {LONGEST_NAME} characters that can be printed")
        if not 1 <= lives_s <= LONGEST_S:
            raise TokenError(f"a token lives for 1 s to {LONGEST_S / 86_400:.0f} days")
        now = round(time.time(), 3)  # as exactly as any database keeps it
        token_id, secret = "".join(secrets.choice(_IN_IDS) for _ in range(10)), secrets.token_urlsafe(32)
        made = ApiToken(
            token_id=token_id, name=name, role=role, made_by=made_by[:128], made_at=now,
            expires_at=now + lives_s,
        )  # fmt: skip
        row = {name: getattr(made, name) for name in made.__dataclass_fields__}
        try:
            with self._registry.writing() as database:
                holding = select(func.count()).where(TOKENS.c.revoked_at.is_(None), TOKENS.c.expires_at > now)
                if database.execute(holding).scalar_one() >= MOST:
                    raise TokenError(f"there are {MOST} tokens; revoke those that nobody uses")
                database.execute(insert(TOKENS).values(**row, sha256=_hash(secret)))
        except SQLAlchemyError as error:
            raise RegistryError(f"the token was not made: {first_line(error)}") from None
        return made, f"vgt_{token_id}_{secret}"

    def of(self, text: str) -> ApiToken | None:
        """The token that this text is, whether it holds or not; else None. Raises `RegistryError`."""
        found = FORM.fullmatch(text)
        if found is None:
            return None
        row = self._row(found[1])
        kept = "0" * 64 if row is None else str(row["sha256"])
        if not hmac.compare_digest(_hash(found[2]), kept) or row is None:
            return None
        return _token(row)

    def get(self, token_id: str) -> ApiToken | None:
        """The token of that id; None when there is none. Raises `RegistryError`."""
        row = self._row(token_id) if ID.fullmatch(token_id) else None
        return None if row is None else _token(row)

    def listed(self) -> list[ApiToken]:
        """All there ever were, the newest first. Raises `RegistryError`."""
        try:
            if not inspect(self._registry.engine).has_table(TOKENS.name):
                return []
            with self._registry.engine.connect() as database:
                newest = select(*_SHOWN).order_by(TOKENS.c.made_at.desc(), TOKENS.c.token_id)
                return [ApiToken(**row._mapping) for row in database.execute(newest)]
        except SQLAlchemyError as error:
            raise RegistryError(f"the tokens cannot be read: {first_line(error)}") from None

    def revoke(self, token_id: str, revoked_by: str) -> bool:
        """From now on it opens nothing. False when it did not hold (any more). Raises `RegistryError`."""
        holding = (TOKENS.c.token_id == token_id) & TOKENS.c.revoked_at.is_(None)
        over = update(TOKENS).where(holding).values(revoked_at=time.time(), revoked_by=revoked_by[:128])
        try:
            with self._registry.writing() as database:
                return bool(database.execute(over).rowcount)
        except SQLAlchemyError as error:
            raise RegistryError(f"the token was not revoked: {first_line(error)}") from None

    def revoke_oldest(self, name: str, made_by: str, keep: int) -> None:
        """Of the tokens of that name that he made, so many of the newest go on. Raises `RegistryError`."""
        theirs = (TOKENS.c.name == name) & (TOKENS.c.made_by == made_by) & TOKENS.c.revoked_at.is_(None)
        newest = select(TOKENS.c.token_id).where(theirs, TOKENS.c.expires_at > time.time())
        newest = newest.order_by(TOKENS.c.made_at.desc()).offset(keep)
        try:
            with self._registry.writing() as database:
                ids = list(database.execute(newest).scalars())
                over = update(TOKENS).where(TOKENS.c.token_id.in_(ids))
                if ids:
                    database.execute(over.values(revoked_at=time.time(), revoked_by="a later login"))
        except SQLAlchemyError as error:
            raise RegistryError(f"tokens were not revoked: {first_line(error)}") from None

    def used(self, token: ApiToken, source: str) -> None:
        """Notes that it was used now, unless that was noted a moment ago. Raises `RegistryError`."""
        now = time.time()
        if token.used_at is not None and 0 <= now - token.used_at < USE_NOTED_S:
            return
        noted = update(TOKENS).where(TOKENS.c.token_id == token.token_id)
        try:
            with self._registry.writing() as database:
                database.execute(noted.values(used_at=now, used_from=source[:128]))
        except SQLAlchemyError as error:
            raise RegistryError(f"a token's use was not noted: {first_line(error)}") from None

    def _row(self, token_id: str) -> dict[str, Any] | None:
        try:
            with self._registry.engine.connect() as database:
                row = database.execute(select(TOKENS).where(TOKENS.c.token_id == token_id)).one_or_none()
        except SQLAlchemyError as error:
            raise RegistryError(f"the tokens cannot be read: {first_line(error)}") from None
        return None if row is None else dict(row._mapping)


def _token(row: dict[str, Any]) -> ApiToken:
    return ApiToken(**{name: row[name] for name in ApiToken.__dataclass_fields__})


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
