"""Whether the gateway's registry still says of its calls what it said when the ledger sealed them.

The front seals what was entered or ended since the last seal, once a minute: the ledger's row
`registry.sealed` has the Merkle root over those leaves, the registry keeps the leaves. Here the roots are
computed again from the leaves, and leaves from the rows: a row that was edited fits its leaf no more, a leaf
that was edited or deleted fits no root, and a root cannot be made without the office's key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final, Protocol

from consent.ledger.call_leaf import SEAL_WITHIN_S, CallLeaf, call_leaf
from consent.ledger.chain import Row
from consent.ledger.merkle import tree_hash

SEALED: Final = "registry.sealed"
"""The kind of the ledger's rows that seal calls."""


class SealedCalls(Protocol):
    """The registry, as far as its seals go. Calls are mappings, as `call_leaf` takes them."""

    def by_batch(self) -> Iterator[CallLeaf]:
        """Every leaf that has a batch, batch by batch, each in the order it was sealed in."""

    def of_call(self, call_id: str) -> list[CallLeaf]:
        """The leaves of one call, the oldest first."""

    def call(self, call_id: str) -> Mapping[str, Any] | None:
        """A call's row as it is now."""

    def with_calls(self) -> Iterator[tuple[CallLeaf, Mapping[str, Any] | None]]:
        """Every leaf with its call's row as it is now; None when that is gone."""

    def without_leaf(self) -> Iterator[Mapping[str, Any]]:
        """Rows of calls that have no leaf."""


@dataclass
class Seals:
    """What the ledger sealed, compared with the registry's leaves. `faults` says what does not fit."""

    sealed: dict[str, int] = field(default_factory=dict)
    """batch -> the ledger's row"""
    began_at: float | None = None
    """when the first seal was made; None: there is none"""
    faults: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, rows: Iterable[Row], calls: SealedCalls) -> Seals:
        """Computes every root anew. `rows` are the `SEALED` ones, in order, of a ledger that was proved.

        Raises as `rows` and `calls` do.
        """
        seals = cls()
        roots: dict[str, list[tuple[int, int, str]]] = {}
        for row in rows:
            body = row.table
            roots.setdefault(body["batch"], []).append((row.seq, int(body["leaves"]), body["root"]))
            seals.began_at = row.at_ms / 1000 if seals.began_at is None else seals.began_at
        missing = dict(roots)
        for batch, leaves in groupby(calls.by_batch(), lambda leaf: leaf.batch):
            hashes = [leaf.leaf for leaf in leaves]
            for seq, count, root in roots.get(batch or "", ()):
                missing.pop(batch or "", None)
                seals.sealed[batch or ""] = seq
                if len(hashes) != count or _root(hashes) != root:
                    seals.faults.append(
                        f"the registry's rows of the minute that ledger row {seq} sealed were changed or "
                        f"deleted: {count} were sealed, {len(hashes)} are left"
                    )
        for seals_of_it in missing.values():
            seq, count, _ = seals_of_it[0]
            seals.faults.append(f"the {count} rows of calls that ledger row {seq} sealed are gone")
        return seals


@dataclass(frozen=True, slots=True)
class SealOfCall:
    """Whether a call's row is what was sealed; `holds` None: nothing says so, or the contrary."""

    holds: bool | None
    says: str
    facts: Mapping[str, str] = field(default_factory=dict)


def seal_of(rows: Iterable[Row], calls: SealedCalls, call: Mapping[str, Any], now: float) -> SealOfCall:
    """What vouches for one call's row. `rows`, and what is raised: as for `Seals.read`."""
    seals = Seals.read(rows, calls)
    call_id = str(call.get("call_id"))
    leaves = calls.of_call(call_id)
    began_at = float(call.get("started_at") or 0.0)
    if not leaves:
        return _without_leaf(seals, began_at)
    current = calls.call(call_id) or {}
    given = call if call.get("ended_at") is not None else {**call, **_end_of(current)}
    for leaf in leaves:
        if call_leaf(given, leaf.stage) != leaf.leaf:
            return SealOfCall(False, f"The registry's row was changed since the call {leaf.stage}.")
    if seals.faults:
        return SealOfCall(False, f"The registry was changed: {seals.faults[0]}.")
    sealed = {leaf.stage: seals.sealed[leaf.batch] for leaf in leaves if leaf.batch in seals.sealed}
    facts = {f"sealed when it {stage}": f"ledger row {seq}" for stage, seq in sealed.items()}
    if any(leaf.batch not in seals.sealed for leaf in leaves):
        newest = max(began_at, float(given.get("ended_at") or 0.0))
        young = now - newest < SEAL_WITHIN_S
        since = "its seal comes within a minute" if young else "the gateway has not sealed it since"
        return SealOfCall(True if young else None, f"The row is not sealed yet: {since}.", facts)
    return SealOfCall(True, "The registry's row is sealed in the ledger and unchanged since.", facts)


def check_calls(rows: Iterable[Row], calls: SealedCalls) -> list[str]:
    """Everything in the registry that does not fit what was sealed. `rows`: as for `Seals.read`."""
    seals = Seals.read(rows, calls)
    faults = list(seals.faults)
    for leaf, call in calls.with_calls():
        if call is None:
            faults.append(f"the row of call {leaf.call_id} is gone")
        elif leaf.stage == "ended" and call.get("ended_at") is None:
            faults.append(f"the row of call {leaf.call_id} has lost its end")
        elif call_leaf(call, leaf.stage) != leaf.leaf:
            faults.append(f"the row of call {leaf.call_id} was changed since it {leaf.stage}")
    for call in calls.without_leaf():
        if seals.began_at is not None and float(call.get("started_at") or 0.0) >= seals.began_at:
            faults.append(f"the row of call {call.get('call_id')} was put in past the gateway")
    return faults


def _without_leaf(seals: Seals, began_at: float) -> SealOfCall:
    if seals.faults:
        return SealOfCall(False, f"The registry was changed: {seals.faults[0]}.")
    if seals.began_at is not None and began_at >= seals.began_at:
        return SealOfCall(False, "No seal has this row: it was put in past the gateway.")
    return SealOfCall(None, "The row is from before sealing began: nothing vouches for it.")


def _end_of(current: Mapping[str, Any]) -> dict[str, Any]:
    """The end that a call's facts have not, when they were taken before it."""
    return {name: current[name] for name in ("ended_at", "how") if current.get(name) is not None}


def _root(hashes: list[str]) -> str:
    try:
        return tree_hash(hashes)
    except ValueError:
        return ""
