"""Which events are still to be told to which receiver, on disk: written with its event, or not at all.

Of one call a receiver is told in order. What a receiver will never be told (it was away for too long, or too
much waited for it) is counted for the call, and the next event of that call says so. The methods block.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final

import structlog

from gateway.front.events.event_file import ShelfError
from gateway.front.events.event_shelf import EventShelf, KeptEvent

log = structlog.get_logger("events")

MOST: Final = 100_000
"""Events that may wait for one receiver."""
SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS deliveries (receiver TEXT NOT NULL, number INTEGER NOT NULL, "
    "call_id TEXT NOT NULL, tries INTEGER NOT NULL, since REAL NOT NULL, next_at REAL NOT NULL, "
    "PRIMARY KEY (receiver, number)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS deliveries_of_call ON deliveries (receiver, call_id, number)",
    "CREATE TABLE IF NOT EXISTS missed (receiver TEXT NOT NULL, call_id TEXT NOT NULL, "
    "number INTEGER NOT NULL, since REAL NOT NULL, PRIMARY KEY (receiver, call_id, number)) WITHOUT ROWID",
)

Wants = Callable[[KeptEvent], bool]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event that is to be told now. `since`: when it began to wait, seconds since the epoch."""

    number: int
    call_id: str
    tries: int
    since: float
    missed: int
    """earlier events of its call that this receiver will never be told"""


class Deliveries:
    """Of all receivers. `wants` says by name which events each is told; of others nothing waits any more."""

    def __init__(self, shelf: EventShelf, wants: dict[str, Wants]) -> None:
        self._shelf = shelf
        self._wants = wants
        self._full: set[str] = set()
        self.lost = dict.fromkeys(wants, 0)
        """events that a receiver was not told, or will not be, since this front began"""
        self.waiting = dict.fromkeys(wants, 0)
        """how many wait for each"""
        shelf.file.begins_with(self._begin)
        shelf.also.append(self._enter)
        with contextlib.suppress(ShelfError), shelf.file.writing():
            pass  # how many wait is known

    def _begin(self, connection: sqlite3.Connection) -> None:
        for statement in SCHEMA:
            connection.execute(statement)
        for name, count in self._counted(connection).items():
            log.warning("receiver.removed", receiver=name, dropped=count)

    def _counted(self, connection: sqlite3.Connection) -> dict[str, int]:
        """Counts what waits, and drops what waits for others: returns of whom and how many."""
        rows = connection.execute("SELECT receiver, count(*) FROM deliveries GROUP BY receiver")
        counts: dict[str, int] = dict(rows.fetchall())
        dropped = {name: count for name, count in counts.items() if name not in self._wants}
        for name in dropped:
            connection.execute("DELETE FROM deliveries WHERE receiver = ?", (name,))
        known = ", ".join("?" * len(self._wants))
        gaps = f"DELETE FROM missed WHERE receiver NOT IN ({known})"  # noqa: S608  # no value is in it
        connection.execute(gaps, tuple(self._wants))
        self.waiting = {name: counts.get(name, 0) for name in self._wants}
        return dropped

    def take(self, wants: dict[str, Wants], anew: Collection[str] = ()) -> dict[str, int]:
        """These are told from now on; returns how many events of each of the others were dropped.

        What waits for those of `anew` is told at once. Raises `ShelfError`: then all is as before.
        """
        before = self._wants
        try:
            with self._shelf.file.writing() as connection:
                self._wants = wants  # no event is entered meanwhile: the file has one writer
                dropped = self._counted(connection)
                for name in anew:
                    connection.execute("UPDATE deliveries SET next_at = 0 WHERE receiver = ?", (name,))
        except ShelfError:
            self._wants = before
            raise
        self.lost = {name: self.lost.get(name, 0) for name in wants}
        self._full &= wants.keys()
        return dict.fromkeys(before.keys() - wants.keys(), 0) | dropped

    def _enter(self, connection: sqlite3.Connection, event: KeptEvent) -> None:
        """Within the transaction that keeps the event."""
        now = time.time()
        for name, wants in self._wants.items():
            if not wants(event):
                continue
            if self.waiting[name] >= MOST:
                self._miss(connection, name, event.call_id, event.number)
                if name not in self._full:
                    self._full.add(name)
                    log.error("receiver.full", receiver=name, waiting=MOST, remedy="see why it takes nothing")
                continue
            row = (name, event.number, event.call_id, 0, now, 0.0)
            connection.execute("INSERT INTO deliveries VALUES (?, ?, ?, ?, ?, ?)", row)
            self.waiting[name] += 1

    def _miss(self, connection: sqlite3.Connection, name: str, call_id: str, number: int) -> None:
        if name not in self.lost:  # it was taken away meanwhile
            return
        self.lost[name] += 1
        row = (name, call_id, number, time.time())
        connection.execute("INSERT OR IGNORE INTO missed VALUES (?, ?, ?, ?)", row)

    def due(self, name: str, count: int) -> list[Delivery]:
        """What may be told now: of each call the first, of `count` calls. Raises `ShelfError`."""
        rows = self._shelf.file.asked(
            "SELECT d.number, d.call_id, d.tries, d.since, (SELECT count(*) FROM missed m WHERE "
            "m.receiver = d.receiver AND m.call_id = d.call_id AND m.number < d.number) FROM deliveries d "
            "WHERE d.receiver = ? AND d.next_at <= ? AND NOT EXISTS (SELECT 1 FROM deliveries e "
            "WHERE e.receiver = d.receiver AND e.call_id = d.call_id AND e.number < d.number) "
            "ORDER BY d.number LIMIT ?",
            name,
            time.time(),
            count,
        )
        return [Delivery(*row) for row in rows]

    def next_at(self, name: str) -> float | None:
        """When the next one is to be tried, seconds since the epoch; None: nothing waits."""
        found = self._shelf.file.asked("SELECT min(next_at) FROM deliveries WHERE receiver = ?", name)[0][0]
        return None if found is None else float(found)

    def taken(self, name: str, done: Iterable[Delivery]) -> None:
        """The receiver has these. Raises `ShelfError`: then it is told again."""
        with self._shelf.file.writing() as connection:
            for one in done:
                self._remove(connection, name, one)
                connection.execute(
                    "DELETE FROM missed WHERE receiver = ? AND call_id = ? AND number < ?",
                    (name, one.call_id, one.number),
                )
        self._room(name)

    def later(self, name: str, one: Delivery, at: float) -> None:
        """It is to be tried again, not before `at`. Raises `ShelfError`."""
        with self._shelf.file.writing() as connection:
            connection.execute(
                "UPDATE deliveries SET tries = tries + 1, next_at = ? WHERE receiver = ? AND number = ?",
                (at, name, one.number),
            )

    def dead(self, name: str, one: Delivery) -> None:
        """The receiver will never be told it: the next one of its call says so. Raises `ShelfError`."""
        with self._shelf.file.writing() as connection:
            self._remove(connection, name, one)
            self._miss(connection, name, one.call_id, one.number)
        self._room(name)

    def forget(self, before: float) -> None:
        """Deletes gaps that no later event told, of calls that are long over. Raises `ShelfError`."""
        with self._shelf.file.writing() as connection:
            connection.execute("DELETE FROM missed WHERE since < ?", (before,))

    def _remove(self, connection: sqlite3.Connection, name: str, one: Delivery) -> None:
        where = "DELETE FROM deliveries WHERE receiver = ? AND number = ?"
        removed = connection.execute(where, (name, one.number)).rowcount
        if name in self.waiting:  # else it was taken away meanwhile
            self.waiting[name] -= removed

    def _room(self, name: str) -> None:
        if name in self._full and self.waiting[name] < MOST * 0.9:
            self._full.discard(name)
            log.warning("receiver.took_again", receiver=name, lost=self.lost[name])
