"""Of a SQLite file few connections and few pages are kept in memory, however many ask at a time."""

from __future__ import annotations

import contextlib
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import QueuePool

from consent.archive.database import CACHE_KB, CONNECTIONS, sqlite_engine


def test_of_many_connections_one_is_kept(tmp_path: Path) -> None:
    engine = sqlite_engine(make_url(f"sqlite:///{tmp_path / 'voicegate.db'}"), 1.0)
    with contextlib.ExitStack() as busy:
        for _ in range(8):
            busy.enter_context(engine.connect()).execute(text("SELECT 1"))
    assert isinstance(engine.pool, QueuePool)
    assert engine.pool.checkedin() == CONNECTIONS, "SQLite keeps the others' descriptors, and uses them again"
    engine.dispose()


def test_a_connection_keeps_few_pages_and_logs_ahead(tmp_path: Path) -> None:
    engine = sqlite_engine(make_url(f"sqlite:///{tmp_path / 'voicegate.db'}"), 1.0)
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA cache_size")).scalar() == -CACHE_KB
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
    engine.dispose()
