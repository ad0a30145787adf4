"""What commands ask of the ledger in more than one question: all its rows, and a call's evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from consent.ledger.chain import Row
from consent.proof.call_seals import SEALED, SealedCalls
from consent.proof.evidence import Evidence, gather
from consent.service.ledger_questions import ROWS, ListRows
from consent.service.office_client import OfficeClient
from consent.service.voice_questions import AskConsentOfCall
from watermark.keys import MarkKey


def rows_of(office: OfficeClient, kinds: tuple[str, ...] = (), since_ms: int = 0) -> Iterator[Row]:
    """The ledger's rows in order, as they are. Raises `LedgerError`, `OfficeAway`."""
    after = 0
    while True:
        page = office.ask(ListRows(kinds, since_ms, after))
        yield from page
        if len(page) < ROWS:
            return
        after = page[-1].seq


def evidence_of(
    office: OfficeClient, call: Mapping[str, Any] | None, mark: Mapping[str, Any] | None = None, *,
    keys: Sequence[MarkKey] | None = None, calls: SealedCalls | None = None, misnamed: str | None = None,
) -> Evidence:  # fmt: skip
    """The chain for a call, as `gather` takes it: marks and registry are looked at here, not by the office.

    Raises `LedgerError` for what is not a call's JSON, `OfficeAway`, and as `calls` does.
    """
    consent = office.ask(AskConsentOfCall(None if call is None else dict(call)))
    rows = rows_of(office, (SEALED,))
    return gather(consent, call, mark, sealed=rows, keys=keys, calls=calls, misnamed=misnamed)
