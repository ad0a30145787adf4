"""The database that VOICEGATE_SQL_URL names: its URL, checked, and what it says when something fails."""

from __future__ import annotations

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError


def database_url(sql_url: str) -> URL:
    """The URL of a SQLite file or of PostgreSQL, with the driver that is installed here.

    Raises `ValueError`, which says what is wrong and what to write.
    """
    try:
        url = make_url(sql_url)
    except (ArgumentError, ValueError):  # the latter of a port that is no number
        raise ValueError(
            "VOICEGATE_SQL_URL is no SQLAlchemy URL; for example postgresql://user@host/db"
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


def first_line(error: BaseException) -> str:
    """The database's own words, without SQL and parameters: they may hold what somebody wrote."""
    cause = getattr(error, "orig", None) or error
    return str(cause).strip().partition("\n")[0]
