"""The grants of calls in SQL, beside the registry: which routes a call was spoken to in, by which grants.

A row is entered before anything is said under its grant. It keeps how long that was by the hall's last word,
so that the ledger learns of it whoever dies; and whether the ledger has. The methods block, as the
registry's do.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Float,
    Index,
    String,
    Table,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from consent.archive.database import first_line
from consent.grants.grant import VoiceGrant
from gateway.store.call_tables import CALLS, METADATA, Instant
from gateway.store.registry import Registry, RegistryError

GRANTS: Final = Table(
    "call_grants",
    METADATA,
    Column("jti", String(64), primary_key=True),
    Column("call_id", String(64), nullable=False),
    Column("dialplan", String(200), nullable=False),  # file and line
    Column("route", String(64), nullable=False),
    Column("purpose", String(64), nullable=False),
    Column("language", String(16), nullable=False),
    Column("voice", String(80), nullable=False),
    Column("voice_hash", String(128), nullable=False),
    Column("given_at", Instant, nullable=False),
    Column("spoken_s", Float, nullable=False),
    Column("noted", Boolean, nullable=False),  # the ledger has its seconds
    Index("call_grants_by_call", "call_id", "given_at"),
    Index("call_grants_not_noted", "noted"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallGrant:
    """One grant of a call. Times are seconds since the epoch."""

    jti: str
    call_id: str
    dialplan: str
    """File and line of the route."""
    route: str
    purpose: str
    language: str
    voice: str
    voice_hash: str
    given_at: float
    spoken_s: float = 0.0
    """How long the caller was spoken to under it, by the last word of a hall."""
    noted: bool = False
    """The ledger knows that."""

    @classmethod
    def of(cls, grant: VoiceGrant, dialplan: str) -> CallGrant:
        """A grant as it is given now; `dialplan` is its route's file and line."""
        scope = grant.scope
        return cls(
            jti=grant.jti, call_id=scope.call_id, dialplan=dialplan, route=scope.dialplan,
            purpose=scope.purpose, language=scope.language, voice=scope.voice,
            voice_hash=grant.voice_hash, given_at=time.time(),
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """The row's fields by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class CallGrants:
    """The table of one registry's database. Every method raises `RegistryError`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def open(self) -> None:
        """Makes the table when it is not there."""
        try:
            GRANTS.create(self._registry.engine, checkfirst=True)
        except SQLAlchemyError as error:
            raise RegistryError(f"the table of calls' grants was not made: {first_line(error)}") from None

    def enter(self, grant: CallGrant) -> None:
        """Enters a grant; without its row nothing may be said under it."""
        values = grant.to_json()
        for column in GRANTS.columns:
            if isinstance(values[column.name], str) and isinstance(column.type, String):
                values[column.name] = values[column.name][: column.type.length]
        self._write(lambda connection: connection.execute(insert(GRANTS).values(values)))

    def spoke(self, seconds: Mapping[str, float]) -> None:
        """Keeps how long was spoken under grants so far, by jti; never less than is known."""

        def keep(connection: Connection) -> None:
            for jti, spoken_s in seconds.items():
                less = (GRANTS.c.jti == jti) & (GRANTS.c.spoken_s < spoken_s) & ~GRANTS.c.noted
                connection.execute(update(GRANTS).where(less).values(spoken_s=spoken_s))

        if seconds:
            self._write(keep)

    def note(self, jti: str, seconds: float) -> None:
        """The ledger has these seconds of a grant."""
        noted = update(GRANTS).where(GRANTS.c.jti == jti).values(noted=True, spoken_s=seconds)
        self._write(lambda connection: connection.execute(noted))

    def of_call(self, call_id: str) -> tuple[CallGrant, ...]:
        """A call's, in the order in which they were given; none where an older version made the registry."""
        return self._found(select(GRANTS).where(GRANTS.c.call_id == call_id))

    def left_over(self, gateways: Sequence[str]) -> tuple[CallGrant, ...]:
        """Those of these gateways' calls that are over, of which the ledger does not know."""
        over = GRANTS.join(CALLS, CALLS.c.call_id == GRANTS.c.call_id)
        ours = ~GRANTS.c.noted & CALLS.c.ended_at.is_not(None) & CALLS.c.gateway.in_(gateways)
        return self._found(select(GRANTS).select_from(over).where(ours))

    def _found(self, asked: Any) -> tuple[CallGrant, ...]:
        try:
            with self._registry.engine.connect() as connection:
                if not inspect(connection).has_table(GRANTS.name):
                    return ()
                rows = connection.execute(asked.order_by(GRANTS.c.given_at, GRANTS.c.jti))
                return tuple(CallGrant(**row._mapping) for row in rows)
        except SQLAlchemyError as error:
            raise RegistryError(f"the grants of calls cannot be read: {first_line(error)}") from None

    def _write(self, work: Any) -> None:
        try:
            with self._registry.writing() as connection:
                work(connection)
        except SQLAlchemyError as error:
            raise RegistryError(f"the grants of calls were not written: {first_line(error)}") from None
