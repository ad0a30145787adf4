"""What the office does for operators about the ledger: its rows, proof, head, clock and restoring."""

from __future__ import annotations

from typing import Any

from consent.errors import GrantRefused, LedgerError
from consent.grants.grant import GrantVerifier, public_keys
from consent.ledger.chain import HEAD_TYP, Proof, Row, head_of
from consent.office.office import ConsentOffice
from consent.service import ledger_questions as asked
from consent.service.office_rooms import OfficeRooms
from consent.service.office_server import Answered, Asker


class LedgerCounter:
    """Answers the questions of `consent.service.ledger_questions`."""

    def __init__(self, rooms: OfficeRooms) -> None:
        self._rooms = rooms

    @property
    def _office(self) -> ConsentOffice:
        return self._rooms.office()

    @property
    def answers(self) -> list[Answered]:
        """What may be asked here."""
        return [
            Answered(asked.ProveLedger, self.prove),
            Answered(asked.SignHead, self.head),
            Answered(asked.ListRows, self.rows),
            Answered(asked.ResumeLedger, self.resume),
            Answered(asked.AskResumeTerms, self.resume_terms),
            Answered(asked.AskLostRows, self.lost_rows),
            Answered(asked.AskClock, self.clock),
            Answered(asked.AskTip, self.tip),
            Answered(asked.SetClock, self.set_clock),
        ]

    def prove(self, _: Asker, question: asked.ProveLedger) -> Proof:
        """Raises `LedgerError` for a head or keys that are none."""
        office = self._office
        trusted = None if question.keys is None else _public(question.keys)
        heads = [*office.books.seen, *office.heads.heads()]
        if question.head is not None:
            verifier = GrantVerifier(trusted or office.keys.public)
            try:
                heads = [head_of(verifier.claims(question.head, HEAD_TYP))]
            except GrantRefused:
                raise LedgerError(
                    "this is not a ledger head signed with these keys, or its key was revoked"
                ) from None
        revoked = None if question.revoked is None else _public(question.revoked)
        return office.books.prove(heads, {**trusted, **(revoked or {})} if trusted else None, revoked)

    def head(self, _: Asker, __: asked.SignHead) -> str:
        """Raises `LedgerError`."""
        return self._office.books.head()

    def rows(self, _: Asker, question: asked.ListRows) -> tuple[Row, ...]:
        """Raises `LedgerError`."""
        return tuple(
            self._office.books.reader.rows(
                kinds=question.kinds,
                since_ms=question.since_ms,
                after=question.after,
                most=asked.ROWS,
                proved=True,
            )
        )

    def resume_terms(self, _: Asker, question: asked.AskResumeTerms) -> dict[str, Any]:
        """Raises `LedgerError`."""
        return dict(self._office.resume_terms(list(question.lost)))

    def lost_rows(self, _: Asker, __: asked.AskLostRows) -> tuple[dict[str, Any], ...]:
        """Raises `LedgerError`."""
        return tuple(self._office.heads.given_up())

    def clock(self, _: Asker, __: asked.AskClock) -> float:
        """Seconds since the epoch."""
        return self._office.clock()

    def tip(self, _: Asker, __: asked.AskTip) -> str:
        """Raises `LedgerError`."""
        self._office.look()
        return self._office.books.tip[1]

    def set_clock(self, _: Asker, question: asked.SetClock) -> int:
        """Raises as `ConsentOffice.set_clock` does."""
        return self._office.set_clock(question.reason, question.act).seq

    def resume(self, _: Asker, question: asked.ResumeLedger) -> tuple[str, ...]:
        """Raises as `ConsentOffice.resume_ledger` does."""
        return tuple(self._office.resume_ledger(question.reason, question.act))


def _public(keys: dict[str, str]) -> dict[str, Any]:
    try:
        return dict(public_keys(keys))
    except (ValueError, TypeError):
        raise LedgerError("these are not public keys") from None
