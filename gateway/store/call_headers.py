"""What trusted peers said of calls (P-Asserted-Identity, Diversion, X-…), in SQL beside the registry.

The methods block, as the registry's do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Column, String, Table, insert, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from consent.archive.database import first_line
from gateway.store.call_tables import METADATA
from gateway.store.registry import Registry, RegistryError

HEADERS: Final = Table(
    "call_headers",
    METADATA,
    Column("call_id", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("value", String(128), nullable=False),
)


class CallHeaders:
    """The table of one registry's database. `open` makes it; without it there is nothing to show."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def open(self) -> None:
        """Makes the table when it is not there. Raises `RegistryError`."""
        try:
            HEADERS.create(self._registry.engine, checkfirst=True)
        except SQLAlchemyError as error:
            raise RegistryError(f"the table of calls' headers was not made: {first_line(error)}") from None

    def note(self, call_id: str, headers: Mapping[str, str]) -> None:
        """Keeps what was said of a call. Raises `RegistryError`."""
        rows = [{"call_id": call_id, "name": name, "value": value[:128]} for name, value in headers.items()]
        try:
            with self._registry.writing() as database:
                database.execute(insert(HEADERS), rows)
        except SQLAlchemyError as error:
            raise RegistryError(f"headers of call {call_id} were not noted: {first_line(error)}") from None

    def of(self, call_id: str) -> dict[str, str]:
        """What was said of a call, by name. Raises `RegistryError`."""
        asked = select(HEADERS.c.name, HEADERS.c.value).where(HEADERS.c.call_id == call_id)
        try:
            if not inspect(self._registry.engine).has_table(HEADERS.name):
                return {}
            with self._registry.engine.connect() as database:
                rows = [tuple(row) for row in database.execute(asked.order_by(HEADERS.c.name))]
        except SQLAlchemyError as error:
            raise RegistryError(f"headers of call {call_id} cannot be read: {first_line(error)}") from None
        return {str(name): str(value) for name, value in rows}
