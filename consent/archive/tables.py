"""The consent tables in SQL: SQLite or PostgreSQL, one writer at a time over all processes and hosts.

A registration, a review, a grant are each one transaction: they are wholly there or not at all.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    text,
)
from sqlalchemy.exc import SQLAlchemyError

from consent.archive.database import database_place, database_url, first_line, sqlite_engine
from consent.errors import LedgerError

SHRED_TRIES: Final = 25
SHRED_WAIT_MS: Final = 200
"""How long each try waits for readers of the log. Writers wait with it, so it is short."""
WAIT_S: Final = 10.0
"""How long SQLite waits for another who writes."""
WRITER_LOCK: Final = 0x766F6963
"""PostgreSQL's advisory lock that writers of the ledger hold until they commit."""

METADATA: Final = MetaData()

LEDGER: Final = Table(
    "consent_ledger",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("kind", String(40), nullable=False),
    Column("subject", String(64)),  # the voice's id; a voice's name is not in the ledger
    Column("body", Text, nullable=False),  # JSON, exactly as it was hashed
    Column("prev", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("kid", String(16), nullable=False),
    Column("signature", String(100), nullable=False),
    Index("consent_ledger_by_subject", "subject", "seq"),
)

VOICES: Final = Table(
    "consent_voices",
    METADATA,
    Column("voice_id", String(64), primary_key=True),
    Column("handle", String(80), nullable=False, index=True),
    Column("wrapped_key", LargeBinary),  # null once erased
    Column("master_kid", String(16)),
    Column("made_at", Double, nullable=False),
)

ITEMS: Final = Table(
    "consent_items",
    METADATA,
    Column("voice_id", String(64), primary_key=True),
    Column("kind", String(24), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("expires_at", Double),
)

CHALLENGES: Final = Table(
    "consent_challenges",
    METADATA,
    Column("challenge_id", String(32), primary_key=True),
    Column("token", Text),  # signed; null once used or long expired
    Column("expires_at", Double, nullable=False),
    Column("used_at", Double),
)


class Archive:
    """One database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, sql_url: str) -> Self:
        """Connects and makes the tables when they are not there. Raises `LedgerError`."""
        try:
            url = database_url(sql_url)
        except ValueError as error:
            raise LedgerError(str(error)) from None
        try:
            if url.get_backend_name() == "sqlite":
                _private_file(Path(url.database or ""))
                engine = sqlite_engine(url, WAIT_S)
                event.listen(engine, "connect", _sqlite_settings)
                event.listen(engine, "begin", _sqlite_begin)
            else:
                engine = create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 3})
            archive = cls(engine)
            with archive.writing() as connection:
                METADATA.create_all(connection)
        except OSError as error:
            raise LedgerError(
                f"{database_place(url)}: the consent database cannot be opened: {error.strerror}"
            ) from None
        return archive

    @property
    def backend(self) -> str:
        """Which kind of database this is: `sqlite` or `postgresql`."""
        return self._engine.dialect.name

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    def _failed(self, what: str, error: SQLAlchemyError) -> LedgerError:
        place = database_place(self._engine.url)
        return LedgerError(f"{place}: the consent database {what}: {first_line(error)}")

    def settle(self) -> None:
        """Everything committed so far outlives a power cut. Raises `LedgerError`."""
        if self.backend == "sqlite":
            try:
                connection = self._engine.raw_connection()
                try:
                    connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)")  # syncs the log first
                finally:
                    connection.close()
            except SQLAlchemyError as error:
                raise self._failed("did not settle", error) from None

    def shred(self) -> bool:
        """Has what was deleted leave the database's own files; False when that could not be done now.

        SQLite: the write-ahead log, which still holds the pages as they were, is written back and cut to
        nothing. A process that reads at that moment prevents it. PostgreSQL: VACUUM, after which the bytes
        lie in free space until they are written over, and in its own log until that is recycled. Raises
        `LedgerError`.
        """
        try:
            if self.backend == "sqlite":
                return self._cut_log()
            with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                names = ", ".join(table.name for table in (VOICES, ITEMS, CHALLENGES))
                connection.exec_driver_sql(f"VACUUM {names}")
            return True
        except SQLAlchemyError as error:
            raise self._failed("was not cleaned of what was deleted", error) from None

    def _cut_log(self) -> bool:
        connection = self._engine.raw_connection()
        try:
            cursor = connection.cursor()
            (waits_ms,) = cursor.execute("PRAGMA busy_timeout").fetchone()
            cursor.execute(f"PRAGMA busy_timeout={SHRED_WAIT_MS}")
            try:
                for _ in range(SHRED_TRIES):
                    (busy, _, _) = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                    if not busy:
                        return True
                    time.sleep(SHRED_WAIT_MS / 1000)  # others write meanwhile
                return False
            finally:
                cursor.execute(f"PRAGMA busy_timeout={waits_ms}")
        finally:
            connection.close()

    def server_clock(self) -> tuple[float, bool] | None:
        """PostgreSQL's time (seconds since the epoch), and whether it runs on another machine.

        None for SQLite, which has no clock of its own. Raises `LedgerError`.
        """
        if self.backend != "postgresql":
            return None
        asked = "SELECT extract(epoch FROM clock_timestamp()), inet_server_addr() <> inet_client_addr()"
        with self.reading() as connection:
            said, elsewhere = connection.execute(text(asked)).one()
        return float(said), bool(elsewhere)  # no addresses: by a unix socket

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A consistent look. Raises `LedgerError` when the database does not answer."""
        try:
            with self._engine.connect() as connection, connection.begin():
                yield connection
        except SQLAlchemyError as error:
            raise self._failed("cannot be read", error) from None

    @contextmanager
    def writing(self, *, quiet: bool = False) -> Iterator[Connection]:
        """One transaction, alone among writers; undone by any exception. Raises `LedgerError`.

        `quiet` on SQLite: it outlives the process's death at once, a power cut only after `settle` or the
        next write that is not quiet; that spares a grant the disk's 4 ms.
        """
        options = {"voicegate_writes": True, "voicegate_quiet": quiet}
        try:
            with (
                self._engine.connect().execution_options(**options) as connection,
                connection.begin(),
            ):
                if self.backend == "postgresql":
                    connection.execute(text(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})"))
                yield connection
        except SQLAlchemyError as error:
            raise self._failed("did not take it", error) from None


def _private_file(path: Path) -> None:
    """Makes a database that is not there readable by its owner only; SQLite gives its side files the same."""
    for folder in reversed(path.absolute().parents):
        folder.mkdir(mode=0o700, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _sqlite_settings(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves, see `_sqlite_begin`
    cursor = connection.cursor()
    cursor.execute("PRAGMA secure_delete=ON")  # an erased key is overwritten, not only unlinked
    cursor.close()


def _sqlite_begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("voicegate_writes"):
        # a revocation must outlive a power cut
        level = "NORMAL" if options.get("voicegate_quiet") else "FULL"
        connection.exec_driver_sql(f"PRAGMA synchronous={level}")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("BEGIN")
