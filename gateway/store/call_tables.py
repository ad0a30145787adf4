"""The tables of calls in SQL, and the columns' types that are ours."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    literal_column,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class _Unsigned64(TypeDecorator[int]):
    """0 to 2**64 - 1 in a signed 64-bit column."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:
        return value - (1 << 64) if value is not None and value >= 1 << 63 else value

    def process_result_value(self, value: int | None, dialect: Dialect) -> int | None:
        return value + (1 << 64) if value is not None and value < 0 else value


class Instant(TypeDecorator[float]):
    """Seconds since the epoch, kept as a time in UTC that an operator can read in SQL."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> datetime | None:
        """What the column holds."""
        return datetime.fromtimestamp(value, UTC) if value is not None else None

    def process_result_value(self, value: Any, dialect: Dialect) -> float | None:
        """What the column says."""
        if value is None:
            return None  # SQLite keeps no zone: what it kept is UTC
        return float((value.replace(tzinfo=UTC) if value.tzinfo is None else value).timestamp())


class Lasted(FunctionElement[int]):
    """How many milliseconds lie between two columns of instants; null where one of them is.

    Its SQL is the same text in a query and in an index, so that the one finds the other.
    """

    type = BigInteger()
    inherit_cache = True


@compiles(Lasted, "sqlite")
def _lasted_in_sqlite(element: Lasted, compiler: SQLCompiler, **more: Any) -> str:
    began, ended = (compiler.process(one, **more) for one in element.clauses)
    return f"CAST(ROUND((julianday({ended}) - julianday({began})) * 86400000.0) AS INTEGER)"


@compiles(Lasted, "postgresql")
def _lasted_in_postgresql(element: Lasted, compiler: SQLCompiler, **more: Any) -> str:
    began, ended = (compiler.process(one, **more) for one in element.clauses)
    return f"(CAST(ROUND(EXTRACT(EPOCH FROM ({ended} - {began})) * 1000) AS BIGINT))"


METADATA: Final = MetaData()

CALLS: Final = Table(
    "calls",
    METADATA,
    Column("call_id", String(64), primary_key=True),
    Column("payload", BigInteger, nullable=False, unique=True),  # the 48 bits
    Column("payload_whole", _Unsigned64),
    Column("gateway", String(64), nullable=False),
    Column("dialplan", String(200), nullable=False),
    Column("plan", String(16)),  # later than the others: see `gateway.store.registry`
    Column("route", String(64), nullable=False),
    Column("grant_jti", String(64)),
    Column("voice", String(80)),
    Column("voice_hash", String(128)),
    Column("caller", String(256), nullable=False),
    Column("called", String(256), nullable=False),
    Column("source", String(128), nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("ended_at", Instant),
    Column("how", String(200)),
    Column("sip_call_id", String(128)),  # the caller's own; later, too
    Column("sounded", Float),  # how it sounded, the worse way's (ITU-T G.107, 1 to 4.5); later, too
    Index("calls_by_start", "started_at"),
)
LATER_COLUMNS: Final = (CALLS.c.plan, CALLS.c.sip_call_id, CALLS.c.sounded)
"""Those that registries of earlier versions lack."""
FAILED: Final = literal_column("(substr(how, 1, 6) = 'failed' OR substr(how, 1, 4) = 'lost')", Boolean)
"""Whether a call ended by a failure; "lost" is an earlier version's word."""
OPEN_CALLS: Final = Index(
    "calls_open",
    CALLS.c.started_at,
    sqlite_where=CALLS.c.ended_at.is_(None),
    postgresql_where=CALLS.c.ended_at.is_(None),
)
"""Calls that have not ended: few among many."""
LATER_INDEXES: Final = (
    OPEN_CALLS,
    Index("calls_by_route", CALLS.c.route, CALLS.c.started_at),
    Index("calls_by_caller", CALLS.c.caller, CALLS.c.started_at.desc()),
    Index("calls_by_duration", Lasted(CALLS.c.started_at, CALLS.c.ended_at), CALLS.c.started_at.desc()),
    Index("calls_by_sip_id", CALLS.c.sip_call_id),
)
"""What calls are found and sorted by; registries of earlier versions lack them."""
LEAVES: Final = Table(
    "call_leaves",
    METADATA,
    Column("leaf_id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("call_id", String(64), nullable=False, index=True),
    Column("stage", String(8), nullable=False),
    Column("leaf", String(64), nullable=False),
    Column("batch", String(32), index=True),  # null until it is to be sealed
    Column("seal", BigInteger),  # the ledger's row; null until it is sealed
)
"""What the consent ledger vouches for of each call (`consent.ledger.call_leaf`); see `call_leaves.py`."""
Index(
    "call_leaves_waiting",
    LEAVES.c.batch,
    LEAVES.c.leaf_id,
    sqlite_where=LEAVES.c.seal.is_(None),
    postgresql_where=LEAVES.c.seal.is_(None),
)
