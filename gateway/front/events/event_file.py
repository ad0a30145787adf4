"""The SQLite file of the events: opened when it is needed, put aside when it is broken.

No call waits for it and none depends on it. While it cannot be opened or written (a full disk, a disk that
may only be read) whoever wants to keep something hears so and comes again; each failure closes the file, and
the next try opens it anew. A file that is no database any more, or a damaged one, is put aside under the name
`….broken`, where the one before is overwritten, and another one begins. The methods block.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import structlog

from gateway.errors import VoicegateError

log = structlog.get_logger("events")

WAIT_S: Final = 5.0
"""How long another process that has the file open is waited for."""
BROKEN: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
MORE: Final = ("", "-wal")
"""What a file in WAL mode consists of, beside what is made anew."""

Begin = Callable[[sqlite3.Connection], None]


class ShelfError(VoicegateError):
    """The events' file cannot be read or written."""


class EventFile:
    """The file at `path`. `broken` is told of each that was put aside."""

    def __init__(self, path: Path, broken: Callable[[], None]) -> None:
        self._path = path
        self._broken = broken
        self._begins: list[Begin] = []
        self._writing = threading.Lock()
        self._reading = threading.Lock()  # taken after the other one, where both are
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._put_aside = 0

    def begins_with(self, begin: Begin) -> None:
        """Has `begin` make its tables, first of all in each opening, and so after each failure."""
        with self._writing:
            self._begins.append(begin)
            self._close_writer()

    def close(self) -> None:
        """Lets go of the file."""
        with self._writing, self._reading:
            self._close_writer()
            self._close_reader()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction, on disk when it is over. Raises `ShelfError`."""
        with self._writing:
            try:
                connection = self._opened()
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except (sqlite3.Error, OSError) as error:
                self._close_writer()
                if _is_broken(error):
                    self._begin_another(error)
                raise ShelfError(f"the calls' events cannot be kept: {error}") from None
            except BaseException:
                self._close_writer()  # which rolls back
                raise

    def asked(self, question: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of a SELECT. Raises `ShelfError`."""
        if self._reader is None:
            with self.writing():
                pass  # now it has its tables
        put_aside = self._put_aside
        with self._reading:
            try:
                if self._reader is None:
                    self._reader = self._connection()
                return self._reader.execute(question, values).fetchall()
            except sqlite3.Error as error:
                self._close_reader()
                failure = error
        if _is_broken(failure):
            with self._writing:
                if self._put_aside == put_aside:  # else somebody has seen it first
                    self._begin_another(failure)
        raise ShelfError(f"the calls' events cannot be read: {failure}")

    def shorten(self) -> None:
        """Empties the log of what was written, in which deleted rows still stand."""
        with self._writing, contextlib.suppress(sqlite3.Error):
            if self._writer is not None:
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def forget_broken(self, before: float) -> None:
        """Deletes what was put aside before then (seconds since the epoch): words of callers are in it."""
        for more in MORE:
            path = self._aside(more)
            with contextlib.suppress(OSError):
                if path.stat().st_ctime < before:
                    path.unlink()

    def _aside(self, more: str) -> Path:
        return Path(f"{self._path}.broken{more}")

    def _opened(self) -> sqlite3.Connection:
        """Raises `sqlite3.Error`, `OSError`."""
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            self._writer = self._connection()
            self._writer.execute("BEGIN IMMEDIATE")
            for begin in self._begins:
                begin(self._writer)
            self._writer.execute("COMMIT")
        return self._writer

    def _connection(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=WAIT_S, check_same_thread=False, isolation_level=None
        )
        try:
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
                connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _begin_another(self, error: Exception) -> None:
        """The next transaction makes another file. The writing lock is held."""
        with self._reading:
            self._close_writer()
            self._close_reader()
            self._put_aside += 1
            log.error(
                "events.file_broken", error=str(error), put_aside=str(self._aside("")),
                remedy="what waited for receivers is in it, and lost to them; see whether the disk is well",
            )  # fmt: skip
            for more in MORE:
                with contextlib.suppress(FileNotFoundError):
                    self._aside(more).unlink()
            try:
                for more in MORE:
                    with contextlib.suppress(FileNotFoundError):
                        os.replace(f"{self._path}{more}", self._aside(more))
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self._path}-shm")
            except OSError as failed:
                log.error("events.not_put_aside", error=str(failed))
        self._broken()

    def _close_writer(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(sqlite3.Error):
                self._writer.close()
            self._writer = None

    def _close_reader(self) -> None:
        if self._reader is not None:
            with contextlib.suppress(sqlite3.Error):
                self._reader.close()
            self._reader = None


def _is_broken(error: Exception) -> bool:
    """Whether the file itself is damaged, and no later try will help."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in BROKEN
