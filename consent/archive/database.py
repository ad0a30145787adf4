"""The database that VOICEGATE_SQL_URL names: its URL, checked, and what it says when something fails."""

from __future__ import annotations

import os
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import NullPool

CONNECTIONS: Final = 1
"""Connections to a SQLite file that are kept, each with some 300 kB of prepared statements. More are made, in
.05 ms, for as long as they are needed."""
CACHE_KB: Final = 256
"""Pages of the file that one of them keeps: SQLite would keep 2 MB for each. The system has them anyway."""


def sqlite_engine(url: URL, wait_s: float) -> Engine:
    """An engine for a SQLite file that logs ahead (WAL); who writes waits so long for others who do."""
    engine = create_engine(
        url, connect_args={"timeout": wait_s}, pool_size=CONNECTIONS, max_overflow=16, pool_use_lifo=True
    )
    event.listen(engine, "connect", _settings)
    return engine


def _settings(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute(f"PRAGMA cache_size=-{CACHE_KB}")
    cursor.close()


def database_url(sql_url: str) -> URL:
    """The URL of a SQLite file or of PostgreSQL, with the driver that is installed here.

    Raises `ValueError`, which says what is wrong and what to write.
    """
    try:
        url = make_url(sql_url)
    except (ArgumentError, ValueError):  # the latter of a port that is not a number
        raise ValueError(
            "VOICEGATE_SQL_URL is not an SQLAlchemy URL; for example postgresql://user@host/db"
        ) from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise ValueError(f"VOICEGATE_SQL_URL: {url.drivername} is neither sqlite nor postgresql")
    try:
        url.get_dialect()
    except (NoSuchModuleError, ImportError):
        raise ValueError(
            f"VOICEGATE_SQL_URL: there is no driver {url.drivername} here; "
            f"begin it with {url.get_backend_name()}://"
        ) from None
    if url.get_backend_name() == "sqlite" and (not url.database or url.database == ":memory:"):
        raise ValueError("VOICEGATE_SQL_URL: calls and consent must outlive the process; name a file")
    return url


def database_place(url: URL) -> str:
    """How an error names the database: a SQLite file by its path, PostgreSQL by the setting that names it."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return "VOICEGATE_SQL_URL"


def reading_engine(url: URL) -> Engine | None:
    """Connects only to read: nothing is made or changed, and SQLite's directory may be read-only.

    None when SQLite has no file there. A connection raises `SQLAlchemyError`.
    """
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 3})
    path = Path(url.database or "")
    if not path.exists():
        return None
    return create_engine("sqlite://", creator=partial(_read_only, path), poolclass=NullPool)


def _read_only(path: Path) -> sqlite3.Connection:
    """SQLite's file without any wish to write. Beside a WAL it needs its directory; elsewhere nothing."""
    alone = not os.access(path.parent, os.W_OK) and not Path(f"{path}-wal").exists()
    address = f"file:{quote(str(path))}?mode=ro" + ("&immutable=1" if alone else "")
    return sqlite3.connect(address, uri=True, timeout=5.0, check_same_thread=False)


def first_line(error: BaseException) -> str:
    """The database's own words, without SQL and parameters: they may hold what somebody wrote."""
    cause = getattr(error, "orig", None) or error
    return str(cause).strip().partition("\n")[0]
