"""Grants that opened an engine's session, in SQL beside the registry: each id opens one, over all engines.

A grant's id (`jti`) is redeemed by a connection that an engine names. Another connection, at the same engine
or another one, is refused for as long as a token with that id could be valid. The methods block, as the
registry's do.
"""

from __future__ import annotations

import time
from typing import Final

from sqlalchemy import Column, Index, String, Table, delete, insert, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from consent.archive.database import first_line
from gateway.store.call_tables import METADATA, Instant
from gateway.store.registry import Registry, RegistryError

KEPT_S: Final = 2 * 86_400.0
"""Longer than any call, and so than any renewal of its grant."""

REDEEMED: Final = Table(
    "redeemed_grants",
    METADATA,
    Column("jti", String(64), primary_key=True),
    Column("connection", String(64), nullable=False),
    Column("at", Instant, nullable=False),
    Index("redeemed_grants_by_time", "at"),
)


class RedeemedGrants:
    """The table of one registry's database. `open` makes it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def open(self) -> None:
        """Makes the table when it is not there. Raises `RegistryError`."""
        try:
            REDEEMED.create(self._registry.engine, checkfirst=True)
        except SQLAlchemyError as error:
            raise RegistryError(f"the table of redeemed grants was not made: {first_line(error)}") from None

    def redeem(self, jti: str, connection: str) -> bool:
        """Whether the grant is this connection's from now on, or is so already. Raises `RegistryError`."""
        now = time.time()
        try:
            with self._registry.writing() as database:
                database.execute(delete(REDEEMED).where(REDEEMED.c.at < now - KEPT_S))
                database.execute(insert(REDEEMED).values(jti=jti, connection=connection, at=now))
            return True
        except IntegrityError:
            return self._holder(jti) == connection
        except SQLAlchemyError as error:
            raise RegistryError(f"a grant was not redeemed: {first_line(error)}") from None

    def give_back(self, jti: str, connection: str) -> None:
        """The connection opened no session: another may redeem the grant. Raises `RegistryError`."""
        try:
            with self._registry.writing() as database:
                ours = (REDEEMED.c.jti == jti) & (REDEEMED.c.connection == connection)
                database.execute(delete(REDEEMED).where(ours))
        except SQLAlchemyError as error:
            raise RegistryError(f"a grant was not given back: {first_line(error)}") from None

    def _holder(self, jti: str) -> str | None:
        try:
            with self._registry.engine.connect() as database:
                return database.scalar(select(REDEEMED.c.connection).where(REDEEMED.c.jti == jti))
        except SQLAlchemyError as error:
            raise RegistryError(f"a grant was not redeemed: {first_line(error)}") from None
