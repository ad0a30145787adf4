"""The events of this house on disk: each gets its number here, once, and is kept for a while.

A SQLite file of this front's alone, beside the registry: it takes events while a PostgreSQL is away. A
number, the event, the place of its source and who is still to be told of it go into one transaction, with
fsync. What is deleted is overwritten: words that callers said are among it. The methods block.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import structlog

from gateway.front.events.event_file import EventFile, ShelfError
from gateway.store.call_events import TYPES, VERSION, CallData, CallSettled

log = structlog.get_logger("events")

REMEDY: Final = "see whether the disk is full, or may only be read"
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
    """The file at `path`. `keep_s`: how long an event is kept, seconds. `broken` is told when another file
    had to be begun."""

    def __init__(self, path: Path, keep_s: float, broken: Callable[[], None] = lambda: None) -> None:
        self.file = EventFile(path, broken)
        self.file.begins_with(self._begin)
        self._keep_s = keep_s
        self.also: list[Callable[[sqlite3.Connection, KeptEvent], None]] = []
        """what else is written of each event, in the same transaction"""
        self.series = ""
        """names this file: numbers of another one mean other events"""
        self.unreadable = 0
        """rows that a disk has changed: they are as good as forgotten"""

    def _begin(self, connection: sqlite3.Connection) -> None:
        for statement in SCHEMA.split(";\n"):
            connection.execute(statement)
        new = secrets.token_hex(8)
        connection.execute("INSERT OR IGNORE INTO places VALUES ('series', ?)", (new,))
        self.series = connection.execute("SELECT value FROM places WHERE name = 'series'").fetchone()[0]

    def open(self) -> Self:
        """Tries whether it can be written now. If not, that is said, and what comes is kept once it can."""
        try:
            with self.file.writing():
                pass
        except ShelfError as error:
            log.error("events.not_kept", error=str(error), remedy=REMEDY)
        return self

    def close(self) -> None:
        """Lets go of the file."""
        self.file.close()

    # ── what comes ───────────────────────────────────────────────────────────────────────────────────

    def keep(self, new: Sequence[NewEvent], place: tuple[str, str] | None = None) -> list[KeptEvent]:
        """Gives numbers to events and keeps them; of a call that has ended, no second end.

        `place`: how far a source was read, by its name; it holds with them, or not at all. Raises
        `ShelfError`: then nothing was kept.
        """
        kept = []
        with self.file.writing() as connection:
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
        one = self._event((number, *row[:5], body), json.loads(body))
        for also in self.also:
            also(connection, one)
        return one

    def _event(self, row: tuple[Any, ...], data: dict[str, Any]) -> KeptEvent:
        number, call_id, call_number, kind, version, at, _ = row
        return KeptEvent(kind, version, f"{self.series}-{number}", number, call_number, at, call_id, data)

    def _read(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[KeptEvent]:
        for row in rows:
            try:
                data = json.loads(row[-1])
            except (ValueError, TypeError):
                data = None
            if isinstance(data, dict):
                yield self._event(row, data)
            else:
                self.unreadable += 1

    def place(self, name: str) -> str:
        """How far a source was read; empty: not yet. Raises `ShelfError`."""
        found = self.file.asked("SELECT value FROM places WHERE name = ?", name)
        return str(found[0][0]) if found else ""

    def knows(self, call_id: str) -> bool:
        """Whether anything was told of a call. Raises `ShelfError`."""
        return bool(self.file.asked("SELECT 1 FROM calls WHERE call_id = ?", call_id))

    def messages(self, call_id: str) -> int:
        """How many messages a call has left, as far as it was told. Raises `ShelfError`."""
        found = self.file.asked("SELECT messages FROM calls WHERE call_id = ?", call_id)
        return int(found[0][0]) if found else 0

    # ── what is told ─────────────────────────────────────────────────────────────────────────────────

    def last(self) -> int:
        """The newest event's number; 0: there was none yet. Raises `ShelfError`."""
        found = self.file.asked("SELECT seq FROM sqlite_sequence WHERE name = 'events'")
        return int(found[0][0]) if found else 0

    def forgotten(self) -> int:
        """The newest event's number of those that are not kept any more; 0: all are. Raises `ShelfError`."""
        found = self.file.asked("SELECT min(number) FROM events")
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
        rows = self.file.asked(
            f"SELECT {COLUMNS} FROM events WHERE {where} ORDER BY number LIMIT ?",  # noqa: S608  # no value
            *values,
            count,
        )
        return EventPage(tuple(self._read(rows)), rows[-1][0] if len(rows) == count else last)

    def numbered(self, number: int) -> KeptEvent | None:
        """One event; None when it is not kept any more. Raises `ShelfError`."""
        rows = self.file.asked(
            f"SELECT {COLUMNS} FROM events WHERE number = ?",  # noqa: S608  # no value
            number,
        )
        return next(self._read(rows), None)

    def number_of(self, event_id: str) -> int | None:
        """An id's number; None for one that this file never gave."""
        series, _, number = event_id.partition("-")
        if series != self.series or not number.isascii() or not number.isdigit() or len(number) > 18:
            return None
        return int(number) if int(number) <= self.last() else None

    def forget(self) -> int:
        """Deletes what is past its time, or too much; returns how many events. Raises `ShelfError`."""
        before = time.time() - self._keep_s
        with self.file.writing() as connection:
            old = connection.execute("DELETE FROM events WHERE kept_at < ?", (before,)).rowcount
            last = connection.execute("SELECT max(number) FROM events").fetchone()[0] or 0
            old += connection.execute("DELETE FROM events WHERE number <= ?", (last - MOST,)).rowcount
            connection.execute("DELETE FROM calls WHERE kept_at < ?", (before,))
        if old:
            self.file.shorten()  # the log had the words, too
        self.file.forget_broken(before)
        return old


def put_place(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Notes how far a source was read, or a receiver told."""
    connection.execute(
        "INSERT INTO places VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )
