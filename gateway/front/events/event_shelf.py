"""The events of this house on disk: each gets its number here, once, and is kept for a while.

A SQLite file of this front's alone, beside the registry: it takes events while a PostgreSQL is away. A
number, the event, the place of its source and who is still to be told of it go into one transaction, with
fsync. What is deleted is overwritten: words that callers said are among it. The methods block.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from gateway.errors import StartError, VoicegateError
from gateway.store.call_events import TYPES, VERSION, CallData, CallSettled

MOST: Final = 200_000
"""Events that are kept at most; of more, the oldest go before their time."""
AT_ONCE: Final = 200
"""Events that are read at once."""
LONGEST: Final = 64 * 1024
"""Characters of an event's data."""
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS events (
  number INTEGER PRIMARY KEY AUTOINCREMENT, call_id TEXT NOT NULL, call_number INTEGER NOT NULL,
  type TEXT NOT NULL, version INTEGER NOT NULL, at REAL NOT NULL, kept_at REAL NOT NULL, data TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS events_of_call ON events (call_id, number);
CREATE INDEX IF NOT EXISTS events_by_age ON events (kept_at);
CREATE TABLE IF NOT EXISTS calls (
  call_id TEXT PRIMARY KEY, told INTEGER NOT NULL, messages INTEGER NOT NULL, ended INTEGER NOT NULL,
  kept_at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS calls_by_age ON calls (kept_at);
CREATE TABLE IF NOT EXISTS places (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
COLUMNS: Final = "number, call_id, call_number, type, version, at, data"


class ShelfError(VoicegateError):
    """The events' file cannot be read or written."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that has no number yet. `at`: seconds since the epoch."""

    call_id: str
    at: float
    data: CallData


@dataclass(frozen=True, slots=True)
class KeptEvent:
    """An event as it is told. `number` grows over the house, `call_number` over its call."""

    type: str
    version: int
    id: str
    number: int
    call_number: int
    at: float
    call_id: str
    data: dict[str, Any]

    def to_json(self, *, personal: bool = True) -> dict[str, Any]:
        """The fields by name; without `personal` not what people said or pressed, nor who they are."""
        table = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return table if personal else table | {"data": impersonal(self.type, self.data)}


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events after a number, and the number up to which there are no others like them."""

    events: tuple[KeptEvent, ...]
    upto: int


def impersonal(kind: str, data: dict[str, Any]) -> dict[str, Any]:
    """An event's data without what `words` of its type names, and without the caller of a CDR."""
    hidden = TYPES[kind].words if kind in TYPES else tuple(data)
    table = {name: value for name, value in data.items() if name not in hidden}
    if isinstance(table.get("cdr"), dict):
        kept = table["cdr"].items()
        table["cdr"] = {
            name: value for name, value in kept if name not in ("caller", "called", "source", "user")
        }
    return table


class EventShelf:
    """The file at `path`. `keep_s`: how long an event is kept, seconds."""

    def __init__(self, path: Path, keep_s: float) -> None:
        self._path = path
        self._keep_s = keep_s
        self._writing = threading.Lock()
        self._reading = threading.Lock()
        self.also: list[Callable[[sqlite3.Connection, KeptEvent], None]] = []
        """what else is written of each event, in the same transaction"""
        self.series = ""
        """names this file: numbers of another one mean other events"""
        self._writer: sqlite3.Connection
        self._reader: sqlite3.Connection

    def open(self) -> Self:
        """Makes the file when it is not there. Raises `StartError`."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            self._writer, self._reader = self._connection(), self._connection()
            with self.writing() as connection:
                for statement in SCHEMA.split(";\n"):
                    connection.execute(statement)
                new = secrets.token_hex(8)
                connection.execute("INSERT OR IGNORE INTO places VALUES ('series', ?)", (new,))
            self.series = self.place("series")
        except (sqlite3.Error, OSError, ShelfError) as error:
            raise StartError(f"{self._path}: the calls' events cannot be kept: {error}") from None
        return self

    def _connection(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=5.0, check_same_thread=False, isolation_level=None)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def close(self) -> None:
        """Lets go of the file."""
        with self._writing, self._reading:
            self._writer.close()
            self._reader.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction, on disk when it is over. Raises `ShelfError`."""
        with self._writing:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    yield self._writer
                except BaseException:
                    self._writer.execute("ROLLBACK")
                    raise
                self._writer.execute("COMMIT")
            except sqlite3.Error as error:
                with contextlib.suppress(sqlite3.Error):
                    self._writer.execute("ROLLBACK")
                raise ShelfError(f"the calls' events cannot be kept: {error}") from None

    def asked(self, question: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of a SELECT. Raises `ShelfError`."""
        with self._reading:
            try:
                return self._reader.execute(question, values).fetchall()
            except sqlite3.Error as error:
                raise ShelfError(f"the calls' events cannot be read: {error}") from None

    # ── what comes ───────────────────────────────────────────────────────────────────────────────────

    def keep(self, new: Sequence[NewEvent], place: tuple[str, str] | None = None) -> list[KeptEvent]:
        """Gives numbers to events and keeps them; of a call that has ended, no second end.

        `place`: how far a source was read, by its name; it holds with them, or not at all. Raises
        `ShelfError`: then nothing was kept.
        """
        kept = []
        with self.writing() as connection:
            for event in new:
                if (one := self._kept(connection, event)) is not None:
                    kept.append(one)
            if place is not None:
                put_place(connection, *place)
        return kept

    def _kept(self, connection: sqlite3.Connection, event: NewEvent) -> KeptEvent | None:
        now = time.time()
        body = json.dumps(event.data.to_json(), separators=(",", ":"), allow_nan=False)
        found = connection.execute(
            "SELECT told, ended FROM calls WHERE call_id = ?", (event.call_id,)
        ).fetchone()
        told, ended = found or (0, 0)
        settles = isinstance(event.data, CallSettled)
        if (settles and ended) or len(body) > LONGEST:
            return None
        leaves = int(event.data.type == "message.left")
        connection.execute(
            "INSERT INTO calls VALUES (?, ?, ?, ?, ?) ON CONFLICT (call_id) DO UPDATE SET "
            "told = excluded.told, messages = messages + excluded.messages, "
            "ended = max(ended, excluded.ended), kept_at = excluded.kept_at",
            (event.call_id, told + 1, leaves, int(settles), now),
        )
        row = (event.call_id, told + 1, event.data.type, VERSION, event.at, now, body)
        added = connection.execute(
            "INSERT INTO events (call_id, call_number, type, version, at, kept_at, data) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            row,
        )
        number = added.lastrowid or 0
        one = self._event((number, *row[:5], body))
        for also in self.also:
            also(connection, one)
        return one

    def _event(self, row: tuple[Any, ...]) -> KeptEvent:
        number, call_id, call_number, kind, version, at, body = row
        return KeptEvent(
            kind, version, f"{self.series}-{number}", number, call_number, at, call_id, json.loads(body)
        )

    def place(self, name: str) -> str:
        """How far a source was read; empty: not yet. Raises `ShelfError`."""
        found = self.asked("SELECT value FROM places WHERE name = ?", name)
        return str(found[0][0]) if found else ""

    def knows(self, call_id: str) -> bool:
        """Whether anything was told of a call. Raises `ShelfError`."""
        return bool(self.asked("SELECT 1 FROM calls WHERE call_id = ?", call_id))

    def messages(self, call_id: str) -> int:
        """How many messages a call has left, as far as it was told. Raises `ShelfError`."""
        found = self.asked("SELECT messages FROM calls WHERE call_id = ?", call_id)
        return int(found[0][0]) if found else 0

    # ── what is told ─────────────────────────────────────────────────────────────────────────────────

    def last(self) -> int:
        """The newest event's number; 0: there was none yet. Raises `ShelfError`."""
        found = self.asked("SELECT seq FROM sqlite_sequence WHERE name = 'events'")
        return int(found[0][0]) if found else 0

    def forgotten(self) -> int:
        """The newest event's number of those that are not kept any more; 0: all are. Raises `ShelfError`."""
        found = self.asked("SELECT min(number) FROM events")
        return self.last() if found[0][0] is None else int(found[0][0]) - 1

    def after(
        self, number: int, *, call_id: str | None = None, types: Collection[str] = (), count: int = AT_ONCE
    ) -> EventPage:
        """The events after `number`, `count` at most: of one call, of some types. Raises `ShelfError`."""
        last = self.last()  # first: what comes meanwhile is for the next page
        where, values = "number > ? AND number <= ?", list[Any]((number, last))
        if call_id is not None:
            where, values = f"{where} AND call_id = ?", [*values, call_id]
        if types:
            where = f"{where} AND type IN ({', '.join('?' * len(types))})"
            values = [*values, *types]
        rows = self.asked(
            f"SELECT {COLUMNS} FROM events WHERE {where} ORDER BY number LIMIT ?",  # noqa: S608  # no value
            *values,
            count,
        )
        events = tuple(map(self._event, rows))
        return EventPage(events, events[-1].number if len(events) == count else last)

    def numbered(self, number: int) -> KeptEvent | None:
        """One event; None when it is not kept any more. Raises `ShelfError`."""
        rows = self.asked(
            "SELECT number, call_id, call_number, type, version, at, data FROM events WHERE number = ?",
            number,
        )
        return self._event(rows[0]) if rows else None

    def number_of(self, event_id: str) -> int | None:
        """An id's number; None for one that this file never gave."""
        series, _, number = event_id.partition("-")
        if series != self.series or not number.isascii() or not number.isdigit() or len(number) > 18:
            return None
        return int(number) if int(number) <= self.last() else None

    def forget(self) -> int:
        """Deletes what is past its time, or too much; returns how many events. Raises `ShelfError`."""
        before = time.time() - self._keep_s
        with self.writing() as connection:
            old = connection.execute("DELETE FROM events WHERE kept_at < ?", (before,)).rowcount
            last = connection.execute("SELECT max(number) FROM events").fetchone()[0] or 0
            old += connection.execute("DELETE FROM events WHERE number <= ?", (last - MOST,)).rowcount
            connection.execute("DELETE FROM calls WHERE kept_at < ?", (before,))
        if old:
            with self._writing, contextlib.suppress(sqlite3.Error):
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the log had the words, too
        return old


def put_place(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Notes how far a source was read, or a receiver told."""
    connection.execute(
        "INSERT INTO places VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )
