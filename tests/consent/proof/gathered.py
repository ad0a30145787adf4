"""A call's evidence, gathered by who has the office itself and asks it over no socket."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from consent.ledger.chain import Row
from consent.office.office import ConsentOffice
from consent.proof.call_seals import SEALED, SealedCalls
from consent.proof.evidence import Evidence, consent_of, gather
from watermark.keys import MarkKey


def evidence_by(
    office: ConsentOffice, call: Mapping[str, Any] | None, mark: Mapping[str, Any] | None = None, *,
    keys: Sequence[MarkKey] | None = None, calls: SealedCalls | None = None,
) -> Evidence:  # fmt: skip
    def sealed() -> Iterator[Row]:
        yield from office.books.reader.rows(kinds=(SEALED,), proved=True)

    return gather(consent_of(office, call), call, mark, sealed=sealed(), keys=keys, calls=calls)
