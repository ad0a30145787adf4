"""What operators sign, taken by the office: one transaction for each act, and each act good once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from consent.errors import ConsentError, OperatorError
from consent.ledger.acts import check_act
from consent.ledger.books import Books
from consent.ledger.operators import ROLES
from consent.ledger.standing import OperatorStanding
from consent.ledger.writing import Writing


@contextmanager
def acting(books: Books, act: str, what: str) -> Iterator[tuple[Writing, OperatorStanding, dict[str, Any]]]:
    """A transaction by an operator's act: who signed it, and its claims.

    An act that is refused inside is spent all the same, by a row that says so: nobody hands it in again.
    Raises `OperatorError`, `LedgerError`.
    """
    good: tuple[OperatorStanding, dict[str, Any]] | None = None
    try:
        with books.writing() as writing:
            good = check_act(writing.standing, act, what, books.clock())
            yield writing, *good
    except ConsentError:
        if good is not None:
            operator, claims = good
            body = {"what": what, "by": operator.name, "jti": claims["jti"], "iat": claims["iat"]}
            with contextlib.suppress(ConsentError), books.writing() as writing:  # the first error says why
                writing.append("act.refused", None, body)
        raise


class OperatorDesk:
    """Adds and revokes operators."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def add(self, name: str, role: str, public: str, act: str | None) -> OperatorStanding:
        """Makes somebody an operator, by an act that names them and their key (base64url).

        Without an act only as a founder: while no voice was ever submitted and nobody has that role. Raises
        `OperatorError`, `LedgerError`.
        """
        if role not in ROLES:
            raise OperatorError(f"{role!r} is not a role; there are {', '.join(ROLES)}")
        body = {"name": name, "role": role, "public": public, "added_by": "", "act": act or ""}
        if act is None:
            with self._books.writing() as writing:
                writing.append("operator.added", None, body)
        else:
            with acting(self._books, act, "operator") as (writing, operator, _):
                writing.append("operator.added", None, {**body, "added_by": operator.name})
        return self._books.look().operators[name]

    def revoke(self, name: str, reason: str, act: str) -> None:
        """Takes an operator's rights; what they signed before stands.

        Raises `OperatorError`, `LedgerError`.
        """
        with acting(self._books, act, "operator") as (writing, operator, _):
            body = {"name": name, "by": operator.name, "reason": reason[:500], "act": act}
            writing.append("operator.revoked", None, body)
