"""An open transaction over the ledger: what is written in it stands whole, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from consent.archive.keys import OfficeKeys, SigningKey
from consent.errors import ClockError, LedgerError, OperatorError
from consent.ledger.chain import MAY_GO_BACK, RESET, Row, put
from consent.ledger.rulings import VOID, judge
from consent.ledger.standing import QUIET, Standing
from consent.ledger.timekeeper import TAKEN_ANYWAY, TOLERANCE_S, Timekeeper


@dataclass
class Writing:
    """An open transaction: `connection` for the tables beside the ledger, `append` for its rows."""

    connection: Connection
    standing: Standing
    tip: tuple[int, str, int]
    """number, hash and time (ms) of the newest row before this transaction"""
    keys: OfficeKeys = field(repr=False)
    clock: Timekeeper
    rows: list[Row] = field(default_factory=list)
    """what was appended"""

    def append(
        self, kind: str, subject: str | None, body: Mapping[str, Any], signer: SigningKey | None = None
    ) -> Row:
        """Adds a row; it stands when the transaction does.

        Raises `OperatorError` for one that is void, `ClockError` when this clock may not be believed, except
        for rows of `TAKEN_ANYWAY`.
        """
        seq, prev, newest_ms = self._newest
        return self._put(seq + 1, self._time_of(kind, newest_ms), kind, subject, body, prev, signer)

    def _time_of(self, kind: str, newest_ms: int) -> int:
        if kind in MAY_GO_BACK:
            return round(self.clock.uncontradicted() * 1000)
        lonely = kind == "operator.added" and not self.standing.has_auditor  # who could say the time?
        try:
            now = self.clock.believe(newest_ms, unproven=lonely or not self.standing.voices)
        except ClockError:
            if kind not in TAKEN_ANYWAY:
                raise
            return newest_ms
        return max(newest_ms, round(now * 1000))

    def set_clock(self, at_ms: int, body: Mapping[str, Any]) -> Row:
        """Adds the row by which an auditor says what the time is: the line begins anew there."""
        seq, prev, _ = self._newest
        return self._put(seq + 1, at_ms, RESET, None, body, prev, None)

    def now(self, *, behind_s: float = TOLERANCE_S) -> float:
        """The time, for what this transaction decides by it. Raises `ClockError`."""
        return self.clock.believe(self.tip[2], behind_s=behind_s, unproven=not self.standing.voices)

    @property
    def _newest(self) -> tuple[int, str, int]:
        if not self.rows:
            return self.tip
        return self.rows[-1].seq, self.rows[-1].hash, self.rows[-1].at_ms

    def _put(
        self, seq: int, at_ms: int, kind: str, subject: str | None, body: Mapping[str, Any], prev: str,
        signer: SigningKey | None,
    ) -> Row:  # fmt: skip
        if signer is None:
            signer = self.keys.signer
            if self.standing.signers and signer.kid not in self.standing.signers:
                raise LedgerError(
                    "this host has no signing key in force; copy office-keys.json from the host that rotated"
                )
        row = Row.make(seq, at_ms, kind, subject, body, prev, signer)
        if kind not in QUIET and (fault := judge(self.standing, row)) is not None:
            raise OperatorError(fault.removeprefix(VOID))
        put(self.connection, row)
        self.rows.append(row)
        return row
