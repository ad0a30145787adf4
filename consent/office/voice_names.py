"""The names under which voices were registered, read without keys: nothing is granted by them."""

from __future__ import annotations

from sqlalchemy import inspect, select
from sqlalchemy.exc import SQLAlchemyError

from consent.archive.database import database_place, database_url, first_line, reading_engine
from consent.archive.tables import VOICES
from consent.errors import LedgerError
from consent.grants.scope import STOCK


def known_voices(sql_url: str) -> frozenset[str]:
    """The names of persons' voices in any state, and the stock voice's; that alone without a database.

    Raises `LedgerError` when the database cannot be read.
    """
    try:
        url = database_url(sql_url)
    except ValueError as error:
        raise LedgerError(str(error)) from None
    try:
        engine = reading_engine(url)
        if engine is None:
            return frozenset({STOCK})
        with engine.connect() as connection:
            if not inspect(connection).has_table(VOICES.name):
                return frozenset({STOCK})
            return frozenset({STOCK, *connection.execute(select(VOICES.c.handle).distinct()).scalars()})
    except SQLAlchemyError as error:
        place = database_place(url)
        raise LedgerError(f"{place}: the consent database cannot be read: {first_line(error)}") from None
