"""The leaves by which the consent ledger vouches for the registry's calls: gathered to be sealed, and read.

Each call leaves one when it is entered and one when it ends, in the same transaction as its row. What waits
is put together as a batch, whose order is that of `leaf_id`; the office seals the batch. A batch that got no
seal, because somebody died in between, is handed over again. The methods block, as the registry's do.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Select, insert, inspect, select, update
from sqlalchemy.engine import Row
from sqlalchemy.exc import SQLAlchemyError

from consent.archive.database import first_line
from consent.ledger.call_leaf import CallLeaf
from gateway.store.call_tables import CALLS, LEAVES
from gateway.store.registry import READ_AT_ONCE, Registry, RegistryError

BATCH: Final = 10_000
"""Leaves of one seal at most."""


@contextmanager
def sealed_calls(sql_url: str) -> Iterator[CallLeaves | None]:
    """The leaves of the registry in a database, to read; None when there is none. Raises `StartError`."""
    registry = Registry.read(sql_url)
    try:
        yield None if registry is None else CallLeaves(registry)
    finally:
        if registry is not None:
            registry.close()


class CallLeaves:
    """One registry's leaves. Every method raises `RegistryError`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    # ── to be sealed ─────────────────────────────────────────────────────────────────────────────────

    def waiting(self) -> Iterator[tuple[str, list[str]]]:
        """Batches to be sealed, each by its name, with its leaves in order."""
        self._put_right()
        for batch in self._unsealed():
            yield batch, self._leaves(batch)
        while True:
            batch = secrets.token_hex(8)
            fresh = LEAVES.c.seal.is_(None) & LEAVES.c.batch.is_(None)
            chosen = select(LEAVES.c.leaf_id).where(fresh).order_by(LEAVES.c.leaf_id).limit(BATCH)
            taking = update(LEAVES).where(LEAVES.c.leaf_id.in_(chosen.scalar_subquery()) & fresh)
            with self._writing() as connection:
                taken = connection.execute(taking.values(batch=batch)).rowcount
            if not taken:
                return
            yield batch, self._leaves(batch)

    def sealed(self, batch: str, seal: int) -> None:
        """Notes the ledger's row that sealed a batch."""
        with self._writing() as connection:
            connection.execute(update(LEAVES).where(LEAVES.c.batch == batch).values(seal=seal))
            done = connection.execute(select(LEAVES.c.call_id, LEAVES.c.stage).where(LEAVES.c.batch == batch))
            for call_id, stage in done:
                self._registry.fresh_leaves.pop((call_id, stage), None)

    def _put_right(self) -> None:
        """Leaves that this process entered are sealed as they were, whatever became of them in the table."""
        if not self._registry.fresh_leaves:
            return
        unsealed = select(LEAVES.c.call_id, LEAVES.c.stage, LEAVES.c.leaf).where(LEAVES.c.seal.is_(None))
        with self._writing() as connection:  # no other thread enters or seals a call meanwhile
            fresh = dict(self._registry.fresh_leaves)
            kept = {(call_id, stage): leaf for call_id, stage, leaf in connection.execute(unsealed)}
            for (call_id, stage), leaf in fresh.items():
                if kept.get((call_id, stage)) != leaf:
                    values = {"call_id": call_id, "stage": stage, "leaf": leaf}
                    connection.execute(insert(LEAVES).values(values))

    def _unsealed(self) -> list[str]:
        found = select(LEAVES.c.batch).where(LEAVES.c.seal.is_(None)).distinct()
        return [str(row.batch) for row in self._rows(found) if row.batch is not None]

    def _leaves(self, batch: str) -> list[str]:
        found = select(LEAVES.c.leaf).where(LEAVES.c.batch == batch).order_by(LEAVES.c.leaf_id)
        return [str(row.leaf) for row in self._rows(found)]

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        try:
            with self._registry.writing() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise RegistryError(f"calls were not put together for their seal: {first_line(error)}") from None

    # ── to be compared (`consent.proof.call_seals.SealedCalls`) ──────────────────────────────────────

    def by_batch(self) -> Iterator[CallLeaf]:
        """Every leaf that has a batch, batch by batch, each in the order it was sealed in."""
        found = select(LEAVES).where(LEAVES.c.batch.is_not(None)).order_by(LEAVES.c.batch, LEAVES.c.leaf_id)
        yield from map(_leaf, self._rows(found))

    def of_call(self, call_id: str) -> list[CallLeaf]:
        """The leaves of one call, the oldest first."""
        found = select(LEAVES).where(LEAVES.c.call_id == call_id).order_by(LEAVES.c.leaf_id)
        return [_leaf(row) for row in self._rows(found)]

    def call(self, call_id: str) -> Mapping[str, Any] | None:
        """A call's row as it is now."""
        row = self._registry.get(call_id)
        return None if row is None else row.to_json()

    def with_calls(self) -> Iterator[tuple[CallLeaf, Mapping[str, Any] | None]]:
        """Every leaf with its call's row as it is now; None when that is gone."""
        columns = [LEAVES.c.call_id.label("of_call"), LEAVES.c.stage, LEAVES.c.leaf, LEAVES.c.batch]
        joined = LEAVES.outerjoin(CALLS, LEAVES.c.call_id == CALLS.c.call_id)
        for row in self._rows(select(*columns, *CALLS.columns).select_from(joined)):
            leaf = CallLeaf(row.of_call, row.stage, row.leaf, row.batch)
            yield leaf, None if row.call_id is None else row._asdict()

    def without_leaf(self) -> Iterator[Mapping[str, Any]]:
        """Rows of calls that have no leaf."""
        leaf = select(LEAVES.c.leaf_id).where(LEAVES.c.call_id == CALLS.c.call_id).exists()
        for row in self._rows(select(CALLS).where(~leaf), select(CALLS)):
            yield row._asdict()

    def _rows(self, asked: Select[Any], older: Select[Any] | None = None) -> Iterator[Row[Any]]:
        """`older`: what is asked of a registry that an older version made, and that has no leaves."""
        try:
            with self._registry.engine.connect() as connection:
                chosen = asked if inspect(connection).has_table(LEAVES.name) else older
                if chosen is not None:
                    yield from connection.execution_options(yield_per=READ_AT_ONCE).execute(chosen)
        except SQLAlchemyError as error:
            raise RegistryError(f"the call registry cannot be read: {first_line(error)}") from None


def _leaf(row: Row[Any]) -> CallLeaf:
    return CallLeaf(row.call_id, row.stage, row.leaf, row.batch)
