"""The calls that were not taken, in SQL beside the registry: who asked for whom, from where, and why not.

Whoever is refused may ask again a thousand times, so the table is bounded: calls that are alike (the same
source, caller, number called, status and reason) within an hour are one row that counts; of one source the
newest `ROWS_OF_SOURCE` rows are kept, of all the newest `ROWS`. The methods block, as the registry's do.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Index,
    Integer,
    Row,
    Select,
    String,
    Table,
    delete,
    func,
    insert,
    inspect,
    or_,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from consent.archive.database import first_line
from gateway.store.call_tables import METADATA, Instant
from gateway.store.registry import Registry, RegistryError

ALIKE_FOR_S: Final = 3600.0
ROWS_OF_SOURCE: Final = 20
ROWS: Final = 10_000

REFUSED: Final = Table(
    "refused_calls",
    METADATA,
    Column("row", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("call_id", String(64), nullable=False),
    Column("sip_call_id", String(128), nullable=False),
    Column("caller", String(256), nullable=False),
    Column("called", String(256), nullable=False),
    Column("source", String(128), nullable=False),
    Column("transport", String(16), nullable=False),
    Column("status", Integer, nullable=False),
    Column("reason", String(200), nullable=False),
    Column("first_at", Instant, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("count", Integer, nullable=False),
    Index("refused_calls_by_start", "started_at"),
    Index("refused_calls_by_source", "source", "started_at"),
)
ALIKE: Final = (REFUSED.c.source, REFUSED.c.status, REFUSED.c.reason, REFUSED.c.caller, REFUSED.c.called)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedCall:
    """A call that was not taken, or several that are alike; then the ids are the newest one's."""

    call_id: str
    """ours, as the log has it"""
    caller: str
    called: str
    source: str
    """the caller's address, as we or a trusted proxy saw it"""
    transport: str
    """udp, tcp, tls or webrtc"""
    status: int
    """of SIP (RFC 3261 §21), or of HTTP for `webrtc`"""
    reason: str
    sip_call_id: str = ""
    """the caller's own Call-ID; none for a browser"""
    started_at: float
    """when it came, or the newest of them; seconds since the epoch"""
    first_at: float | None = None
    """when the first of them came"""
    count: int = field(default=1)

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class RefusedFor:
    """Calls that were refused for the same reason."""

    status: int
    reason: str
    count: int
    last_at: float
    """when the newest of them came; seconds since the epoch"""


class RefusedCalls:
    """The table of one registry's database. `open` makes it; without it there is nothing to list."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def open(self) -> None:
        """Makes the table when it is not there. Raises `RegistryError`."""
        try:
            REFUSED.create(self._registry.engine, checkfirst=True)
        except SQLAlchemyError as error:
            raise RegistryError(f"the table of refused calls was not made: {first_line(error)}") from None

    def note(self, calls: Sequence[RefusedCall]) -> None:
        """Keeps them, in one transaction. Raises `RegistryError`."""
        try:
            with self._registry.writing() as connection:
                new = [call for call in map(_fitting, calls) if not _counted(connection, call)]
                if new:
                    _forget(connection, {call.source for call in new})
        except SQLAlchemyError as error:
            raise RegistryError(f"{len(calls)} refused calls were not noted: {first_line(error)}") from None

    def listed(self, *conditions: ColumnElement[bool], count: int | None = None) -> list[RefusedCall]:
        """Those that meet `conditions` on `REFUSED`, the newest first, `count` at most.

        Raises `RegistryError`.
        """
        newest = select(*_COLUMNS).where(*conditions).order_by(*_NEWEST_FIRST)
        return [_of_row(row) for row in self._read(newest.limit(count))]

    def page(
        self,
        conditions: Sequence[ColumnElement[bool]],
        count: int,
        place: tuple[float, int] | None = None,
        *,
        backwards: bool = False,
    ) -> list[tuple[int, RefusedCall]]:
        """Those that meet `conditions` on `REFUSED` after `place` (its time and row), with their rows.

        The newest come first, `count` at most; `backwards`: those just before `place`.
        Raises `RegistryError`.
        """
        asked = select(REFUSED.c.row, *_COLUMNS).where(*conditions)
        at, row = REFUSED.c.started_at, REFUSED.c.row
        if place is not None:
            then, last = place
            if backwards:
                asked = asked.where((at >= then) & ((at > then) | (row > last)))
            else:
                asked = asked.where((at <= then) & ((at < then) | (row < last)))
        order = (at.asc(), row.asc()) if backwards else _NEWEST_FIRST
        rows = self._read(asked.order_by(*order).limit(count))
        found = [(int(one.row), _of_row(one)) for one in rows]
        return found[::-1] if backwards else found

    def matches(self, conditions: Sequence[ColumnElement[bool]]) -> int:
        """How many rows meet `conditions` on `REFUSED`. Raises `RegistryError`."""
        rows = self._read(select(func.count()).select_from(REFUSED).where(*conditions))
        return int(rows[0][0]) if rows else 0

    def _read(self, asked: Select[Any]) -> Sequence[Row[Any]]:
        """Without the table there is nothing to read."""
        engine = self._registry.engine
        try:
            if not inspect(engine).has_table(REFUSED.name):
                return []
            with engine.connect() as connection:
                return connection.execute(asked).all()
        except SQLAlchemyError as error:
            raise RegistryError(f"the refused calls cannot be read: {first_line(error)}") from None

    def of(self, call_id: str) -> RefusedCall | None:
        """The newest call with that id, ours or the caller's own Call-ID. Raises `RegistryError`."""
        found = self.listed(named(call_id), count=1)
        return found[0] if found else None

    def reasons(self, since: float, most: int) -> list[RefusedFor]:
        """Why calls were refused of late, the most frequent reason first, `most` of them.

        Rows that were alike are counted with the newest of them. Raises `RegistryError`.
        """
        count, last_at = func.sum(REFUSED.c.count).label("count"), func.max(REFUSED.c.started_at)
        found = (
            select(REFUSED.c.status, REFUSED.c.reason, count, last_at.label("last_at"))
            .where(REFUSED.c.started_at > since)
            .group_by(REFUSED.c.status, REFUSED.c.reason)
            .order_by(count.desc(), last_at.desc())
            .limit(most)
        )
        try:
            with self._registry.engine.connect() as connection:
                return [RefusedFor(**row._mapping) for row in connection.execute(found)]
        except SQLAlchemyError as error:
            raise RegistryError(f"the refused calls cannot be read: {first_line(error)}") from None


def named(call_id: str) -> ColumnElement[bool]:
    """Whether a call has that id: ours, or the caller's own Call-ID."""
    return or_(REFUSED.c.call_id == call_id, REFUSED.c.sip_call_id == call_id)


_COLUMNS: Final = [column for column in REFUSED.columns if column.name != "row"]
_NEWEST_FIRST: Final = (REFUSED.c.started_at.desc(), REFUSED.c.row.desc())


def _of_row(row: Row[Any]) -> RefusedCall:
    return RefusedCall(**{column.name: row._mapping[column.name] for column in _COLUMNS})


def _fitting(call: RefusedCall) -> RefusedCall:
    """With texts that the columns can hold: strangers wrote them."""
    texts: dict[str, Any] = {
        column.name: _storable(getattr(call, column.name))[: column.type.length]
        for column in _COLUMNS
        if isinstance(column.type, String)
    }
    return replace(call, **texts)


def _storable(text: str) -> str:
    """Without what PostgreSQL takes in no text: NUL, and halves of characters."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _counted(connection: Connection, call: RefusedCall) -> bool:
    """Adds it to a row of calls like it; else to one of its own."""
    alike = [column == getattr(call, column.name) for column in ALIKE]
    found = connection.execute(
        update(REFUSED)
        .where(*alike, REFUSED.c.started_at > call.started_at - ALIKE_FOR_S)
        .values(
            count=REFUSED.c.count + call.count,
            started_at=call.started_at,
            call_id=call.call_id,
            sip_call_id=call.sip_call_id,
        )
    )
    if found.rowcount:
        return True
    first_at = call.started_at if call.first_at is None else call.first_at
    connection.execute(insert(REFUSED).values(call.to_json() | {"first_at": first_at}))
    return False


def _forget(connection: Connection, sources: Collection[str]) -> None:
    """Removes the oldest rows of sources that have too many, and of all."""
    kept = select(REFUSED.c.row).order_by(*_NEWEST_FIRST)
    for source in sources:
        its = REFUSED.c.source == source
        newest = kept.where(its).limit(ROWS_OF_SOURCE)
        connection.execute(delete(REFUSED).where(its, REFUSED.c.row.not_in(newest)))
    if connection.execute(select(func.count()).select_from(REFUSED)).scalar_one() > ROWS:
        connection.execute(delete(REFUSED).where(REFUSED.c.row.not_in(kept.limit(ROWS))))
