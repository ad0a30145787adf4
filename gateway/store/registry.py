"""The registry of calls in SQL: which call a watermark's payload names, under which plan, grant and voice.

A row is entered before a call's first sound and never deleted. SQLite (WAL) or PostgreSQL.
The methods block for a millisecond or two: on an event loop, call them by `asyncio.to_thread`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    String,
    create_engine,
    delete,
    event,
    func,
    insert,
    inspect,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.engine import Row
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as WaitedTooLong
from sqlalchemy.schema import CreateColumn, CreateIndex

from consent.archive.database import database_place, database_url, first_line, reading_engine, sqlite_engine
from consent.ledger.call_leaf import Stage, call_leaf
from gateway.errors import StartError, VoicegateError
from gateway.store.call_order import NEWEST, OrderPart
from gateway.store.call_search import CallSearch
from gateway.store.call_tables import CALLS, LATER_COLUMNS, LATER_INDEXES, LEAVES, METADATA

PAYLOAD_BITS: Final = 48
"""Bits of the mark's payload that name the call; the rest of its 64 are for the detector to check."""


class RegistryError(VoicegateError):
    """The registry cannot be read or written."""


class PayloadTaken(RegistryError):
    """Another call has this payload: make a new call id and try again."""


WRITER_WAITS_S: Final = 5.0
"""How long a write waits for the one before it, as SQLite itself waits for another process."""
PEER_SILENT_MS: Final = 5000
"""PostgreSQL's host is gone when it has acknowledged nothing for so long (`tcp_user_timeout`)."""
REMEMBERED: Final = 100_000
"""Leaves that are remembered until they are sealed; of more, the table alone says what they were."""
WAIT_S: Final = 5.0
"""How long SQLite waits for another who writes."""
TRIES: Final = 10
TRY_AGAIN_S: Final = 0.1
"""How often the tables are tried to be made beside another who makes them."""
READ_AT_ONCE: Final = 1000
"""Rows that are fetched together when many are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRow:
    """One call. Times are seconds since the epoch; `started_at` is now unless given."""

    call_id: str
    payload: int
    """The 48 bits that name the call."""
    payload_whole: int | None = None
    """All 64 bits as the mark carries them."""
    gateway: str = ""
    dialplan: str = ""
    """The route's file."""
    plan: str | None = None
    """Version of the dialplan that it began with; None for calls of before it was kept."""
    route: str
    caller: str
    called: str
    source: str
    grant_jti: str | None = None
    voice: str | None = None
    voice_hash: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    how: str | None = None
    sip_call_id: str | None = None
    """The caller's own Call-ID (RFC 3261 §20.8); None for a browser, and for calls of before it was kept."""
    sounded: float | None = None
    """How it sounded, the worse way's (ITU-T G.107, 1 to 4.5); None where nothing was measured."""

    def to_json(self) -> dict[str, Any]:
        """The row's fields by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class Registry:
    """The calls table of one database, shared by all gateways that name it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lacking = _lacking(engine)
        """columns that a registry of an earlier version, which is only read, has not"""
        self._columns = [column for column in CALLS.columns if column.name not in self._lacking]
        self._one_writer = threading.Lock()
        self._refused = False
        """the database did not take the last write"""
        self.fresh_leaves: dict[tuple[str, Stage], str] = {}
        """leaves by call and stage that this process entered and that are not sealed yet"""

    @classmethod
    def open(cls, sql_url: str) -> Self:
        """Connects and makes the table when it is not there. Raises `StartError`."""
        try:
            url = database_url(sql_url)
        except ValueError as error:
            raise StartError(str(error)) from None
        try:
            if url.get_backend_name() == "sqlite":
                Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
                engine = sqlite_engine(url, WAIT_S)
                event.listen(engine, "connect", _sqlite_settings)
            else:
                waits = {"connect_timeout": 3, "tcp_user_timeout": PEER_SILENT_MS}
                engine = create_engine(url, pool_pre_ping=True, connect_args=waits)
            _make(engine)
        except (SQLAlchemyError, OSError) as error:
            raise StartError(
                f"{database_place(url)}: the call registry cannot be opened: {first_line(error)}"
            ) from None
        return cls(engine)

    @classmethod
    def read(cls, sql_url: str) -> Self | None:
        """Connects only to read: nothing is made or changed, and SQLite's directory may be read-only.

        None when there is no database yet, or no registry in it. Raises `StartError`.
        """
        try:
            url = database_url(sql_url)
        except ValueError as error:
            raise StartError(str(error)) from None
        try:
            engine = reading_engine(url)
            if engine is None:
                return None
            found = inspect(engine).has_table(CALLS.name)
        except (SQLAlchemyError, OSError) as error:
            raise StartError(
                f"{database_place(url)}: the call registry cannot be read: {first_line(error)}"
            ) from None
        if not found:
            engine.dispose()
            return None
        return cls(engine)

    @property
    def backend(self) -> str:
        """The database's kind: `sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @property
    def engine(self) -> Engine:
        """The database, for tables beside the registry's; who writes takes `writing`."""
        return self._engine

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes: one at a time. Raises `SQLAlchemyError`."""
        if not self._one_writer.acquire(timeout=WRITER_WAITS_S):
            raise WaitedTooLong(f"the database has not taken an earlier write within {WRITER_WAITS_S:g} s")
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise  # the row's own fault
        except SQLAlchemyError:
            self._refused = True
            raise
        else:
            self._refused = False
        finally:
            self._one_writer.release()

    def close(self) -> None:
        """Gives the database's connections back."""
        self._engine.dispose()

    def ready(self) -> bool:
        """Whether the database answers now, and takes rows; after one that it did not take, one is tried."""
        try:
            if self._refused:
                with self.writing() as connection:  # nobody ever sees this row
                    connection.execute(insert(LEAVES).values(call_id="", stage="entered", leaf=""))
                    connection.execute(delete(LEAVES).where(LEAVES.c.call_id == ""))
            with self._engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except SQLAlchemyError:
            return False
        return True

    def enter(self, row: CallRow) -> CallRow:
        """Enters a call before its first sound; returns it with its `started_at`.

        Raises `PayloadTaken` when another call has this payload or id, `RegistryError` when the database
        does not take it: then the call must not sound.
        """
        if not 0 <= row.payload < 1 << PAYLOAD_BITS or not 0 <= (row.payload_whole or 0) < 1 << 64:
            raise ValueError(f"payload {row.payload:#x} has more than {PAYLOAD_BITS} bits")
        values = {name: getattr(row, name) for name in row.__dataclass_fields__}
        values["started_at"] = row.started_at if row.started_at is not None else time.time()
        for column in CALLS.columns:  # what a caller wrote may be longer than its column
            if isinstance(values[column.name], str) and isinstance(column.type, String):
                values[column.name] = values[column.name][: column.type.length]
        try:
            with self.writing() as connection:
                connection.execute(insert(CALLS).values(values))
                self._leave(connection, values, "entered")
        except IntegrityError:
            raise PayloadTaken(f"payload {row.payload:#014x} or call id {row.call_id} is taken") from None
        except SQLAlchemyError as error:
            self.fresh_leaves.pop((row.call_id, "entered"), None)
            raise RegistryError(f"call {row.call_id} was not entered: {first_line(error)}") from None
        return CallRow(**values)

    def close_call(
        self, call_id: str, how: str, ended_at: float | None = None, sounded: float | None = None
    ) -> str:
        """Notes how a call ended, and how it sounded; the first note stays. Returns how, as it stands now."""
        at = ended_at if ended_at is not None else time.time()
        if self._close(call_id, at, how[:200], sounded):
            return how
        row = self.get(call_id)
        return how if row is None or row.how is None else row.how

    def open_calls(self, gateways: Sequence[str], before: float) -> list[tuple[str, float]]:
        """Calls of these gateways that have no end and began before that time: (id, start).

        Raises `RegistryError`.
        """
        ours = CALLS.c.gateway.in_(gateways) & CALLS.c.ended_at.is_(None) & (CALLS.c.started_at < before)
        rows = map(tuple, self._read(select(CALLS.c.call_id, CALLS.c.started_at).where(ours)))
        return [(str(call_id), float(started_at)) for call_id, started_at in rows]

    def closed_among(self, call_ids: Sequence[str], before: float) -> dict[str, str]:
        """How those of these calls ended that ended before that time, by id. Raises `RegistryError`."""
        if not call_ids:
            return {}
        # of few lengths: each is a statement that the database keeps prepared
        some = [*call_ids, *[call_ids[-1]] * ((1 << (len(call_ids) - 1).bit_length()) - len(call_ids))]
        over = CALLS.c.call_id.in_(some) & (CALLS.c.ended_at < before)
        rows = map(tuple, self._read(select(CALLS.c.call_id, CALLS.c.how).where(over)))
        return {str(call_id): str(how) for call_id, how in rows}

    def get(self, call_id: str) -> CallRow | None:
        """The row of a call; None when no such call was entered. Raises `RegistryError`."""
        return self._one(CALLS.c.call_id == call_id)

    def by_sip_call_id(self, sip_call_id: str) -> CallRow | None:
        """The newest call whose caller gave it this Call-ID. Raises `RegistryError`."""
        if "sip_call_id" in self._lacking:
            return None
        its = select(*self._columns).where(CALLS.c.sip_call_id == sip_call_id)
        rows = self._read(its.order_by(CALLS.c.started_at.desc()).limit(1))
        return _row(rows[0]) if rows else None

    def by_payload(self, payload: int) -> CallRow | None:
        """The call that a mark names; None when none of ours has this 48-bit payload."""
        return self._one(CALLS.c.payload == payload)

    def find(
        self,
        search: CallSearch,
        count: int | None = None,
        part: OrderPart = NEWEST,
        beyond: str | None = None,
        *,
        backwards: bool = False,
    ) -> Iterator[CallRow]:
        """The calls of `part` that `search` describes, in its order, `count` at most. Raises `RegistryError`.

        `beyond`: only those that come after the call of that id; `backwards`: the last ones, the last first,
        and before that call.
        """
        if part.ended is not None:
            search = replace(search, ended=part.ended)
        asked = select(*self._columns).where(*self._conditions(search))
        if beyond is not None:
            asked = asked.where(part.beyond(beyond, backwards=backwards))
        try:
            with self._engine.connect() as connection:
                rows = connection.execution_options(yield_per=READ_AT_ONCE).execute(
                    part.ordered(asked, backwards=backwards).limit(count)
                )
                yield from map(_row, rows)
        except SQLAlchemyError as error:
            raise RegistryError(f"the call registry cannot be read: {first_line(error)}") from None

    def matches(self, search: CallSearch, most: int) -> int:
        """How many calls `search` describes, counted to `most`. Raises `RegistryError`."""
        found = select(literal(1)).where(*self._conditions(search)).select_from(CALLS)
        return int(self._read(select(func.count()).select_from(found.limit(most).subquery()))[0][0])

    def newest(self, count: int | None = None) -> list[tuple[str, str]]:
        """The `count` newest calls (all by default), the newest first: (id, gateway).

        Which payloads they have is for the mark's keys to say. Raises `RegistryError`.
        """
        found = select(CALLS.c.call_id, CALLS.c.gateway).order_by(CALLS.c.started_at.desc()).limit(count)
        return [(str(call_id), str(gateway)) for call_id, gateway in map(tuple, self._read(found))]

    def count(self) -> int:
        """The number of calls that all gateways of this database have entered so far."""
        return int(self._read(select(func.count()).select_from(CALLS))[0][0])

    def _conditions(self, search: CallSearch) -> tuple[ColumnElement[bool], ...]:
        return search.conditions(CALLS, self.backend, self._lacking)

    def _one(self, condition: Any) -> CallRow | None:
        rows = self._read(select(*self._columns).where(condition))
        return _row(rows[0]) if rows else None

    def _read(self, statement: Any) -> Sequence[Row[Any]]:
        try:
            with self._engine.connect() as connection:
                return connection.execute(statement).all()
        except SQLAlchemyError as error:
            raise RegistryError(f"the call registry cannot be read: {first_line(error)}") from None

    def _close(self, call_id: str, at: float, how: str, sounded: float | None) -> bool:
        """Whether it was open."""
        open_one = (CALLS.c.call_id == call_id) & CALLS.c.ended_at.is_(None)
        try:
            with self.writing() as connection:
                closing = update(CALLS).where(open_one).values(ended_at=at, how=how, sounded=sounded)
                if connection.execute(closing).rowcount == 0:
                    return False
                row = connection.execute(select(CALLS).where(CALLS.c.call_id == call_id)).one()
                self._leave(connection, row._asdict(), "ended")
        except SQLAlchemyError as error:
            self.fresh_leaves.pop((call_id, "ended"), None)
            raise RegistryError(f"call {call_id} was not closed: {first_line(error)}") from None
        return True

    def _leave(self, connection: Connection, call: Mapping[str, Any], stage: Stage) -> None:
        """The leaf of a row, in the transaction that writes the row."""
        values = {"call_id": call["call_id"], "stage": stage, "leaf": call_leaf(call, stage)}
        connection.execute(insert(LEAVES).values(values))
        if len(self.fresh_leaves) < REMEMBERED:
            self.fresh_leaves[values["call_id"], stage] = values["leaf"]


def _make(engine: Engine) -> None:
    """Makes what is not there yet. Raises `SQLAlchemyError`.

    Others may open the database at the same time: what they make meanwhile is found with the next try.
    """
    for left in reversed(range(TRIES)):
        try:
            METADATA.create_all(engine)
            _with_later_columns(engine)
            with engine.begin() as connection:  # `create_all` adds no index to a table that is there
                for index in LATER_INDEXES:
                    connection.execute(CreateIndex(index, if_not_exists=True))
            return
        except SQLAlchemyError as error:
            if not left or not any(said in str(error) for said in ("already exists", "database is locked")):
                raise
            time.sleep(TRY_AGAIN_S)


def _lacking(engine: Engine) -> set[str]:
    """The later columns that this registry has not; one that is only read may be of an earlier version."""
    there = {column["name"] for column in inspect(engine).get_columns(CALLS.name)}
    return {column.name for column in LATER_COLUMNS} - there


def _with_later_columns(engine: Engine) -> None:
    """Adds them to a registry of an earlier version. Another gateway may do so at the same time."""
    for column in LATER_COLUMNS:
        if column.name not in _lacking(engine):
            continue
        added = CreateColumn(column).compile(dialect=engine.dialect)
        try:
            with engine.begin() as connection:
                connection.execute(text(f"ALTER TABLE {CALLS.name} ADD COLUMN {added}"))
        except SQLAlchemyError:
            if column.name in _lacking(engine):
                raise


def _sqlite_settings(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=FULL")  # a mark must name its call even after a power cut
    cursor.close()


def _row(row: Row[Any]) -> CallRow:
    return CallRow(**row._mapping)
