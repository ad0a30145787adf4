"""What commands ask of the ledger in more than one question: all its rows, a call's evidence, its vCon."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from consent.errors import ConsentError, OfficeAway
from consent.grants.scope import STOCK
from consent.ledger.chain import Row
from consent.proof import vcon
from consent.proof.call_seals import SEALED, SealedCalls
from consent.proof.evidence import Evidence, gather
from consent.service.ledger_questions import ROWS, ListRows
from consent.service.office_client import OfficeClient
from consent.service.voice_questions import AskConsentOfCall, ExportVoice, ShowVoice
from watermark.keys import MarkKey

EARLIER_S: Final = 3600.0
"""How long before a call began, by the registry, its grants' rows are looked for."""


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


def vcon_of_call(office: OfficeClient, call: Mapping[str, Any], found: Evidence) -> dict[str, Any]:
    """A call's consent for others: `found`, the rows of its grants, and the bundle of each person's voice.

    A voice that cannot be exported any more, such as an erased one, is told of by the rows and by `found`.
    Raises `LedgerError`, `OfficeAway`.
    """
    call_id = call.get("call_id")
    since_ms = max(0, round((float(call.get("started_at") or 0.0) - EARLIER_S) * 1000))
    rows = [row for row in rows_of(office, vcon.GRANTED, since_ms) if row.table["call"] == call_id]
    spoken_by = {row.subject for row in rows}
    given = [call, *(call.get("grants") or [])]
    names = dict.fromkeys(str(grant["voice"]) for grant in given if grant.get("voice") not in (None, STOCK))
    proofs: list[dict[str, Any]] = []
    for name in names:
        try:
            if office.ask(ShowVoice(name)).standing.voice_id in spoken_by:  # names are the registry's word
                proofs.append(json.loads(office.ask(ExportVoice(name, None)).text))
        except OfficeAway:
            raise
        except ConsentError:
            continue
    return vcon.of_call(found, call, rows, proofs)
