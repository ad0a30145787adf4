"""What the office does for operators about itself: which it is, its operators, its keys, its backups."""

from __future__ import annotations

import os
from typing import Any, Final

from consent.errors import OperatorError
from consent.ledger.standing import OperatorStanding
from consent.office import backup
from consent.office.office import ConsentOffice
from consent.office.operator_desk import OperatorDesk
from consent.office.rotation import Rotation
from consent.service import operator_questions as asked
from consent.service.office_rooms import OfficeRooms
from consent.service.office_server import Answered, Asker
from consent.service.remembered import Remembered

ROTATIONS: Final = 8
"""Keys that wait for their act; of more than these the oldest has to begin again."""


class OperatorCounter:
    """Answers the questions of `consent.service.operator_questions`."""

    def __init__(self, rooms: OfficeRooms, gateway: int) -> None:
        """`gateway` is the user id that calls run under."""
        self._rooms = rooms
        self._gateway = gateway
        self._rotations: Remembered[Rotation] = Remembered(ROTATIONS)
        """by the kid of the key that waits for an act"""

    @property
    def _office(self) -> ConsentOffice:
        return self._rooms.office()

    @property
    def answers(self) -> list[Answered]:
        """What may be asked here."""
        return [
            Answered(asked.AskFacts, self.facts),
            Answered(asked.AskIdentity, self.identity),
            Answered(asked.ListOperators, self.operators),
            Answered(asked.AddOperator, self.add_operator),
            Answered(asked.RevokeOperator, self.revoke_operator),
            Answered(asked.AskNextKey, self.next_key),
            Answered(asked.RotateKey, self.rotate),
            Answered(asked.RevokeKey, self.revoke_key),
            Answered(asked.MakeBackup, self.backup),
            Answered(asked.RestoreBackup, self.restore),
        ]

    def facts(self, _: Asker, __: asked.AskFacts) -> asked.OfficeFacts:
        """Opens nothing."""
        mark = asked.database_mark(self._rooms.place.sql_url)
        return asked.OfficeFacts(os.getuid(), self._gateway, mark, os.getpid())

    def identity(self, _: Asker, __: asked.AskIdentity) -> str:
        """Raises `LedgerError`."""
        return self._office.identity

    def operators(self, _: Asker, __: asked.ListOperators) -> tuple[OperatorStanding, ...]:
        """Raises `LedgerError`."""
        return tuple(self._office.look().operators.values())

    def add_operator(self, _: Asker, question: asked.AddOperator) -> None:
        """Raises as `OperatorDesk.add` does."""
        desk = OperatorDesk(self._office.books)
        desk.add(question.name, question.role, question.public, question.act)

    def revoke_operator(self, _: Asker, question: asked.RevokeOperator) -> None:
        """Raises as `OperatorDesk.revoke` does."""
        OperatorDesk(self._office.books).revoke(question.name, question.reason, question.act)

    def next_key(self, _: Asker, question: asked.AskNextKey) -> dict[str, Any]:
        """Raises `LedgerError`, `VaultError`."""
        office = self._office
        rotation = Rotation(office.books, office.vault)
        about = rotation.next_signing() if question.which == "signing" else rotation.next_master()
        self._rotations.keep(str(about["kid"]), rotation)
        return about

    def rotate(self, _: Asker, question: asked.RotateKey) -> str:
        """Raises as `Rotation` does."""
        rotation = self._rotations.of(question.kid)
        if rotation is None:
            raise OperatorError("this key does not wait for an act any more; rotate again")
        self._rotations.forget(question.kid)
        if question.which == "signing":
            return rotation.signing(question.act)
        return str(rotation.master(question.act))

    def revoke_key(self, _: Asker, question: asked.RevokeKey) -> None:
        """Raises as `Rotation.revoke` does."""
        office = self._office
        Rotation(office.books, office.vault).revoke(
            question.kid, question.since, question.reason, question.act
        )

    def backup(self, _: Asker, question: asked.MakeBackup) -> asked.SealedBackup:
        """Raises `VaultError`, `LedgerError`."""
        sealed, rows = backup.seal(self._office, question.passphrase)
        return asked.SealedBackup(sealed, rows)

    def restore(self, _: Asker, question: asked.RestoreBackup) -> int:
        """Raises `VaultError` for a wrong passphrase, or a database with consent in it."""
        place = self._rooms.place
        return backup.restore_from(question.sealed, question.passphrase, place.sql_url, place.consent_dir)
