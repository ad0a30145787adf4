"""Where registered telephones are, in SQL beside the registry: for the front that comes after this one.

A row is a binding of one user of one gateway; it goes when the binding does. The methods block, as the
registry's do.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Integer,
    String,
    Table,
    delete,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from consent.archive.database import first_line
from gateway.ipc.binding import Binding
from gateway.store.call_tables import METADATA, Instant
from gateway.store.registry import Registry, RegistryError

BINDINGS: Final = Table(
    "sip_bindings",
    METADATA,
    Column("gateway", String(64), primary_key=True),
    Column("user", String(64), primary_key=True),
    Column("key", String(32), primary_key=True),
    Column("contact", String(512), nullable=False),
    Column("instance", String(128), nullable=False),
    Column("reg_id", Integer, nullable=False),
    Column("q", String(8), nullable=False),
    Column("path", String(2048), nullable=False),  # JSON
    Column("call_id_hash", String(32), nullable=False),
    Column("cseq", BigInteger, nullable=False),
    Column("transport", String(8), nullable=False),
    Column("host", String(64), nullable=False),
    Column("port", Integer, nullable=False),
    Column("source", String(64), nullable=False),
    Column("user_agent", String(80), nullable=False),
    Column("registered_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("lost_at", Instant),
)


class SipBindings:
    """The table of one registry's database. `open` makes it; without it there is nothing to list.

    `gateways` are this gateway's names (`Routing.gateways`), the present one first.
    """

    def __init__(self, registry: Registry, gateways: Sequence[str] = ()) -> None:
        self._registry = registry
        self._gateways = tuple(gateways)

    def open(self) -> None:
        """Makes the table when it is not there. Raises `RegistryError`."""
        try:
            BINDINGS.create(self._registry.engine, checkfirst=True)
        except SQLAlchemyError as error:
            raise RegistryError(f"the table of SIP bindings was not made: {first_line(error)}") from None

    def keep(self, put: Sequence[Binding], gone: Sequence[Binding]) -> None:
        """In one transaction: these are there now, each instead of the one with its key, and those are not.

        Raises `RegistryError`: then nothing has changed.
        """
        rows = {(one.user, one.key): _values(one, self._gateways[0]) for one in put}
        leaving = {**{(one.user, one.key): None for one in gone}, **rows}
        try:
            with self._registry.writing() as database:
                for user, key in leaving:
                    database.execute(delete(BINDINGS).where(self._ours(), _is(user, key)))
                if rows:
                    database.execute(insert(BINDINGS), list(rows.values()))
        except SQLAlchemyError as error:
            raise RegistryError(f"SIP bindings were not kept: {first_line(error)}") from None

    def load(self) -> list[Binding]:
        """The bindings that hold now, for a front that begins: connections of the last one are lost.

        Those that hold no more are forgotten. Raises `RegistryError`.
        """
        now = time.time()
        connected = BINDINGS.c.transport != "udp"
        try:
            with self._registry.writing() as database:
                database.execute(delete(BINDINGS).where(self._ours(), BINDINGS.c.expires_at <= now))
                lost = update(BINDINGS).where(self._ours(), connected, BINDINGS.c.lost_at.is_(None))
                database.execute(lost.values(lost_at=now))
                rows = database.execute(select(BINDINGS).where(self._ours())).all()
        except SQLAlchemyError as error:
            raise RegistryError(f"SIP bindings cannot be read: {first_line(error)}") from None
        return [_binding(row._asdict()) for row in rows]

    def forget_expired(self) -> None:
        """Lets go of this gateway's that hold no more. Raises `RegistryError`."""
        try:
            with self._registry.writing() as database:
                database.execute(delete(BINDINGS).where(self._ours(), BINDINGS.c.expires_at <= time.time()))
        except SQLAlchemyError as error:
            raise RegistryError(f"SIP bindings were not forgotten: {first_line(error)}") from None

    def listed(self) -> list[Binding]:
        """All gateways' of this database that hold now, by user. Raises `RegistryError`."""
        try:
            if not inspect(self._registry.engine).has_table(BINDINGS.name):
                return []
            holds = BINDINGS.c.expires_at > time.time()
            asked = select(BINDINGS).where(holds).order_by(BINDINGS.c.user, BINDINGS.c.registered_at)
            with self._registry.engine.connect() as database:
                return [_binding(row._asdict()) for row in database.execute(asked).all()]
        except SQLAlchemyError as error:
            raise RegistryError(f"SIP bindings cannot be read: {first_line(error)}") from None

    def _ours(self) -> ColumnElement[bool]:
        return BINDINGS.c.gateway.in_(self._gateways)


def _is(user: str, key: str) -> ColumnElement[bool]:
    return (BINDINGS.c.user == user) & (BINDINGS.c.key == key)


def _values(binding: Binding, gateway: str) -> dict[str, Any]:
    values = {name: getattr(binding, name) for name in binding.__dataclass_fields__}
    return {**values, "gateway": gateway, "path": json.dumps(binding.path, ensure_ascii=False)}


def _binding(row: dict[str, Any]) -> Binding:
    del row["gateway"]
    return Binding(**{**row, "path": tuple(json.loads(row["path"]))})
