"""The checkpoint of a host: a signed file beside the keys (`ledger-head`) that says what this host has seen.

It holds number and hash of the newest row, with the standing at that row.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

import structlog

from consent.archive.keys import OfficeKeys, write_private
from consent.archive.tables import Archive
from consent.errors import GrantRefused, LedgerError
from consent.grants.grant import GrantVerifier, sign, unb64
from consent.ledger.acts import FORM
from consent.ledger.chain import Head, head_of
from consent.ledger.standing import Standing

CHECKPOINT: Final = "ledger-head"
CHECKPOINT_TYP: Final = "ledger-checkpoint+jws"

log = structlog.get_logger("consent")


@dataclass(frozen=True, slots=True)
class SeenLedger:
    """What a checkpoint says. `judged`: whether its standing is of rows that were judged by their acts."""

    head: Head
    standing: Standing
    judged: bool


class HostCheckpoint:
    """Reads and keeps the checkpoint of this host, which its processes share."""

    def __init__(self, archive: Archive, keys: OfficeKeys) -> None:
        self._archive = archive
        self._keys = keys
        self._path = keys.directory / CHECKPOINT

    def read(self) -> SeenLedger | None:
        """What this host has seen; None where there is no checkpoint, or a revoked key signed it.

        Raises `LedgerError` for one that this office did not sign.
        """
        if not self._path.exists():
            return None
        try:
            text = self._path.read_text()
            if json.loads(unb64(text.split(".")[0]))["kid"] in self._keys.revoked:
                # it says nothing: the ledger is read from row 1
                log.warning("ledger.head_by_a_revoked_key", path=str(self._path))
                return None
            claims = self._verifier.claims(text, CHECKPOINT_TYP)
            # an older version's standing is of rows that nobody judged
            judged = claims.get("form") == FORM
            return SeenLedger(head_of(claims), Standing.from_json(claims["standing"]), judged)
        except (GrantRefused, LedgerError, KeyError, TypeError, OSError, ValueError, AttributeError):
            raise self.foreign() from None

    def foreign(self) -> LedgerError:
        """The error for a checkpoint that this office cannot have written."""
        return LedgerError(
            f"{self._path} was not signed by this office; run `voicegate ledger verify`, then remove it"
        )

    @property
    def head(self) -> Head | None:
        """The head in the file; None where there is none that this office signed."""
        try:
            return head_of(self._verifier.claims(self._path.read_text(), CHECKPOINT_TYP))
        except (OSError, GrantRefused, LedgerError):
            return None

    def keep(self, head: Head, standing: Standing, now: float) -> bool:
        """Signs and keeps this at `now` (seconds since the epoch); returns whether it was kept.

        It never goes back behind another process of this host. A disk that takes nothing is logged: what was
        done stands all the same.
        """
        kept = self.head
        if kept is not None and kept.seq >= head.seq:
            return False
        self._archive.settle()  # a head must never name a row that a power cut takes
        claims = {**head.to_claims(now), "form": FORM, "standing": standing.to_json()}
        signer = self._keys.signer
        token = sign(claims, signer.private, signer.kid, CHECKPOINT_TYP)
        try:
            write_private(self._path, token.encode(), replace_it=True)
        except OSError as error:
            log.error("ledger.head_not_kept", path=str(self._path), error=error.strerror)
            return False
        return True

    def forget(self) -> None:
        """Removes the file, so that the next one may name an earlier row."""
        self._path.unlink(missing_ok=True)

    @property
    def _verifier(self) -> GrantVerifier:
        return GrantVerifier(self._keys.public)
